"""Learning curves: closed forms, invariances, coverage, what is refused.

Nothing here depends on the trend's exact values: they are calibrated on real curves elsewhere.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from wwopt.recommendation.learning_curves import LearningCurve, Trend, fit_learning_curve

Array = NDArray[np.float64]
Law = Callable[[Array], Array]

SHARES = (0.125, 0.25, 0.5, 1.0)
LONG = tuple(2.0 ** np.arange(-7.0, 0.5, 1.0))
LAWS: dict[str, Law] = {
    "power": lambda x: 0.05 + 0.10 * x**-0.5,
    "steep power": lambda x: 0.10 * x**-1.0,
    "exponential": lambda x: 0.08 + 0.30 * np.exp(-3.0 * x),
    "sigmoid": lambda x: 0.05 + 0.40 / (1.0 + (3.0 * x) ** 2),
}


def exact(law: Law, shares: tuple[float, ...] = SHARES) -> dict[float, list[float]]:
    return {share: [float(law(np.array(share)))] * 2 for share in shares}


def scatter(law: Law, noise: float, rng: np.random.Generator) -> dict[float, list[float]]:
    """Two trainings at each share, relative noise."""
    return {
        share: [float(law(np.array(share)) * (1.0 + noise * e)) for e in rng.standard_normal(2)]
        for share in SHARES
    }


def interval(draws: Array) -> tuple[float, float]:
    low, high = np.quantile(draws, (0.1, 0.9))
    return float(low), float(high)


def width(curve: LearningCurve, share: float) -> float:
    low, high = interval(curve.predict(share)[:, 0])
    return high - low


@pytest.mark.parametrize("name", LAWS)
def test_the_fan_at_twice_the_data_covers_the_law_that_made_the_points(name: str) -> None:
    law = LAWS[name]
    curve = fit_learning_curve(exact(law), noise=0.01)
    low, high = interval(curve.predict(2.0)[:, 0])
    assert low <= law(np.array(2.0)) <= high
    assert not curve.ill_behaved
    assert np.median(curve.predict(SHARES), axis=0) == pytest.approx(law(np.array(SHARES)), rel=0.1)


@pytest.mark.parametrize("damping", [0.5, 1.0])
def test_a_trend_that_is_known_is_continued(damping: float) -> None:
    """Falls of 1, r, r² in logarithms: the next ones are r³ and r⁴."""
    levels = -np.concatenate([[0.0], np.cumsum(damping ** np.arange(3.0))])
    points = {share: [float(np.exp(v))] for share, v in zip(SHARES, levels, strict=True)}
    curve = fit_learning_curve(points, noise=1e-4, trend=Trend(damping=damping, spread=0.01))
    fall = np.log(curve.predict(1.0) / curve.predict([2.0, 4.0]))
    assert np.median(fall, axis=0) == pytest.approx([damping**3, damping**3 + damping**4], rel=0.05)


def test_doublings_come_back_to_the_usual_fall() -> None:
    """Falls in log-odds of 1, then .4 + .3·(fall - .4): .58, .454 and .4162 beyond."""
    odds = -np.concatenate([[0.0], np.cumsum([1.0, 0.58, 0.454])])
    points = {s: [float(1.0 / (1.0 + np.exp(-v)))] for s, v in zip(SHARES, odds, strict=True)}
    trend = Trend(damping=0.3, spread=0.01, usual=0.4)
    found = fit_learning_curve(points, noise=1e-4, most=1.0, trend=trend).predict([1.0, 2.0])
    before, after = np.median(np.log(found / (1.0 - found)), axis=0)
    assert before - after == pytest.approx(0.4162, rel=0.05)
    flat = {share: [0.2, 0.2] for share in SHARES}
    stays = fit_learning_curve(flat, noise=0.02, most=1.0, trend=Trend(0.3, 0.35, 0.4))
    assert stays.gain(2.0).mean() < 0.2 * 0.12  # a fall of .4 would take .32 of it


def test_an_error_stays_between_0_and_what_it_ends_at() -> None:
    points = {0.25: [0.97], 0.5: [0.8], 1.0: [0.4]}
    for unit in (1.0, 100.0):
        scaled = {share: [unit * v for v in values] for share, values in points.items()}
        found = fit_learning_curve(scaled, noise=0.1, most=unit).predict([0.25, 1.0, 4.0]) / unit
        assert ((found > 0.0) & (found < 1.0)).all()
        one = fit_learning_curve(points, noise=0.1, most=1.0).predict([0.25, 1.0, 4.0])
        assert found == pytest.approx(one)
    assert fit_learning_curve({0.5: [0.0], 1.0: [0.0]}, noise=0.1, relative=False).gain(2.0).size


@pytest.mark.parametrize("unit", [1e-3, 100.0])
def test_the_unit_of_the_metric_does_not_matter(unit: float) -> None:
    points = scatter(LAWS["power"], 0.03, np.random.default_rng(1))
    scaled = {share: [unit * v for v in values] for share, values in points.items()}
    one, other = (fit_learning_curve(p, noise=0.03) for p in (points, scaled))
    assert other.predict(2.0) == pytest.approx(unit * one.predict(2.0), rel=1e-4)
    worth_it = 0.5 * float(one.gain(2.0).mean())
    assert other.enough(unit * worth_it) == one.enough(worth_it)


def test_the_order_of_the_points_does_not_matter() -> None:
    points = scatter(LAWS["sigmoid"], 0.03, np.random.default_rng(2))
    backwards = dict(reversed(points.items()))
    one, other = (fit_learning_curve(p, noise=0.03) for p in (points, backwards))
    assert (one.predict(2.0) == other.predict(2.0)).all()


def test_the_same_seed_gives_the_same_draws_and_another_one_others() -> None:
    curves = [fit_learning_curve(exact(LAWS["power"]), noise=0.02, seed=s) for s in (3, 3, 4)]
    assert (curves[0].predict(2.0) == curves[1].predict(2.0)).all()
    assert (curves[0].predict(2.0) != curves[2].predict(2.0)).any()
    medians = [float(np.median(curve.gain(2.0))) for curve in curves]
    assert medians[0] == pytest.approx(medians[2], rel=0.1)


def test_the_fan_widens_beyond_what_was_measured() -> None:
    curve = fit_learning_curve(scatter(LAWS["power"], 0.02, np.random.default_rng(3)), noise=0.02)
    assert width(curve, 1.0) < width(curve, 2.0) < width(curve, 4.0)


def test_enough_grows_as_less_is_asked_for() -> None:
    curve = fit_learning_curve(exact(LAWS["power"]), noise=0.02)
    found = [curve.enough(worth_it) or np.inf for worth_it in (0.05, 0.02, 0.01, 0.005, 0.001)]
    assert found == sorted(found) and found[0] < found[-1]


def test_a_curve_that_rises_is_said_to_with_where_and_how_far() -> None:
    points = {0.125: [0.3, 0.31], 0.25: [0.2, 0.2], 0.5: [0.4, 0.4], 1.0: [0.15, 0.15]}
    curve = fit_learning_curve(points, noise=0.02)
    assert curve.ill_behaved == "it rises from 0.2 to 0.4 between 0.25 and 0.5"


def test_a_rise_within_the_noise_is_none() -> None:
    points = {0.125: [0.3, 0.3], 0.25: [0.25, 0.25], 0.5: [0.2, 0.2], 1.0: [0.202, 0.202]}
    assert not fit_learning_curve(points, noise=0.02).ill_behaved


def test_more_points_and_less_noise_narrow_the_fan() -> None:
    law, trend = LAWS["power"], Trend(spread=0.1)
    few, quiet = (fit_learning_curve(exact(law), noise=n, trend=trend) for n in (0.05, 0.005))
    points = {share: values * 8 for share, values in exact(law).items()}
    many = fit_learning_curve(points, noise=0.05, trend=trend)
    assert width(quiet, 2.0) < width(few, 2.0) and width(many, 2.0) < width(few, 2.0)
    assert many.errors == pytest.approx(few.errors / np.sqrt(8.0))


def test_few_validation_examples_widen_the_fan_and_excuse_a_rise() -> None:
    sure, unsure = (
        fit_learning_curve(exact(LAWS["power"]), noise=0.01, validation=v) for v in (None, 100)
    )
    assert width(unsure, 2.0) > width(sure, 2.0) and (unsure.errors > sure.errors).all()
    rising = {0.25: [0.2, 0.2], 0.5: [0.15, 0.15], 1.0: [0.17, 0.17]}
    assert fit_learning_curve(rising, noise=0.01).ill_behaved
    assert not fit_learning_curve(rising, noise=0.01, validation=100).ill_behaved


def test_the_intervals_cover_at_least_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for law in LAWS.values():
        for _ in range(20):
            curve = fit_learning_curve(scatter(law, 0.04, rng), noise=0.04, draws=400)
            low, high = interval(curve.predict(2.0)[:, 0])
            hits.append(low <= float(law(np.array(2.0))) <= high)
    assert np.mean(hits) > 0.75


def test_metrics_that_are_negative_are_taken_as_they_are() -> None:
    points = {share: [law - 5.0 for law in exact(LAWS["power"])[share]] for share in SHARES}
    low, high = interval(fit_learning_curve(points, noise=0.001).predict(2.0)[:, 0])
    assert low <= LAWS["power"](np.array(2.0)) - 5.0 <= high


def test_what_is_further_than_four_times_what_was_measured_is_refused() -> None:
    curve = fit_learning_curve(exact(LAWS["power"]), noise=0.02)
    assert curve.predict([1.0, 4.0]).shape == (2000, 2)
    with pytest.raises(ValueError, match=r"4\.1 times today's is beyond 4 times what was measured"):
        curve.predict([1.0, 4.1])
    part = fit_learning_curve(exact(LAWS["power"], (0.125, 0.25, 0.5)), noise=0.02)
    with pytest.raises(ValueError, match=r"2\.5 times today's is beyond"):
        part.gain(2.5)


@pytest.mark.parametrize(
    ("points", "noise", "message"),
    [
        ({1.0: [0.1]}, 0.02, "at least 2 shares, got 1: run probes"),
        ({0.25: [0.3], 0.5: [np.nan], 1.0: [0.1]}, 0.02, "are not finite: .*nan"),
        ({0.25: [0.3], 0.5: [np.inf], 1.0: [0.1]}, 0.02, "are not finite: .*inf"),
        ({0.25: [0.3], 0.5: [], 1.0: [0.1]}, 0.02, "no values at 0.5 of today"),
        ({0.0: [0.3], 0.5: [0.2], 1.0: [0.1]}, 0.02, "shares must be positive, got 0"),
        ({0.25: [0.3], 0.5: [0.2], 1.0: [0.1]}, np.nan, "noise must be finite .* got nan"),
    ],
)
def test_says_why_it_cannot_fit(
    points: dict[float, list[float]], noise: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_learning_curve(points, noise=noise)
