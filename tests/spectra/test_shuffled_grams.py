"""Several shuffles from one product: the same law, nearly independent, against full shuffles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

import wwopt.spectra.shuffled_grams
from wwopt.spectra.lanczos import top_eigenvalues
from wwopt.spectra.marchenko_pastur import trap_z
from wwopt.spectra.shuffled_grams import MULTIPLIED_SIDE, shuffled_grams

Array = NDArray[np.float64]
SIDE = MULTIPLIED_SIDE + 1


def entries(kind: str, shape: tuple[int, int]) -> torch.Tensor:
    """A layer whose entries have mean 0 and variance 1."""
    rng = np.random.default_rng(0)
    if kind == "Gaussian":
        values = rng.normal(size=shape)
    elif kind == "Student t, 5":
        values = rng.standard_t(5, size=shape)
    elif kind == "pruned":
        values = rng.normal(size=shape) * (rng.random(shape) < 0.05)
    else:  # low rank and noise
        left, right = rng.normal(size=(shape[0], 4)), rng.normal(size=(4, shape[1]))
        values = left @ right + 0.5 * rng.normal(size=shape)
    values = (values - values.mean()) / values.std(ddof=1)
    return torch.from_numpy(values).float()[None]


def scores(weights: torch.Tensor, count: int, seeds: range) -> Array:
    """Tracy-Widom scores, one row a seed, one column a shuffle."""
    M, N = sorted(weights.shape[1:])
    found = np.empty((len(seeds), count))
    for row, seed in enumerate(seeds):
        for index, gram in shuffled_grams(weights, seed=seed, count=count):
            top = top_eigenvalues(gram, 1, tolerance=0.02 * N ** (1 / 2) * M ** (-1 / 6))[0]
            found[row, index] = trap_z(float(top), N, M, 1.0)
    return found


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (SIDE, SIDE), (700, SIDE), (SIDE, 700)])
def test_every_shuffle_of_every_slice_comes_once(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.normal(size=(3, *shape))).float()
    side = min(shape)
    found = list(shuffled_grams(weights, seed=0, count=4))
    assert sorted(index for index, _ in found) == sorted([0, 1, 2, 3] * 3)
    for index in range(4):
        grams = [gram for number, gram in found if number == index]
        assert all(gram.shape == (side, side) and gram.dtype == np.float32 for gram in grams)
        # The trace is the sum of squared entries, whatever their order.
        total = sum(float(np.trace(gram)) for gram in grams)
        assert total == pytest.approx(float(weights.square().sum()), rel=1e-5)
        for gram in grams:
            assert np.array_equal(gram, gram.T)
            assert np.linalg.eigvalsh(gram)[0] > -1e-3
    assert not np.allclose(found[0][1], found[1][1])


@pytest.mark.parametrize("side", [30, SIDE])
def test_mean_and_scale_are_those_of_the_entries(side: int) -> None:
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 400, side)))
    plain = dict(shuffled_grams(weights, seed=1, count=3))
    moved = dict(shuffled_grams(5.0 + 0.1 * weights, mean=5.0, scale=0.1, seed=1, count=3))
    for index in range(3):
        assert np.allclose(plain[index], moved[index], atol=1e-2)


def test_more_shuffles_keep_the_first_ones() -> None:
    weights = entries("Gaussian", (300, SIDE))
    few = dict(shuffled_grams(weights, seed=0, count=2))
    many = dict(shuffled_grams(weights, seed=0, count=3))
    assert np.array_equal(few[0], many[0])
    assert np.array_equal(few[1], many[1])


def test_further_shuffles_are_permutations_of_the_same_entries() -> None:
    # Spelled out: the lower half of the first shuffle with its columns permuted, multiplied.
    weights = entries("Gaussian", (SIDE + 9, SIDE))
    (first,) = wwopt.spectra.shuffled_grams.iterate_shuffles(weights, seed=3, count=1)
    order = wwopt.spectra.shuffled_grams.column_permutation(3, 1, SIDE).numpy()
    matrix = first[0].double().numpy().copy()
    half = -(-matrix.shape[0] // 2)
    matrix[half:] = matrix[half:][:, order]
    found = dict(shuffled_grams(weights, seed=3, count=2))
    assert np.allclose(found[1], matrix.T @ matrix, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (3 * SIDE, SIDE)])
@pytest.mark.parametrize(
    ("kind", "dependence"),
    # Entries that are few or huge make the score, and stay together in their row.
    [("Gaussian", 0.3), ("low rank", 0.3), ("Student t, 5", 0.4), ("pruned", 0.7)],
)
def test_the_null_is_that_of_full_shuffles(
    kind: str, dependence: float, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = entries(kind, shape)
    found = scores(weights, 3, range(250))
    monkeypatch.setattr(wwopt.spectra.shuffled_grams, "MULTIPLIED_SIDE", 10_000)
    full = scores(weights, 3, range(1_000, 1_170)).ravel()  # every shuffle multiplied
    # 24 comparisons of one law with itself: one in 40 such tests has a p-value under .001.
    for index in range(3):
        assert stats.ks_2samp(found[:, index], full).pvalue > 0.001
    correlation = np.corrcoef(found.T)[np.triu_indices(3, 1)]
    assert correlation.mean() < dependence
    # Scores that depend on each other leave the mean's law alone, and widen its spread.
    widest = np.sqrt((1.0 + 2.0 * dependence) / 3.0) * full.std()
    assert found.mean(axis=1).std() < 1.1 * widest
