"""From draws to a verdict: closed forms, cost arithmetic, silence, what is missing, invariances."""

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from wwopt.recommendation.decisions import RETUNED, Amounts, Prices, decide
from wwopt.recommendation.gains import Gains

Array = NDArray[np.float64]
SIZE = 20_000
AMOUNTS = Amounts(examples=1000, more_trials=10, hours=0.5)


def make_gains(
    draws: Mapping[str, float | Array],
    *,
    missing: Mapping[str, str] | None = None,
    noise: float = 0.01,
) -> Gains:
    """Draws by hand; numbers stand for draws that are all the same."""
    full = {name: np.broadcast_to(np.float64(values), SIZE) for name, values in draws.items()}
    return Gains(full, missing or {}, now=0.2, noise=noise)  # type: ignore[arg-type]


def normal(mean: float, deviation: float, seed: int) -> Array:
    return np.random.default_rng(seed).normal(mean, deviation, SIZE)


@pytest.mark.parametrize("action", ["data", "tune", "bigger", "longer"])
def test_the_action_that_surely_brings_most_is_the_verdict(action: str) -> None:
    draws = dict.fromkeys(("data", "tune", "bigger", "longer"), 0.02) | {action: 0.08}
    decision = decide(make_gains(draws), AMOUNTS)
    assert decision.verdict == decision.best == action
    assert decision.confidence == 1.0 and decision.doubtful is None
    outlook = decision.outlooks[action]
    assert (outlook.gain, outlook.low, outlook.high) == pytest.approx((0.08, 0.08, 0.08))
    assert outlook.net == pytest.approx(0.08 - 0.01)  # without prices the noise is the price
    assert outlook.probability == 1.0 and outlook.cost is None
    assert decision.outlooks["stop"].probability == 0.0


def test_when_nothing_pays_the_verdict_is_to_stop() -> None:
    decision = decide(make_gains({"data": 0.0, "tune": 0.005, "longer": -0.1}), AMOUNTS)
    assert decision.verdict == "stop"
    assert decision.outlooks["stop"].net == decision.outlooks["stop"].gain == 0.0
    assert decision.outlooks["data"].net == pytest.approx(-0.01)


def test_probabilities_of_two_gaussians_are_the_closed_form() -> None:
    draws = {"data": normal(0.06, 0.02, 1), "tune": normal(0.05, 0.02, 2)}
    decision = decide(make_gains(draws, noise=0.0), AMOUNTS, enough=0.5)
    first = NormalDist(0.0, math.hypot(0.02, 0.02)).cdf(0.01)
    assert decision.outlooks["data"].probability == pytest.approx(first, abs=0.015)
    assert decision.outlooks["tune"].probability == pytest.approx(1.0 - first, abs=0.015)
    low, high = (NormalDist(0.06, 0.02).inv_cdf(q) for q in (0.1, 0.9))
    outlook = decision.outlooks["data"]
    assert (outlook.low, outlook.gain, outlook.high) == pytest.approx((low, 0.06, high), abs=0.001)
    assert decision.confidence == pytest.approx(first, abs=0.015)


def test_what_is_within_the_noise_of_the_best_counts_as_right() -> None:
    draws = {"data": normal(0.06, 0.02, 1), "tune": normal(0.05, 0.02, 2)}
    noise = 0.015
    decision = decide(make_gains(draws, noise=noise), AMOUNTS)
    right = NormalDist(0.0, math.hypot(0.02, 0.02)).cdf(0.01 + noise)
    assert decision.best == "data"
    # The other rival, to stop, is worth less than both nearly always.
    assert decision.confidence == pytest.approx(right, abs=0.02)


def test_probabilities_add_up_to_one() -> None:
    draws = {name: normal(0.03, 0.02, n) for n, name in enumerate(("data", "tune", "longer"))}
    outlooks = decide(make_gains(draws), AMOUNTS).outlooks
    assert math.fsum(outlook.probability for outlook in outlooks.values()) == pytest.approx(1.0)


