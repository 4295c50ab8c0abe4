"""Executors give the numbers of one process, in order, also where a worker is killed."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import threading
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from fixtures.machines.processes import run_wwopt
from safetensors.torch import save_file
from torch import nn

from wwopt.metrics.analysis import analyze
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.parallel import RETRIES, LostWorkerError, map_layers
from wwopt.weights.matrices import WeightMatrix

SIZES = [(80, 60), (60, 90), (150, 140), (64, 64), (70, 60), (61, 60)]


class Inline(Executor):
    """Computes on submission, through pickles as a network would; the first ones may get lost."""

    def __init__(self, lost: int = 0, error: BaseException | None = None) -> None:
        self.lost, self.error = lost, error or CancelledError()
        self.sizes: list[int] = []
        self.pending = self.most_pending = 0

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        text = pickle.dumps((function, arguments))
        self.sizes.append(len(text))
        if self.lost > 0:
            self.lost -= 1
            future.set_exception(self.error)
            return future
        function, arguments = pickle.loads(text)
        future.set_result(function(*arguments))
        return future


class KilledWorker(Exception):  # noqa: N818 - Dask's name, without Dask
    pass


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"layers.{i}.weight": torch.randn(size, generator=generator) for i, size in enumerate(SIZES)
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(state(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def assert_same(found: ModelMetrics, expected: ModelMetrics) -> None:
    pd.testing.assert_frame_equal(found.to_frame(), expected.to_frame(), rtol=1e-10, atol=0)
    for layer, other in zip(found.layers, expected.layers, strict=True):
        assert layer.spectrum is not None
        assert other.spectrum is not None
        assert layer.spectrum.eigenvalues == pytest.approx(other.spectrum.eigenvalues, rel=1e-10)


class TestAnyExecutor:
    def test_files_travel_as_path_and_name(self, path: Path) -> None:
        executor = Inline()
        assert_same(analyze(path, executor=executor), analyze(path))
        assert max(executor.sizes) < 2_000

    def test_relative_paths_travel_whole(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = analyze(path)
        monkeypatch.chdir(path.parent)
        submitted: list[WeightMatrix] = []

        class Elsewhere(Inline):
            def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
                submitted.append(arguments[0])
                monkeypatch.chdir("/")
                return super().submit(function, *arguments)

        assert_same(analyze("model.safetensors", executor=Elsewhere()), expected)
        assert len(submitted) == len(SIZES)

    def test_modules_travel_as_arrays_of_one_layer(self) -> None:
        model = nn.Sequential(*[nn.Linear(columns, rows) for rows, columns in SIZES])
        executor = Inline()
        assert_same(analyze(model, executor=executor), analyze(model))
        assert max(executor.sizes) < 150 * 140 * 4 + 2_000

    def test_a_difference_to_a_module_travels_as_arrays(self, path: Path) -> None:
        base = {name: value + 0.1 for name, value in state().items()}
        assert_same(analyze(path, base=base, executor=Inline()), analyze(path, base=base))

    @pytest.mark.parametrize("error", [CancelledError(), KilledWorker("gone")])
    def test_lost_layers_are_submitted_again(self, path: Path, error: BaseException) -> None:
        assert_same(analyze(path, executor=Inline(RETRIES, error)), analyze(path))

    def test_a_layer_that_kills_every_worker_is_named(self, path: Path) -> None:
        with pytest.raises(LostWorkerError, match=r"layer layers\.0 lost its worker 4 times.*gone"):
            analyze(path, executor=Inline(100, KilledWorker("gone")))

    def test_other_errors_are_not_tried_again(self, path: Path) -> None:
        executor = Inline(1, ZeroDivisionError("a bug"))
        with pytest.raises(ZeroDivisionError, match="a bug"):
            analyze(path, executor=executor)

    def test_few_layers_are_in_flight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        submitted: list[str] = []

        class Counting(Inline):
            def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
                submitted.append(arguments[0].name)
                return super().submit(function, *arguments)

        read = partial(torch.zeros, 1, 2, 2)
        matrices = [WeightMatrix(str(i), "linear", (2, 2), 1, "float32", read) for i in range(50)]
        results = map_layers(name_of, matrices, executor=Counting(), from_files=False)
        assert next(results) == "0"
        assert len(submitted) == 4
        assert list(results) == [str(i) for i in range(1, 50)]

    def test_what_is_left_when_the_caller_stops_is_cancelled(self) -> None:
        futures: list[Future[Any]] = []

        class Waiting(Inline):
            def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
                futures.append(Future())
                if len(futures) == 1:
                    futures[0].set_result("first")
                return futures[-1]

        read = partial(torch.zeros, 1, 2, 2)
        matrices = [WeightMatrix(str(i), "linear", (2, 2), 1, "float32", read) for i in range(4)]
        results = map_layers(name_of, matrices, executor=Waiting(), from_files=True)
        assert next(results) == "first"
        results.close()  # type: ignore[attr-defined]
        assert [future.cancelled() for future in futures[1:]] == [True] * (len(futures) - 1)


def name_of(matrix: WeightMatrix) -> str:
    return matrix.name


def die_at(name: str, main: int, matrix: WeightMatrix) -> str:
    """Kill the process that computes one layer, unless it is the tests' own."""
    if matrix.name == name and os.getpid() != main:
        os.kill(os.getpid(), signal.SIGKILL)
    return matrix.name


