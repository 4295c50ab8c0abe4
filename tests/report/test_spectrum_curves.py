"""Curves of eigenvalues: short ones whole, long ones by what a picture shows of them."""

import numpy as np
import pytest

from wwopt.report.spectrum_curves import MAX_POINTS, thin


def curve(size: int) -> np.ndarray:
    return np.stack([np.linspace(1.0, 9.0, size), np.arange(size, 0, -1) / size])


@pytest.mark.parametrize("size", [1, 2, MAX_POINTS])
def test_a_short_curve_stays_whole(size: int) -> None:
    assert np.array_equal(thin(curve(size)), curve(size).astype(np.float32))


@pytest.mark.parametrize("size", [MAX_POINTS + 1, 5000])
def test_of_a_long_one_the_ends_stay_and_the_tail_is_dense(size: int) -> None:
    whole, thinned = curve(size), thin(curve(size))
    assert thinned.shape[1] <= MAX_POINTS
    assert np.array_equal(thinned[:, [0, -1]], whole[:, [0, -1]].astype(np.float32))
    assert np.array_equal(thinned[:, -5:], whole[:, -5:].astype(np.float32))  # every top one
    assert (np.diff(thinned[0]) > 0.0).all() and (np.diff(thinned[1]) < 0.0).all()
    widest = np.diff(thinned[1]).min()
    assert abs(widest) < 2.0 / (MAX_POINTS // 2 - 1)  # the bulk has no hole


def test_half_of_the_points_are_even_in_rank_and_half_in_its_logarithm() -> None:
    size = 5000
    ranks = np.rint(thin(curve(size))[1] * size)[::-1]  # from the largest eigenvalue on
    half = MAX_POINTS // 2
    assert np.diff(ranks).max() == np.ceil((size - 1) / (half - 1))
    dense = int(1.0 / (size ** (1.0 / (half - 1)) - 1.0))  # where a step is less than a rank
    assert list(ranks[:dense]) == list(range(1, dense + 1)) and dense == 29
