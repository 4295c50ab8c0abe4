"""Prices at which another action leads: closed forms, and that the decision then turns."""

from dataclasses import replace

import numpy as np
import pytest

from wwopt.recommendation.decisions import RETUNED, Amounts, Prices, decide
from wwopt.recommendation.gains import Gains
from wwopt.recommendation.turning_points import Turn, find_turns

AMOUNTS = Amounts(examples=1000, more_trials=10, hours=0.5)
PRICES = Prices(worth=1e5, example=1.0, trial=10.0, gpu_hour=2.0)
GAINS = Gains(
    {"data": np.full(100, 0.05), "tune": np.full(100, 0.03)},  # type: ignore[dict-item]
    {},
    now=0.2,
    noise=0.01,
)


def turns(prices: Prices | None, gains: Gains = GAINS, amounts: Amounts = AMOUNTS) -> list[Turn]:
    return list(find_turns(decide(gains, amounts, prices), gains, amounts, prices))


def test_an_example_may_cost_as_much_more_as_the_second_brings_less() -> None:
    """Data: 5000 less 1000 examples and 6 trainings; tuning: 3000 less 10 trials."""
    trial = 10.0 + 2.0 * 0.5
    tune = 3000.0 - 10 * trial
    fixed = 5000.0 - RETUNED * (10.0 + 2.0 * 2.0 * 0.5)
    found = {t.price: t for t in turns(PRICES)}
    assert found["example"].value == pytest.approx((fixed - tune) / 1000.0)
    assert not found["example"].below and found["example"].verdict == "tune"


def test_at_every_turn_the_verdict_turns() -> None:
    for turn in turns(PRICES):
        for factor in (0.99, 1.01):
            moved = replace(PRICES, **{turn.price: factor * turn.value})
            leads = decide(GAINS, AMOUNTS, moved).best
            assert (leads == turn.verdict) == ((factor < 1.0) == turn.below), turn


def test_without_prices_the_lead_is_told_and_what_stopping_leaves() -> None:
    assert turns(None) == [Turn("lead", False, pytest.approx(0.02), "tune")]
    small = replace(GAINS, draws={"data": np.full(100, 0.004)})
    assert turns(None, small) == [Turn("lead", True, pytest.approx(0.004), "data")]
    assert turns(None, replace(GAINS, draws={}, missing={"data": "no probe"})) == []


def test_what_is_not_counted_turns_nothing() -> None:
    unknown = replace(AMOUNTS, examples=None)
    priced = replace(PRICES, example=0.0)
    assert all(turn.price != "example" for turn in turns(priced, amounts=unknown))
