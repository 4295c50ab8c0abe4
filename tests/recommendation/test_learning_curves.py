"""Learning curves: closed forms, scipy's fit as a witness, invariances, coverage, what is refused.

Nothing here depends on the priors' exact values: they are calibrated on real curves elsewhere.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from wwopt.recommendation.learning_curves import LearningCurve, fit_learning_curve

Array = NDArray[np.float64]
Law = Callable[[Array], Array]

SHARES = (0.125, 0.25, 0.5, 1.0)
LONG = tuple(2.0 ** np.arange(-7.0, 0.5, 0.5))
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


@pytest.mark.parametrize(
    ("name", "tolerance"), [("power", 0.02), ("exponential", 0.08), ("sigmoid", 0.12)]
)
def test_a_long_curve_without_noise_is_continued(name: str, tolerance: float) -> None:
    """To a few per cent; shapes between those of the grid cost what is tolerated here."""
    law = LAWS[name]
    curve = fit_learning_curve(exact(law, LONG), noise=0.001, discrepancy=0.005)
    beyond, within = law(np.array(2.0)), law(np.array(LONG))
    assert np.median(curve.predict(2.0)) == pytest.approx(float(beyond), rel=tolerance)
    assert np.median(curve.predict(LONG), axis=0) == pytest.approx(within, rel=0.05)


def test_scipys_fit_of_a_power_law_lies_within_the_fan() -> None:
    rng = np.random.default_rng(5)
    points = scatter(LAWS["power"], 0.02, rng)
    curve = fit_learning_curve(points, noise=0.02)
    means = np.array([np.mean(points[share]) for share in SHARES])
    (a, b, c), _ = curve_fit(
        lambda x, a, b, c: a + b * x**-c,
        np.array(SHARES),
        means,
        p0=(0.05, 0.1, 0.5),
        bounds=(0.0, (1.0, 1.0, 2.0)),
    )
    low, high = interval(curve.predict(2.0)[:, 0])
    assert low <= a + b * 2.0**-c <= high


def test_a_flat_curve_forecasts_no_gain() -> None:
    curve = fit_learning_curve({share: [0.2, 0.2] for share in LONG}, noise=0.001, discrepancy=1e-3)
    assert curve.gain(2.0).mean() < 0.01 * 0.2
    assert curve.predict(4.0).mean() == pytest.approx(0.2, rel=0.01)
    assert curve.enough(0.01 * 0.2) == pytest.approx(LONG[0])  # the least was enough


@pytest.mark.parametrize("seed", range(4))
def test_more_data_never_harms_and_never_brings_more_than_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = {share: list(rng.uniform(0.1, 0.2, size=2)) for share in SHARES}
    curve = fit_learning_curve(points, noise=0.2)
    gains = np.stack([curve.gain(factor) for factor in (1.0, 1.5, 2.0, 3.0, 4.0)])
    assert gains[0] == pytest.approx(np.zeros(gains.shape[1]))
    assert (np.diff(gains, axis=0) >= -1e-12).all()
    assert (curve.predict(4.0) >= 0.0).all()


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


@pytest.mark.parametrize("name", ["power", "exponential"])
def test_more_points_and_less_noise_narrow_the_fan(name: str) -> None:
    law = LAWS[name]
    few = fit_learning_curve(exact(law), noise=0.05, discrepancy=0.01)
    quiet = fit_learning_curve(exact(law), noise=0.005, discrepancy=0.01)
    points = {share: values * 8 for share, values in exact(law).items()}
    many = fit_learning_curve(points, noise=0.05, discrepancy=0.01)
    assert width(quiet, 2.0) < width(few, 2.0)
    assert width(many, 2.0) < width(few, 2.0)
    assert many.errors == pytest.approx(few.errors / np.sqrt(8.0))


def test_few_validation_examples_widen_the_fan_and_excuse_a_rise() -> None:
    points = exact(LAWS["power"])
    sure, unsure = (
        fit_learning_curve(points, noise=0.01, discrepancy=0.005, validation=size)
        for size in (None, 200)
    )
    assert width(unsure, 2.0) > width(sure, 2.0) and (unsure.errors > sure.errors).all()
    many = fit_learning_curve(points, noise=0.01, discrepancy=0.005, validation=10**12)
    assert many.errors == pytest.approx(sure.errors, rel=1e-3)
    rising = {0.25: [0.2, 0.2], 0.5: [0.15, 0.15], 1.0: [0.17, 0.17]}
    assert fit_learning_curve(rising, noise=0.01).ill_behaved
    assert not fit_learning_curve(rising, noise=0.01, validation=100).ill_behaved


def test_the_fan_widens_beyond_what_was_measured() -> None:
    curve = fit_learning_curve(scatter(LAWS["power"], 0.02, np.random.default_rng(3)), noise=0.02)
    assert width(curve, 1.0) < width(curve, 2.0) < width(curve, 4.0)


def test_the_intervals_cover_about_as_often_as_they_say() -> None:
    """40 curves of each law, noise of 4 %: nominal 80 %, less for the steep law alone.

    What is left with endless data has a prior that real curves suggested; of the steep law, whose
    fall ends soon, it expects too much.
    """
    rng = np.random.default_rng(0)
    covered = {name: 0 for name in LAWS}
    for name, law in LAWS.items():
        true = float(law(np.array(2.0)))
        for _ in range(40):
            curve = fit_learning_curve(scatter(law, 0.04, rng), noise=0.04, draws=400)
            low, high = interval(curve.predict(2.0)[:, 0])
            covered[name] += low <= true <= high
    assert sum(covered.values()) / (40 * len(LAWS)) > 0.7
    assert min(covered.values()) / 40 > 0.25, covered


def test_noise_alone_seldom_looks_like_a_gain() -> None:
    """Of curves that are flat but for 5 % of noise, the mean gain is small beside the noise."""
    rng = np.random.default_rng(1)
    flat: Law = lambda x: np.full(np.shape(x), 0.3)  # noqa: E731
    gains = [
        fit_learning_curve(scatter(flat, 0.05, rng), noise=0.05, draws=400).gain(2.0).mean()
        for _ in range(20)
    ]
    assert np.mean(gains) < 0.05 * 0.3


def test_enough_agrees_with_the_closed_form() -> None:
    """The gain of doubling b·x^-½ is b·(1 - 2^-½)·x^-½, which is w at x = (b·(1 - 2^-½)/w)²."""
    curve = fit_learning_curve(
        exact(lambda x: 0.05 + 0.1 * x**-0.5, LONG), noise=1e-3, discrepancy=1e-3
    )
    for x in (0.25, 1.0):
        worth_it = 0.1 * (1.0 - 2.0**-0.5) * x**-0.5
        assert curve.enough(worth_it) == pytest.approx(x, rel=0.35)
    assert curve.enough(1e-6) is None
    assert curve.enough(10.0) == pytest.approx(min(LONG))


def test_enough_grows_as_less_is_asked_for() -> None:
    curve = fit_learning_curve(exact(LAWS["power"]), noise=0.02)
    found = [curve.enough(worth_it) or np.inf for worth_it in (0.05, 0.02, 0.01, 0.005, 0.001)]
    assert found == sorted(found) and found[0] < found[-1]


def test_metrics_that_are_negative_are_taken_as_they_are() -> None:
    points = {share: [law - 5.0 for law in exact(LAWS["power"])[share]] for share in SHARES}
    curve = fit_learning_curve(points, noise=0.001, discrepancy=0.001)
    low, high = interval(curve.predict(2.0)[:, 0])
    assert low <= LAWS["power"](np.array(2.0)) - 5.0 <= high
    assert (curve.gain(2.0) >= -1e-12).all()


def test_a_curve_that_rises_is_said_to_with_where_and_how_far() -> None:
    points = {0.125: [0.3, 0.31], 0.25: [0.2, 0.2], 0.5: [0.4, 0.4], 1.0: [0.15, 0.15]}
    curve = fit_learning_curve(points, noise=0.02)
    assert curve.ill_behaved == "it rises from 0.2 to 0.4 between 0.25 and 0.5 of the data"


def test_a_rise_within_the_noise_is_none() -> None:
    points = {0.125: [0.3, 0.3], 0.25: [0.25, 0.25], 0.5: [0.2, 0.2], 1.0: [0.202, 0.202]}
    assert not fit_learning_curve(points, noise=0.02).ill_behaved


def test_a_step_that_no_family_has_is_noticed() -> None:
    points = {x: [1.0 if x < 0.2 else 0.05] * 2 for x in LONG}
    curve = fit_learning_curve(points, noise=0.005, discrepancy=0.005)
    assert "no family fits it" in curve.ill_behaved


def test_what_is_further_than_four_times_the_data_is_refused() -> None:
    curve = fit_learning_curve(exact(LAWS["power"]), noise=0.02)
    assert curve.predict([1.0, 4.0]).shape == (2000, 2)
    with pytest.raises(ValueError, match=r"4\.1 times today's data is beyond 4 times what was"):
        curve.predict([1.0, 4.1])
    part = fit_learning_curve(exact(LAWS["power"], (0.125, 0.25, 0.5)), noise=0.02)
    with pytest.raises(ValueError, match=r"2\.5 times today's data is beyond"):
        part.gain(2.5)


@pytest.mark.parametrize(
    ("points", "noise", "message"),
    [
        ({0.5: [0.2], 1.0: [0.1]}, 0.02, "at least 3 shares of the data, got 2: run probes"),
        ({0.25: [0.3], 0.5: [np.nan], 1.0: [0.1]}, 0.02, "are not finite: .*nan"),
        ({0.25: [0.3], 0.5: [np.inf], 1.0: [0.1]}, 0.02, "are not finite: .*inf"),
        ({0.25: [0.3], 0.5: [], 1.0: [0.1]}, 0.02, "no values at 0.5 of the data"),
        ({0.0: [0.3], 0.5: [0.2], 1.0: [0.1]}, 0.02, "shares of the data must be positive, got 0"),
        ({0.25: [0.3], 0.5: [0.2], 1.0: [0.1]}, np.nan, "noise must be finite .* got nan"),
    ],
)
def test_says_why_it_cannot_fit(
    points: dict[float, list[float]], noise: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_learning_curve(points, noise=noise)
