"""Moments of entries against scipy, however they come."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from wwopt.spectra.element_moments import PowerSums, element_moments
from wwopt.spectra.gram_matrices import gram_matrices
from wwopt.spectra.spectrum import SMALL_LAYER, compute_spectrum
from wwopt.weights.matrices import read_weights

Array = NDArray[np.float64]


def expected(values: Array) -> dict[str, float]:
    return {
        "element_mean": float(values.mean()),
        "element_variance": float(values.var(ddof=1)),
        "kurtosis": float(stats.kurtosis(values, axis=None, fisher=False)),
        "max_abs": float(np.abs(values).max()),
    }


def sums_of(values: Array, blocks: int = 3) -> PowerSums:
    sums = PowerSums()
    for block in np.array_split(values, blocks):
        sums.add(block)
    return sums


def skewed(shape: tuple[int, int], mean: float) -> Array:
    """Deviation 1, third moment 2: every term of the shift to the mean counts."""
    return np.random.default_rng(0).exponential(size=shape) - 1.0 + mean


@pytest.mark.parametrize("mean", [0.0, -0.3, 0.9])
@pytest.mark.parametrize("scale", [1e-40, 1.0, 1e40])
def test_sums_of_blocks_give_the_moments(mean: float, scale: float) -> None:
    values = scale * skewed((70, 50), mean)
    found = sums_of(values).moments(values.size)
    wanted = expected(values / scale)
    assert found is not None
    assert found["element_mean"] == pytest.approx(scale * wanted["element_mean"], rel=1e-12)
    assert found["element_variance"] == pytest.approx(
        scale**2 * wanted["element_variance"], rel=1e-12
    )
    assert found["kurtosis"] == pytest.approx(wanted["kurtosis"], rel=1e-12)
    assert found["max_abs"] == pytest.approx(scale * wanted["max_abs"], rel=1e-12)


@pytest.mark.parametrize(
    "values",
    [
        skewed((70, 50), 1.1),  # would cancel, a little
        skewed((70, 50), 1e9),
        np.full((5, 4), 0.1),
        np.zeros((5, 4)),
        1e80 * skewed((5, 4), 0.0),
        1e-80 * skewed((5, 4), 0.0),
        np.where(np.eye(5) > 0, np.nan, 1.0),
        np.where(np.eye(5) > 0, -np.inf, 1.0),
    ],
)
def test_sums_that_tell_nothing_say_so(values: Array) -> None:
    assert sums_of(values).moments(values.size) is None


def test_sums_of_some_entries_are_not_those_of_all() -> None:
    values = skewed((70, 50), 0.0)
    assert sums_of(values[:-1]).moments(values.size) is None
    assert PowerSums().moments(values.size) is None


@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_passes_give_the_moments(mean: float) -> None:
    values = skewed((700, 200), mean)  # three pieces
    found = element_moments(torch.from_numpy(values), torch.float64)
    assert found == pytest.approx(expected(values), rel=1e-9)


@pytest.mark.parametrize("shape", [(900, 400), (400, 900), (3, 400, 300)])
def test_blocks_that_are_widened_are_seen_once_and_unchanged(shape: tuple[int, ...]) -> None:
    weights = torch.from_numpy(skewed(shape, 0.2)).float()  # type: ignore[arg-type]
    weights = weights.reshape(-1, *shape[-2:])
    seen: list[Array] = []
    grams = list(
        gram_matrices(weights, torch.float64, widened=lambda block: seen.append(block.copy()))
    )
    entries = np.concatenate([block.ravel() for block in seen])
    assert np.array_equal(np.sort(entries), np.sort(weights.numpy().ravel().astype(np.float64)))
    trace = sum(float(np.trace(gram, axis1=-2, axis2=-1).sum()) for gram in grams)
    assert trace == pytest.approx(float(entries @ entries), rel=1e-12)


@pytest.mark.parametrize("shape", [(600, 300), (1100, 500)])
@pytest.mark.parametrize("mean", [0.1, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_a_layer_are_the_same_on_every_way(
    shape: tuple[int, int], mean: float, dtype: torch.dtype
) -> None:
    assert 600 * 300 <= SMALL_LAYER < 1100 * 500
    weights = torch.from_numpy(skewed(shape, mean)).float()
    (matrix,) = read_weights({"fc.weight": weights.to(dtype)}).matrices
    spectrum = compute_spectrum(matrix, shuffles=0)
    found = {name: getattr(spectrum, name) for name in expected(skewed((2, 2), 0.0))}
    assert found == pytest.approx(expected(weights.double().numpy()), rel=1e-9)
    assert math.isfinite(spectrum.eigenvalues[-1])
