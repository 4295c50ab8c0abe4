"""What several test files share: layers, recorded studies, the zoo, commands and servers."""

import json
import math
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from fixtures.layers import SpectrumOf
from fixtures.processes import unused_port
from fixtures.studies import LAYERS, make_network, write_tiny_study
from fixtures.zoo import ZooMetricsOf, ZooOf, unpack_zoo
from hypothesis import settings
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

import wwopt
from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.spectra.spectrum import LayerSpectrum, compute_spectrum
from wwopt.weights.matrices import WeightMatrix

# The same examples in every run: a failure is a bug of the change, never of the day.
settings.register_profile("wwopt", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("wwopt")

# Threads that wait for each other on a busy machine: one test took 26 s with two and .4 s with one.
torch.set_num_threads(1)
threadpool_limits(1, user_api="blas")  # numpy's and scipy's; comes with scikit-learn


@pytest.fixture(scope="session")
def spectrum_of() -> SpectrumOf:
    """Return a function: array (rows, columns) or (slices, rows, columns) → LayerSpectrum."""

    def make(
        weights: ArrayLike | torch.Tensor,
        *,
        name: str = "layer",
        kind: str = "linear",
        rank_bound: int | None = None,
        **options: Any,
    ) -> LayerSpectrum:
        stack = torch.as_tensor(weights)
        stack = stack if stack.ndim == 3 else stack[None]
        slices, rows, columns = stack.shape
        matrix = WeightMatrix(
            name=name,
            kind=kind,
            shape=(max(rows, columns), min(rows, columns)),
            num_slices=slices,
            dtype=str(stack.dtype).removeprefix("torch."),
            read=lambda: stack,
            rank_bound=rank_bound,
        )
        return compute_spectrum(matrix, **options)

    return make


@pytest.fixture(scope="session")
def zoo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a zoo of 84 MLPs on MNIST."""
    return unpack_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def zoo_records(zoo_folder: Path) -> list[dict[str, Any]]:
    """Configuration and losses of the 77 networks of the MNIST zoo that did not diverge."""
    lines = (zoo_folder / "mnist-mlp_0.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if not record.get("diverged")]


@pytest.fixture(scope="session")
def zoo(zoo_folder: Path, zoo_records: list[dict[str, Any]]) -> ZooOf:
    """Return a function: checkpoint "0", "0.25", "0.5" or "1.0" → spectra of every network.

    Networks are in the order of `zoo_records`, layers in that of the network.
    """
    from harness.zoos.records import read_zoo

    networks = [n for n in read_zoo(zoo_folder) if not n.diverged]
    assert [n.index for n in networks] == [record["k"] for record in zoo_records]

    @cache
    def load(checkpoint: str) -> tuple[tuple[LayerSpectrum, ...], ...]:
        return tuple(network.spectra(checkpoint) for network in networks)

    return load


@pytest.fixture(scope="session")
def zoo_metrics(zoo: ZooOf) -> ZooMetricsOf:
    """Return a function: checkpoint → metrics of every network; 3 s a checkpoint, once."""

    @cache
    def measure(checkpoint: str) -> tuple[ModelMetrics, ...]:
        return tuple(metrics_from_spectra(spectra) for spectra in zoo(checkpoint))

    return measure


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[optuna.Study, str]:
    """A study of 14 trials that was recorded for real, and its tracking URI.

    Trial 4 fails with a password in its message, trial 5 is pruned for its loss. The larger the
    first layer's learning rate, the heavier its tail.
    """
    uri = f"sqlite:///{tmp_path_factory.mktemp('recorded') / 'mlflow.db'}"
    space = wwopt.LayerSpace.from_model(
        make_network(0), lr=(0.01, 1.0), dropout=None, momentum=(0.0, 0.9), tie="layer"
    )

    def objective(trial: optuna.Trial) -> float:
        hp = space.suggest(trial)
        with wwopt.record(trial, epochs=2, tracking=uri) as recorder:
            network = make_network(trial.number, hp.lr[LAYERS[0]])
            recorder.step(network, train_loss=1.0, accuracy=0.1)
            if trial.number == 4:
                raise RuntimeError("postgresql://me:s3cret@db/x is down")
            loss = math.nan if trial.number == 5 else 0.5 - 0.1 * hp.lr[LAYERS[0]]
            recorder.step(network, train_loss=loss, accuracy=0.9 - 0.01 * trial.number)
        return recorder.value

    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(
        study_name="härte/1", sampler=sampler, pruner=optuna.pruners.NopPruner()
    )
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # names of 300 characters
    study.optimize(objective, n_trials=14, catch=(RuntimeError,))
    optuna.logging.set_verbosity(optuna.logging.INFO)
    return study, uri


@pytest.fixture
def study_file(tmp_path: Path) -> str:
    """The path of a study that trains in milliseconds."""
    return write_tiny_study(tmp_path)


@pytest.fixture
def dask() -> Iterator[Any]:
    """A client of a Dask cluster of two worker processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def nothing_of_matplotlib_is_changed() -> Iterator[None]:
    """No setting is left changed, and no figure left to pyplot."""
    import matplotlib
    from matplotlib import pyplot as plt

    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real `mlflow server` on the loopback interface."""
    folder, port = tmp_path_factory.mktemp("mlflow"), unused_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            _wait_until_it_answers(port, server, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_until_it_answers(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"mlflow server ended: {log.read_text()[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)  # polling a real server's port, with a deadline
    pytest.fail(f"mlflow server did not answer: {log.read_text()[-2000:]}")