def test_without_a_validation_metric_there_is_no_verdict() -> None:
    decision = decide(make_gains({"data": 0.08, "tune": 0.01}), AMOUNTS, validated=False)
    assert (decision.verdict, decision.best, decision.confidence) == ("probe", "data", 1.0)


@pytest.mark.parametrize("enough", [0.55, 0.95])
def test_it_is_silent_below_the_threshold_and_names_the_doubt(enough: float) -> None:
    draws = {"data": normal(0.06, 0.03, 1), "tune": normal(0.05, 0.03, 2), "longer": 0.01}
    decision = decide(make_gains(draws, noise=0.001), AMOUNTS, enough=enough)
    assert decision.best == "data"
    if decision.confidence >= enough:
        assert (decision.verdict, decision.doubtful) == ("data", None)
    else:
        assert (decision.verdict, decision.doubtful) == ("probe", "tune")
    assert enough == 0.95 or decision.verdict == "data"


def test_a_higher_threshold_never_makes_it_speak() -> None:
    gains = make_gains({"data": normal(0.04, 0.05, 1), "tune": normal(0.03, 0.05, 2)})
    spoke = [decide(gains, AMOUNTS, enough=e).verdict != "probe" for e in np.linspace(0, 1, 21)]
    assert spoke == sorted(spoke, reverse=True) and spoke[0] and not spoke[-1]


def test_missing_actions_are_told_and_are_the_doubt() -> None:
    gains = make_gains(
        {"tune": normal(0.02, 0.05, 1)},
        missing={"data": "no curve", "bigger": "no probe", "longer": "no probe"},
    )
    decision = decide(gains, AMOUNTS, enough=0.99)
    assert decision.verdict == "probe" and decision.doubtful == "data"
    assert set(decision.outlooks) == {"data", "tune", "bigger", "longer", "stop"}
    told = decision.outlooks["data"]
    assert told.missing == "no curve" and math.isnan(told.gain) and math.isnan(told.probability)


def test_a_model_whose_size_cannot_change_leaves_no_doubt() -> None:
    gains = make_gains(
        {"data": normal(0.05, 0.05, 0), "tune": normal(0.05, 0.05, 1), "longer": 0.0},
        missing={"bigger": "no probe"},
    )
    assert decide(gains, AMOUNTS, enough=0.99).doubtful in ("data", "tune")


def test_without_any_draws_it_does_not_speak() -> None:
    missing = dict.fromkeys(("data", "tune", "bigger", "longer"), "nothing is known")
    for noise in (0.01, math.nan):
        decision = decide(make_gains({}, missing=missing, noise=noise), AMOUNTS, enough=0.0)
        assert (decision.verdict, decision.doubtful) == ("probe", "data")


def test_costs_are_the_arithmetic_of_their_prices() -> None:
    prices = Prices(worth=1e6, example=2.0, trial=3.0, gpu_hour=4.0)
    training = 4.0 * 0.5
    assert AMOUNTS.cost("tune", prices) == pytest.approx(10 * (3.0 + training))
    assert AMOUNTS.cost("data", prices) == pytest.approx(
        1000 * 2.0 + RETUNED * (3.0 + 2.0 * training)
    )
    assert AMOUNTS.cost("longer", prices) == pytest.approx(RETUNED * (3.0 + 2.0 * training))
    assert AMOUNTS.cost("bigger", prices) == pytest.approx(RETUNED * (3.0 + 4.0 * training))
    free = Prices(worth=1.0)
    assert {AMOUNTS.cost(a, free) for a in ("tune", "data", "longer", "bigger")} == {0.0}  # type: ignore[arg-type]


