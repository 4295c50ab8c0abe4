"""Verdicts, gains and reasons are said in the metric's own direction and units."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fixtures.recommendations import ACCURACY, ERROR, curve_of, make_recommendation

from wwopt.recommendation.decisions import Prices
from wwopt.recommendation.gains import Action
from wwopt.recommendation.measures import SCORE
from wwopt.recommendation.phrases import (
    say_basis,
    say_duration,
    say_gain,
    say_money,
    say_verdict,
    tabulate_actions,
    tell_reasons,
)
from wwopt.recommendation.probe_plans import ProbePlan
from wwopt.recommendation.probes import plan_probes
from wwopt.recommendation.recommendation import Recommendation
from wwopt.tracking.validation_metrics import Metric

PRICES = Prices(worth=1e5, example=1.0, trial=50.0, gpu_hour=2.0)
NET: dict[Action, float] = {"data": 0.05, "tune": 0.02}


def test_gains_have_the_direction_of_the_metric(judged: Recommendation) -> None:
    assert judged.better == "higher"
    assert say_gain(judged, 0.008) == "+0.8"  # points
    assert say_gain(judged, -0.01) == "-1"


@pytest.mark.parametrize(
    ("measure", "gain", "said"),
    [
        (ERROR, 0.01, "-1"),  # points, and an error falls
        (ACCURACY, 0.01, "+1"),
        (Metric("accuracy", lower_is_better=False, top=100.0, is_share=True), 0.5, "+0.5"),
        (Metric("loss", lower_is_better=True), 0.012, "-0.012"),
        (ERROR, 0.0, "0"),
    ],
)
def test_a_gain_is_said_in_the_metrics_own_units(measure: Metric, gain: float, said: str) -> None:
    assert say_gain(make_recommendation(NET, measure=measure), gain) == said


def test_a_verdict_says_how_sure_it_is_and_what_is_not_known() -> None:
    assert say_verdict(make_recommendation(NET)) == "add data: twice today's (100% sure)"
    tune = make_recommendation({"tune": 0.05}, missing={"bigger": "no probe"}, more_trials=8)
    assert say_verdict(tune) == (
        "keep tuning, 8 more trials (100% sure); but nothing is known of bigger ×2, which may be "
        "better"
    )
    assert say_verdict(make_recommendation({"data": 0.0})).startswith("stop: nothing is expected")


def test_without_enough_evidence_it_says_what_to_run_or_what_is_in_doubt() -> None:
    probes = plan_probes(("data",), fractions=(0.5, 1.0), lr_factors=(1.0,), seeds=1)
    plan = ProbePlan(probes, 1.5, 3600.0, "the learning curve")
    unsure = make_recommendation(NET, unprobed=("longer",), plan=plan, prices=PRICES)
    assert say_verdict(unsure) == (
        "not enough evidence: run 2 probes, about 1.5 full trainings, 60 minutes, 2 in GPU hours"
    )
    settled = replace(unsure, plan=replace(plan, probes=(), reason="data is in doubt"))
    assert say_verdict(settled) == "not enough evidence: data is in doubt"
    assert say_verdict(replace(settled, plan=replace(settled.plan, reason=""))) == (
        "not enough evidence: data ×2 leads, but not surely"
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(40.4, "40 seconds"), (90.0, "2 minutes"), (5399.0, "90 minutes"), (9000.0, "2.5 hours")],
)
def test_a_duration_has_the_unit_that_people_think_in(seconds: float, said: str) -> None:
    assert say_duration(seconds) == said


def test_money_has_no_decimals_that_do_not_matter() -> None:
    assert [say_money(v) for v in (1234567.8, 99.94, 0.5)] == ["1,234,568", "99.9", "0.5"]
    assert say_money(250.0, sign="+") == "+250" and say_money(-3.0, sign="+") == "-3"


def test_the_table_has_money_where_there_are_prices_and_dashes_for_what_is_not_known() -> None:
    plain = tabulate_actions(make_recommendation(NET, missing={"longer": "no probe"}))
    assert plain == [
        ("action", "gain", "80 % interval", "P(best)"),
        ("data ×2", "-5", "-5 to -5", "100%"),
        ("10 more trials", "-2", "-2 to -2", "0%"),
        ("epochs ×2", "–", "–", "–"),
        ("stop", "0", "0 to 0", "0%"),
    ]
    priced = tabulate_actions(make_recommendation({"tune": 0.02}, prices=PRICES))
    cost = 10 * (50.0 + 2.0 * 0.5)
    assert priced[1] == (
        "10 more trials", "-2", "-2 to -2", f"{cost:.0f}", f"+{2000.0 - cost:,.0f}", "100%"
    )  # fmt: skip


def test_what_gains_are_measured_in_is_said_and_where_it_is_weak() -> None:
    assert say_basis(make_recommendation(NET)) == (
        "Gains are in points of error: 0.2 now, lower is better; another seed moves it by 1 point."
        " Without prices, doublings are compared."
    )
    score = say_basis(make_recommendation(NET, measure=SCORE, prices=PRICES))
    assert score.startswith("Gains are in units of the score: 0.2 now, lower is better; another")
    assert "weaker evidence" in score and "Without prices" not in score


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ((0.3, 0.25, 0.25, 0.2), "the last 2 of 4 trials improved the best by -5"),
        ((0.3, 0.2, 0.25, 0.25), "the last 2 of 4 trials did not improve on the best"),
        ((0.205, 0.2), "the last 1 of 2 trials improved the best by -0.5 (less than the noise)"),
        ((0.2, math.inf), "1 trial was finished: nothing is known of more"),
    ],
)
def test_the_history_of_the_trials_is_a_reason(trials: tuple[float, ...], said: str) -> None:
    *_, reason = tell_reasons(make_recommendation(NET, trials=trials))
    assert reason == said
    *_, rated = tell_reasons(make_recommendation(NET, trials=trials, rate=3.0))
    assert rated == f"{said}; of the probes, 3 times its learning rate is best"


def test_the_learning_curve_is_a_reason_as_far_as_it_can_be_foreseen() -> None:
    made = make_recommendation(NET, curve=curve_of())
    _, reason, _ = tell_reasons(made)
    step = "from 0.5 to 1 of the data error went from 0.14 to 0.08 (-6)"
    assert reason == f"{step}; doublings still pay as far as can be foreseen"
    _, reason, _ = tell_reasons(replace(made, curve_enough=2.0))
    assert reason == f"{step}; from 2 of today's data on a doubling brings less than the noise"
    risen = replace(curve_of(), ill_behaved="it rises")
    _, reason, _ = tell_reasons(make_recommendation(NET, curve=risen))
    assert reason == f"{step}, and the learning curve is not to be extrapolated"
    _, reason, _ = tell_reasons(make_recommendation({"tune": 0.1}, missing={"data": "no probe"}))
    assert reason == "nothing is known of more data: no probe"


def test_the_leader_and_its_rival_are_a_reason() -> None:
    reason, *_ = tell_reasons(make_recommendation(NET))
    assert reason == (
        "data ×2 (gain -5) leads more trials, +4 against +1 less the noise; the chance that "
        "nothing beats it by more than the noise is 100%"
    )
    even = np.linspace(-0.1, 0.2, 1000)
    reason, *_ = tell_reasons(make_recommendation({"data": even, "tune": even[::-1]}))
    assert reason.endswith("%, below the 70% that a verdict needs")
    reason, *_ = tell_reasons(make_recommendation({}, missing={"data": "no probe"}))
    assert reason == "no action's gain is known yet"