@pytest.mark.integration
class TestProcessPools:
    def test_give_the_same_numbers(self, path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert_same(analyze(path, executor=pool), analyze(path))
            assert_same(analyze(state(), executor=pool), analyze(state()))

    def test_that_lose_a_worker_are_finished_here_with_a_warning(self) -> None:
        read = partial(torch.zeros, 1, 2, 2)
        matrices = [WeightMatrix(str(i), "linear", (2, 2), 1, "float32", read) for i in range(12)]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            function = partial(die_at, "3", os.getpid())
            with pytest.warns(RuntimeWarning, match="remaining layers are computed in this"):
                found = list(map_layers(function, matrices, executor=pool, from_files=True))
        assert found == [str(i) for i in range(12)]


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
class TestDask:
    def test_gives_the_same_numbers(self, dask: Any, path: Path) -> None:
        executor = dask.get_executor()
        assert_same(analyze(path, executor=executor), analyze(path))
        assert_same(analyze(state(), executor=executor), analyze(state()))

    def test_finishes_when_a_worker_is_killed_during_the_work(
        self, dask: Any, tmp_path: Path
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        weights = {f"{i:02}.weight": torch.randn(768, 700, generator=generator) for i in range(30)}
        save_file(weights, tmp_path / "model.safetensors")
        found: list[ModelMetrics] = []
        work = threading.Thread(
            target=lambda: found.append(
                analyze(tmp_path / "model.safetensors", executor=dask.get_executor())
            )
        )
        pids = dask.run(os.getpid)
        work.start()
        # The engine keeps every worker busy: the first one that has a layer will have another.
        while not (busy := [address for address, keys in dask.processing().items() if keys]):
            assert work.is_alive()
            work.join(0.02)
        os.kill(pids[busy[0]], signal.SIGKILL)
        assert work.is_alive()
        work.join(300)
        # Dask starts another process in its place.
        assert pids[busy[0]] not in dask.run(os.getpid).values()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as many as Dask's workers
        try:
            assert_same(found[0], analyze(tmp_path / "model.safetensors"))
        finally:
            torch.set_num_threads(threads)

    def test_the_command_takes_its_address(self, dask: Any, path: Path) -> None:
        results = [
            run_wwopt("analyze", path.name, "--csv", *more, cwd=path.parent)
            for more in ([], ["--dask", dask.scheduler.address])
        ]
        assert [result.returncode for result in results] == [0, 0], results
        frames = [pd.read_csv(io.StringIO(result.stdout)) for result in results]
        pd.testing.assert_frame_equal(frames[0], frames[1], rtol=1e-10)