def test_with_prices_net_values_are_money() -> None:
    prices = Prices(worth=1e5, example=1.0, trial=50.0)
    decision = decide(make_gains({"data": 0.05, "tune": 0.02}), AMOUNTS, prices)
    cost = AMOUNTS.cost("data", prices)
    assert decision.outlooks["data"].cost == cost
    assert decision.outlooks["data"].net == pytest.approx(1e5 * 0.05 - cost)
    assert decision.outlooks["stop"].cost == 0.0
    assert decision.verdict == "data"


def test_prices_turn_the_verdict() -> None:
    gains = make_gains({"data": 0.05, "tune": 0.03})
    cheap, dear, very_dear = (
        decide(gains, AMOUNTS, Prices(worth=1e5, example=price, trial=trial)).verdict
        for price, trial in ((1.0, 1.0), (10.0, 1.0), (10.0, 500.0))
    )
    assert (cheap, dear, very_dear) == ("data", "tune", "stop")


@pytest.mark.parametrize("rate", [1e-3, 7.0, 1e4])
def test_the_currency_does_not_matter(rate: float) -> None:
    gains = make_gains({"data": normal(0.05, 0.03, 1), "tune": normal(0.03, 0.01, 2)})
    values = {"worth": 2e4, "example": 0.5, "trial": 20.0, "gpu_hour": 3.0}
    one = decide(gains, AMOUNTS, Prices(**values))
    other = decide(gains, AMOUNTS, Prices(**{k: rate * v for k, v in values.items()}))
    assert (one.verdict, one.best) == (other.verdict, other.best)
    assert one.confidence == pytest.approx(other.confidence)
    for name, outlook in one.outlooks.items():
        assert other.outlooks[name].net == pytest.approx(rate * outlook.net)
        assert other.outlooks[name].gain == outlook.gain
        assert other.outlooks[name].probability == pytest.approx(outlook.probability)


def test_a_metric_in_per_cent_is_worth_a_hundredth() -> None:
    share = {"data": normal(0.05, 0.03, 1), "tune": normal(0.03, 0.01, 2)}
    points = {name: 100.0 * draws for name, draws in share.items()}
    one = decide(make_gains(share), AMOUNTS, Prices(worth=2e4, example=0.5))
    other = decide(make_gains(points, noise=1.0), AMOUNTS, Prices(worth=2e2, example=0.5))
    assert one.verdict == other.verdict and one.confidence == pytest.approx(other.confidence)


def test_examples_with_a_price_must_be_counted() -> None:
    unknown = Amounts(examples=None, more_trials=10, hours=0.5)
    with pytest.raises(ValueError, match="say how many training examples there are today"):
        decide(make_gains({"data": 0.1}), unknown, Prices(worth=1.0, example=0.1))
    assert decide(make_gains({"data": 0.1}), unknown, Prices(worth=1.0)).verdict == "data"
    assert decide(make_gains({"data": 0.1}), unknown).verdict == "data"


def test_hours_that_are_not_known_cost_nothing_only_where_they_are_free() -> None:
    unknown = Amounts(examples=100, more_trials=10, hours=math.nan)
    assert unknown.cost("tune", Prices(worth=1.0, trial=2.0)) == 20.0
    with pytest.raises(ValueError, match="how long a training takes is not known"):
        unknown.cost("tune", Prices(worth=1.0, gpu_hour=2.0))


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ({"worth": 1.0, "example": -0.1}, "price of example must be finite and not negative: -0.1"),
        ({"worth": -1.0}, "price of worth must be finite and not negative: -1.0"),
        ({"worth": 1.0, "gpu_hour": math.inf}, "price of gpu_hour must be finite .*: inf"),
        ({"worth": 1.0, "trial": math.nan}, "price of trial must be finite .*: nan"),
        ({"worth": 0.0, "example": 1.0}, "prices need worth: what one unit of the metric is worth"),
    ],
)
def test_prices_that_make_no_sense_are_refused(prices: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prices(**prices)


def test_money_needs_a_worth() -> None:
    with pytest.raises(ValueError, match="worth"):
        Prices(worth=0.0, example=1.0)
