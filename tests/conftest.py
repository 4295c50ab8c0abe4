"""Fixtures that several test files share: layers from arrays, and the zoo of trained networks."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from wwopt.layer_metrics import ModelMetrics, metrics_from_spectra
from wwopt.spectrum import LayerSpectrum, compute_spectrum
from wwopt.weights import WeightMatrix

# The same examples in every run: a failure is a bug of the change, never of the day.
settings.register_profile("wwopt", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("wwopt")

# Threads that wait for each other on a busy machine: one test took 26 s with two and .4 s with one.
torch.set_num_threads(1)
threadpool_limits(1, user_api="blas")  # numpy's and scipy's; comes with scikit-learn

SHARED = Path(__file__).parents[2] / "shared"

SpectrumOf = Callable[..., LayerSpectrum]
ZooOf = Callable[[str], tuple[tuple[LayerSpectrum, ...], ...]]
ZooMetricsOf = Callable[[str], tuple[ModelMetrics, ...]]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of measurements beside the checkout, which is no part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there: it holds measurements that the repository does not")
    return SHARED


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
def zoo_records(shared: Path) -> list[dict[str, Any]]:
    """Configuration and losses of the 77 networks of the MNIST zoo that did not diverge."""
    lines = (shared / "zoo" / "mnist-mlp" / "mnist-mlp_0.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if not record.get("diverged")]


@pytest.fixture(scope="session")
def zoo(shared: Path, zoo_records: list[dict[str, Any]]) -> ZooOf:
    """Return a function: checkpoint "0", "0.25", "0.5" or "1.0" → spectra of every network.

    Networks are in the order of `zoo_records`, layers in that of the network.
    """

    @cache
    def load(checkpoint: str) -> tuple[tuple[LayerSpectrum, ...], ...]:
        networks = []
        for record in zoo_records:
            path = shared / "zoo" / record["task"] / f"{record['task']}_0_{record['k']}.npz"
            with np.load(path) as arrays:
                layers = [_zoo_layer(arrays, checkpoint, name) for name in record["names"]]
            networks.append(tuple(layers))
        return tuple(networks)

    return load


@pytest.fixture(scope="session")
def zoo_metrics(zoo: ZooOf) -> ZooMetricsOf:
    """Return a function: checkpoint → metrics of every network; 3 s a checkpoint, once."""

    @cache
    def measure(checkpoint: str) -> tuple[ModelMetrics, ...]:
        return tuple(metrics_from_spectra(spectra) for spectra in zoo(checkpoint))

    return measure


def _zoo_layer(arrays: Any, checkpoint: str, layer: str) -> LayerSpectrum:
    esd, shuffled, tops, shape, stats = (
        arrays[f"{checkpoint}/{layer}/{what}"]
        for what in ("esd", "rand_c", "rand_c_top", "shape", "stats")
    )
    rows, columns, slices = (int(size) for size in shape)
    return LayerSpectrum(
        name=layer,
        shape=(max(rows, columns), min(rows, columns)),
        num_slices=slices,
        eigenvalues=esd,
        shuffled_eigenvalues=shuffled,
        shuffled_tops=np.vstack([np.sort(shuffled)[: -tops.shape[1] - 1 : -1], tops]),
        element_mean=float(stats[0]),
        element_variance=float(stats[1]),
        kurtosis=float(stats[2]),
        max_abs=float(stats[3]),
    )
