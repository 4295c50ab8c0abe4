"""Budgets: what is affordable, what is refused before anything is trained, what was paid."""

import math

import pytest

from wwopt.recommendation.decisions import Prices
from wwopt.recommendation.probe_plans import (
    Budget,
    Question,
    check_budget,
    list_missing,
    plan_missing,
    read_budget,
    sum_paid,
)
from wwopt.recommendation.probes import Probe, ProbeResult, need_probes, plan_probes

QUESTION = Question(("data", "epochs", "width"), 10, 8, 60.0)  # a minute a training
NEEDED = need_probes(QUESTION.kinds)


def done(*probes: Probe, raised: bool = False) -> dict[Probe, ProbeResult]:
    return {p: ProbeResult(p, "ok", raised, seconds=60.0 * p.cost) for p in probes}


def test_of_several_limits_the_smallest_counts() -> None:
    prices = Prices(worth=1.0, gpu_hour=6.0)
    assert read_budget(None, None, None, prices=None) is None
    assert read_budget(7.0, None, None, prices=None) == Budget(7.0)
    assert read_budget(None, 30.0, 1.0, prices=prices) == Budget(math.inf, 600.0)
    assert read_budget(9.0, 5.0, 1.0, prices=prices) == Budget(9.0, 300.0)
    with pytest.raises(ValueError, match="say what a GPU hour costs"):
        read_budget(None, None, 1.0, prices=Prices(worth=1.0))
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="minutes must be positive and finite, got"):
            read_budget(None, wrong, None, prices=None)


def test_minutes_buy_what_was_not_run_yet() -> None:
    assert list_missing(QUESTION, {}, Budget()) == plan_probes(QUESTION.kinds)
    few = list_missing(QUESTION, done(*NEEDED), Budget(math.inf, 60.0))
    assert few == (Probe("data", 1.0, 1.0, 1),)  # one training, a minute
    again = list_missing(QUESTION, done(*NEEDED, raised=True), Budget())
    assert set(NEEDED) <= set(again)  # what raised may have been mended
    unknown = Question(QUESTION.kinds, 10, 8, math.nan)
    with pytest.raises(ValueError, match="give the budget in trainings"):
        list_missing(unknown, {}, Budget(math.inf, 60.0))


def test_a_budget_too_small_for_any_verdict_says_what_it_would_take() -> None:
    check_budget(QUESTION, {}, Budget(3.125))
    with pytest.raises(ValueError, match=r"3 trainings are too few .* it takes 7 probes, 3\.12"):
        check_budget(QUESTION, {}, Budget(3.0))
    with pytest.raises(ValueError, match=r"1 minutes are too few .* 3\.12 are left, about 3"):
        check_budget(QUESTION, {}, Budget(math.inf, 60.0))
    check_budget(QUESTION, done(*NEEDED), Budget(math.inf, 60.0))  # all of it was paid before


def test_what_was_paid_is_summed_and_more_certainty_has_a_price() -> None:
    results = done(*plan_probes(QUESTION.kinds))
    paid = sum_paid(results.values())
    assert (paid.probes, paid.trainings, paid.seconds) == (len(results), 5.0, 300.0)
    more = plan_missing(QUESTION, results)
    assert more.total == 10.0 and 0.0 < more.trainings <= 5.0
    assert more.seconds == pytest.approx(60.0 * more.trainings) and more.reason
    first = plan_missing(QUESTION, {})
    assert first.total == 5.0 and "more data" in first.reason and "a bigger model" in first.reason
