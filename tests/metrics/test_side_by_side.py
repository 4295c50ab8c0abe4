"""Layers side by side: the numbers of one after the other, in order, within bounds."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from wwopt.metrics import side_by_side
from wwopt.metrics.analysis import analyze
from wwopt.metrics.side_by_side import (
    FEWEST_COLUMNS,
    bytes_needed,
    choose_workers,
    count_workers,
    is_admitted,
    map_side_by_side,
)
from wwopt.weights.matrices import WeightMatrix, read_weights

LONG = 60.0  # seconds; what should come comes much earlier


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)


def matrix(name: str, shape: tuple[int, int] = (2, 2), **fields: Any) -> WeightMatrix:
    options: dict[str, Any] = {"kind": "linear", "num_slices": 1, "dtype": "float32", **fields}
    return WeightMatrix(name=name, shape=shape, read=partial(torch.zeros, 1, *shape), **options)


def state() -> dict[str, torch.Tensor]:
    """Layers of unequal cost: wide, small, a convolution, heavy-tailed ones."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(900, 700), (60, 90), (260, 256), (300, 16, 3, 3), (64, 64), (256, 600)]
    weights = [torch.randn(size, generator=generator) for size in sizes]
    weights[2] = weights[2] ** 3
    return {f"layers.{i}.weight": entries for i, entries in enumerate(weights)}


@pytest.mark.usefixtures("two_threads")
def test_the_numbers_do_not_depend_on_the_workers() -> None:
    alone = analyze(state(), workers=1)
    for workers in (2, 4, None):
        found = analyze(state(), workers=workers)
        assert found.to_frame().equals(alone.to_frame())
        for ours, theirs in zip(found.layers, alone.layers, strict=True):
            assert ours.spectrum is not None and theirs.spectrum is not None
            assert (ours.spectrum.eigenvalues == theirs.spectrum.eigenvalues).all()
    torch.set_num_threads(1)
    assert analyze(state()).to_frame().equals(alone.to_frame())


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("workers", [1, 2])
def test_numbers_of_threads_are_set_back_after_an_error(workers: int) -> None:
    weights = read_weights(state())

    def fail() -> torch.Tensor:
        raise OSError("the file is gone")

    broken = [*weights.matrices]
    object.__setattr__(broken[3], "read", fail)
    with pytest.raises(OSError, match="the file is gone"):
        analyze(weights, workers=workers)
    analyze(state(), workers=workers)
    assert torch.get_num_threads() == 2
    blas = [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]
    assert set(blas) == {2}


class Gauge:
    """Counts, in a function that waits for as many callers as are expected, what runs at once."""

    def __init__(self, expected: int) -> None:
        self.barrier, self.lock = threading.Barrier(expected), threading.Lock()
        self.running: list[str] = []
        self.seen: list[list[str]] = []

    def __call__(self, one: WeightMatrix) -> str:
        with self.lock:
            self.running.append(one.name)
            self.seen.append(sorted(self.running))
        if one.name.startswith("meets"):
            self.barrier.wait(LONG)
        with self.lock:
            self.running.remove(one.name)
        return one.name


def run(function: Any, names: list[str], **options: Any) -> Iterator[Any]:
    options = {"needs": [1] * len(names), "budget": 100, "workers": 2, **options}
    return map_side_by_side(function, [matrix(name) for name in names], **options)


def test_no_more_at_once_than_workers() -> None:
    gauge = Gauge(2)
    names = ["meets a", "meets b", "c", "d", "e"]
    assert list(run(gauge, names)) == names
    assert max(map(len, gauge.seen)) == 2


def test_no_more_at_once_than_the_budget_allows() -> None:
    gauge = Gauge(2)
    names = ["large", "meets a", "meets b", "too large", "c"]
    found = list(run(gauge, names, needs=[10, 5, 5, 99, 1], budget=10, workers=4))
    assert found == names
    assert ["large"] in gauge.seen and ["too large"] in gauge.seen
    assert not any(len(seen) > 1 and {"large", "too large"} & {*seen} for seen in gauge.seen)


def test_results_keep_their_order_though_the_first_ends_last() -> None:
    last = threading.Event()

    def work(one: WeightMatrix) -> str:
        if one.name == "first":
            assert last.wait(LONG)
        if one.name == "last":
            last.set()
        return one.name

    assert list(run(work, ["first", "second", "last"])) == ["first", "second", "last"]


def test_an_error_comes_where_its_layer_is_due() -> None:
    def work(one: WeightMatrix) -> str:
        if one.name == "b":
            raise ValueError("b is broken")
        return one.name

    results = run(work, ["a", "b", "c"])
    assert next(results) == "a"
    with pytest.raises(ValueError, match="b is broken"):
        next(results)


def test_what_was_not_begun_is_never_begun_when_the_caller_stops() -> None:
    begun: list[str] = []

    def work(one: WeightMatrix) -> str:
        begun.append(one.name)
        return one.name

    results = run(work, [str(i) for i in range(50)])
    assert next(results) == "0"
    results.close()  # type: ignore[attr-defined]
    count = len(begun)
    assert count < 50
    assert not [one for one in threading.enumerate() if one.name.startswith("wwopt-layer")]
    assert len(begun) == count


def test_context_variables_are_the_callers() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    assert list(run(lambda _: variable.get(), ["a", "b", "c"])) == ["set"] * 3


@pytest.mark.parametrize(
    ("need", "running", "admitted"),
    [
        (99, [], True),  # alone, whatever it needs
        (4, [6], True),
        (5, [6], False),
        (1, [1, 1], True),
        (1, [1, 1, 1], False),  # three workers
    ],
)
def test_admission(need: int, running: list[int], admitted: bool) -> None:
    assert is_admitted(need, running, workers=3, budget=10) == admitted


def test_workers_are_no_more_than_torch_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side.os, "sched_getaffinity", lambda _: range(8), raising=False)
    for threads, expected in ((1, 1), (3, 3), (64, 8)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert count_workers() == expected


def test_small_layers_and_gpus_have_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "count_workers", lambda: 4)
    large, small = ((n, n) for n in (FEWEST_COLUMNS, FEWEST_COLUMNS - 1))
    layers = [matrix("a", large), matrix("b", large), matrix("c", small)]
    assert choose_workers(layers, on_cpu=True) == 2
    assert choose_workers(layers * 9, on_cpu=True) == 4
    assert choose_workers(layers * 9, on_cpu=False) == 1
    assert choose_workers(layers[1:], on_cpu=True) == 1
    assert choose_workers([], on_cpu=True) == 1


def test_what_a_layer_needs_is_three_copies_and_three_gram_matrices() -> None:
    assert bytes_needed(matrix("a", (3000, 1000))) == 12 * 3000 * 1000 + 24 * 1000**2
    assert bytes_needed(matrix("a", (64, 32), num_slices=9)) == 12 * 64 * 32 * 9 + 24 * 32**2
    assert bytes_needed(matrix("a", (64, 32), dtype="float64")) == 20 * 64 * 32 + 24 * 32**2
    # No Gram matrix of a layer that is estimated.
    large = bytes_needed(matrix("a", (16384, 16384)))
    assert large == 12 * 16384**2 + 16 * 2048 * 16384


def test_workers_are_at_least_one_and_no_executors() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        analyze(state(), workers=0)
    with pytest.raises(ValueError, match="without workers=2"):
        analyze(state(), workers=2, executor=object())  # type: ignore[arg-type]
