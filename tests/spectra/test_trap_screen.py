"""Layers without traps are told by their moments; the edge that these predict is that of draws."""

import numpy as np
import pytest

from wwopt.spectra.marchenko_pastur import trap_z
from wwopt.spectra.trap_screen import SUSPICIOUS, TYPICAL, may_have_traps, predict_top

GAUSSIAN = {"variance": 1.0, "kurtosis": 3.0}


def test_without_excess_the_edge_is_that_of_a_gaussian_matrix() -> None:
    for N, M in ((400, 400), (3000, 600)):
        top = predict_top(N, M, variance=2.0, kurtosis=3.0)
        assert trap_z(top, N, M, 2.0) == pytest.approx(TYPICAL)


@pytest.mark.parametrize(("N", "M"), [(300, 300), (900, 300), (2000, 100)])
def test_the_predicted_edge_of_sparse_entries_is_that_of_draws(N: int, M: int) -> None:
    scores, predicted = [], []
    for seed in range(12):
        chance = np.random.default_rng(seed)
        entries = chance.standard_normal((N, M)) * (chance.random((N, M)) < 0.2)
        variance = entries.var(ddof=1)
        kurtosis = float((entries**4).mean() / (entries**2).mean() ** 2)
        scores.append(trap_z(float(np.linalg.norm(entries, 2)) ** 2, N, M, variance))
        top = predict_top(N, M, variance=variance, kurtosis=kurtosis)
        predicted.append(trap_z(top, N, M, variance))
    # The mean of twelve scatters by 1.3/√12; without the fourth moment it would be 1.7 to 3 lower.
    assert np.mean(scores) == pytest.approx(np.mean(predicted), abs=0.9)
    assert np.mean(predicted) > TYPICAL + 1.2


def test_a_huge_entry_is_let_through_and_a_normal_one_is_not() -> None:
    assert not may_have_traps(1000, 1000, **GAUSSIAN, max_abs=5.5, mean=0.0)
    edge = 1000.0**0.5  # where one entry leaves the bulk
    assert may_have_traps(1000, 1000, **GAUSSIAN, max_abs=0.9 * edge, mean=0.0)
    assert may_have_traps(1000, 1000, **GAUSSIAN, max_abs=0.7 * edge, mean=-0.2 * edge)


def test_a_heavy_fourth_moment_is_let_through() -> None:
    heavy = {"variance": 1.0, "max_abs": 5.5, "mean": 0.0}
    assert not may_have_traps(1000, 1000, kurtosis=6.0, **heavy)
    assert may_have_traps(1000, 1000, kurtosis=40.0, **heavy)
    top = predict_top(1000, 1000, variance=1.0, kurtosis=40.0)
    assert trap_z(top, 1000, 1000, 1.0) > SUSPICIOUS


def test_a_constant_layer_has_no_traps() -> None:
    assert not may_have_traps(100, 50, variance=0.0, kurtosis=3.0, max_abs=1.0, mean=1.0)
