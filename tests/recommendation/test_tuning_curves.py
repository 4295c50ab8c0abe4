"""Tuning curves: random searches on a quadratic as truth, luck that is no gain, invariances."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from wwopt.recommendation.probes import MIN_TRIALS
from wwopt.recommendation.tuning_curves import draw_tuning_gain

Array = NDArray[np.float64]
FLOOR = 0.05


def search(rng: np.random.Generator, dimensions: int, size: int, noise: float) -> tuple[Array, ...]:
    """A random search around an optimum: the true losses, and what one seed of each shows."""
    points = rng.uniform(-1.0, 1.0, size=(size, dimensions))
    true = math.log(FLOOR) + 2.0 * (points**2).mean(axis=1)
    return np.exp(true), np.exp(true + noise * rng.standard_normal(size))


def gain(
    values: Array | list[float], more: int, *, noise: float, now: float, seed: int = 0
) -> float:
    """Mean predicted gain, relative to today's value, which is known."""
    draws = np.full(1000, now)
    found = draw_tuning_gain(
        list(values), more, noise=noise, now=draws, reached=draws, draws=1000, seed=seed
    )
    assert found.shape == (1000,) and np.isfinite(found).all()
    return float(found.mean()) / now


@pytest.mark.parametrize("noise", [0.02, 0.1])
@pytest.mark.parametrize("dimensions", [2, 3, 4, 6])
def test_the_mean_gain_is_of_the_size_of_the_true_one(dimensions: int, noise: float) -> None:
    """Twice as many trials of a random search: means over 40 searches of each of three lengths.

    A prior stands in for what a few trials cannot tell, so a factor of 6 is allowed in each case.
    """
    predicted, true = [], []
    for size in (8, 20, 40):
        for seed in range(40):
            rng = np.random.default_rng([dimensions, size, seed])
            losses, shown = search(rng, dimensions, 2 * size, noise)
            now = float(losses[shown[:size].argmin()])
            true.append(1.0 - float(losses[shown.argmin()]) / now)
            predicted.append(gain(shown[:size], size, noise=noise, now=now, seed=seed))
    factor = float(np.mean(predicted) / np.mean(true))
    assert 1 / 6 < factor < 6, factor


def test_over_all_searches_the_gains_are_right_within_a_factor_of_three() -> None:
    predicted, true = [], []
    for dimensions in (2, 3, 4, 6):
        for seed in range(40):
            losses, shown = search(np.random.default_rng([dimensions, seed]), dimensions, 40, 0.05)
            now = float(losses[shown[:20].argmin()])
            true.append(1.0 - float(losses[shown.argmin()]) / now)
            predicted.append(gain(shown[:20], 20, noise=0.05, now=now, seed=seed))
    assert 1 / 3 < np.mean(predicted) / np.mean(true) < 3


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_trials_that_are_all_equal_promise_nothing(noise: float) -> None:
    """What the prior promises is soon outweighed."""
    gains = [gain([0.2] * size, size, noise=noise, now=0.2) for size in (5, 30, 300)]
    assert gains[0] > gains[1] > gains[2] >= 0.0
    assert gains[2] < 0.01
    # Losses that may be negative have no scale, so no prior either.
    assert gain([-0.2] * 5, 100, noise=0.0, now=-0.2) == 0.0


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.3])
def test_luck_alone_is_no_gain(noise: float) -> None:
    """One configuration under 40 seeds: its best trial is 2.2 deviations lower than it is worth."""
    gains, luck = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = 0.2 * np.exp(noise * rng.standard_normal(40))
        gains.append(gain(values, 40, noise=noise, now=0.2, seed=seed))
        luck.append(1.0 - values.min() / 0.2)
    assert np.mean(gains) < 0.4 * np.mean(luck)
    assert np.mean(gains) < 0.5 * noise


def test_noise_that_is_known_of_takes_gain_away() -> None:
    _, shown = search(np.random.default_rng(0), 3, 20, 0.1)
    gains = [gain(shown, 20, noise=noise, now=float(shown.min())) for noise in (0.0, 0.1, 0.3)]
    assert gains[0] > gains[1] > gains[2]


@pytest.mark.parametrize("seed", range(3))
def test_more_trials_never_bring_less(seed: int) -> None:
    losses, _ = search(np.random.default_rng(seed), 4, 12, 0.0)
    now = float(losses.min())
    gains = [gain(losses, more, noise=0.0, now=now, seed=seed) for more in (1, 4, 16, 64, 256)]
    assert gains == sorted(gains) and gains[0] < gains[-1]


def test_what_was_reached_beside_the_trials_is_a_gain_at_least() -> None:
    losses, _ = search(np.random.default_rng(0), 3, 10, 0.0)
    now = np.full(500, losses.min())
    reached = 0.9 * now
    draws = draw_tuning_gain(losses, 10, noise=0.02, now=now, reached=reached, draws=500)
    assert (draws >= now - reached - 1e-12).all()


def test_gains_of_positive_losses_are_no_larger_than_the_losses() -> None:
    now = np.full(1000, 0.1)
    draws = draw_tuning_gain([0.1, 3.0, 9.0], 1000, noise=0.0, now=now, reached=now, draws=1000)
    assert (draws >= 0.0).all() and (draws <= now).all()


@pytest.mark.parametrize("unit", [1e-3, 100.0])
def test_the_unit_of_the_losses_does_not_matter(unit: float) -> None:
    _, shown = search(np.random.default_rng(1), 3, 12, 0.05)
    now = float(shown.min())
    one = gain(shown, 12, noise=0.05, now=now)
    assert gain(unit * shown, 12, noise=0.05, now=unit * now) == pytest.approx(one)


def test_losses_that_may_be_negative_are_taken_as_they_are() -> None:
    """There the origin does not matter, and the noise is in the losses' own units."""
    values = np.random.default_rng(2).normal(-3.0, 1.0, size=15)
    now = np.full(1000, values.min())
    options = {"noise": 0.1, "draws": 1000}
    one = draw_tuning_gain(values, 15, now=now, reached=now, **options)  # type: ignore[arg-type]
    other = draw_tuning_gain(  # type: ignore[misc]
        values - 7.0, 15, now=now - 7.0, reached=now - 7.0, **options
    )
    assert other == pytest.approx(one)
    assert 0.0 < one.mean() < np.ptp(values)


def test_the_order_of_the_trials_and_those_that_failed_do_not_matter() -> None:
    _, shown = search(np.random.default_rng(3), 3, 12, 0.05)
    now = float(shown.min())
    one = gain(shown, 12, noise=0.05, now=now)
    mixed = [math.nan, *shown[::-1], math.inf]
    assert gain(mixed, 12, noise=0.05, now=now) == one


def test_the_same_seed_gives_the_same_draws() -> None:
    _, shown = search(np.random.default_rng(4), 3, 12, 0.05)
    found = [gain(shown, 12, noise=0.05, now=0.05, seed=seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("values", [[], [0.1] * (MIN_TRIALS - 1), [0.1, 0.2, math.inf, math.nan]])
def test_too_few_trials_are_refused(values: list[float]) -> None:
    finite = sum(math.isfinite(v) for v in values)
    with pytest.raises(ValueError, match=f"needs {MIN_TRIALS} finished trials, there are {finite}"):
        gain(values, 5, noise=0.02, now=0.1)


@pytest.mark.parametrize("more", [0, -3])
def test_no_further_trials_are_refused(more: int) -> None:
    with pytest.raises(ValueError, match=f"more trials must be at least 1, got {more}"):
        gain([0.1, 0.2, 0.3], more, noise=0.02, now=0.1)
