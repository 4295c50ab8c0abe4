"""Kendall's tau by hand, its interval against scipy, the level of chance against chance."""

import math

import numpy as np
import pytest
from scipy import stats

from wwopt.report.rank_correlation import bootstrap_interval, chance_level, kendall


@pytest.mark.parametrize(("trials", "count"), [(10, 1), (20, 9), (60, 60)])
def test_the_level_of_chance_is_reached_as_often_as_it_says(trials: int, count: int) -> None:
    rng = np.random.default_rng(0)
    level = chance_level(trials, count)
    x, y = rng.normal(size=(300, count, trials)), rng.normal(size=(300, trials))
    upper = np.triu_indices(trials, 1)
    signs = np.sign(x[..., upper[0]] - x[..., upper[1]])
    with_y = np.sign(y[:, upper[0]] - y[:, upper[1]])
    largest = np.abs(np.einsum("scp,sp->sc", signs, with_y)).max(axis=1) / upper[0].size
    assert 0.01 <= (largest > level).mean() <= 0.08


def test_the_interval_is_that_of_taus_over_resampled_trials() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=15)
    y = np.round(x + rng.normal(size=15))  # with ties
    draws = np.random.default_rng(3).integers(15, size=(200, 15))
    taus = [stats.kendalltau(x[draw], y[draw]).statistic for draw in draws]
    expected = pytest.approx(np.percentile(taus, [2.5, 97.5]))
    assert bootstrap_interval(x, y, resamples=200, seed=3) == expected


def test_resamples_that_do_not_vary_are_left_out() -> None:
    x = np.array([0.0] * 8 + [1.0] * 2)  # of ten draws, one in ten has no 1
    low, high = bootstrap_interval(x, np.arange(10.0), resamples=300, seed=0)
    assert 0.0 < low < high <= 1.0


def test_tau_by_hand() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert kendall(x, np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(4.0 / 6.0)
    assert math.isnan(kendall(x, np.ones(4)))


def test_an_interval_of_what_never_varies_is_unknown() -> None:
    for x in (np.ones(5), np.ones(1)):
        found = bootstrap_interval(x, np.arange(float(x.size)), resamples=20, seed=0)
        assert all(map(math.isnan, found))


@pytest.mark.parametrize(("trials", "count"), [(1, 3), (10, 0)])
def test_without_pairs_there_is_no_level_of_chance(trials: int, count: int) -> None:
    assert math.isnan(chance_level(trials, count))
