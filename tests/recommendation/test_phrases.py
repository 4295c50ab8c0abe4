"""Verdicts, gains and reasons are said in the metric's own direction and units."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fixtures.by_hand.recommendations import ACCURACY, ERROR, curve_of, make_recommendation

from wwopt.recommendation.decisions import Prices
from wwopt.recommendation.gains import Action
from wwopt.recommendation.measures import SCORE
from wwopt.recommendation.phrases import (
    say_basis,
    say_duration,
    say_gain,
    say_money,
    say_more,
    say_paid,
    say_verdict,
    tabulate_actions,
    tell_reasons,
    tell_turns,
)
from wwopt.recommendation.probe_plans import Paid, ProbePlan
from wwopt.recommendation.probes import Probe
from wwopt.recommendation.recommendation import Recommendation
from wwopt.recommendation.turning_points import Turn
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
    plan = ProbePlan((Probe("data", 0.5), Probe("data", 1.0)), 1.5, 3600.0, "why")
    unsure = make_recommendation(NET, unprobed=("longer",), plan=plan, prices=PRICES)
    assert say_verdict(unsure) == (
        "not enough evidence: run 2 probes, about 1.5 full trainings, 60 minutes, 2 in GPU hours"
    )
    assert say_more(unsure).startswith("`wwopt recommend STUDY.py --probe` runs them, and ends")
    even = np.linspace(-0.1, 0.2, 1000)
    known = make_recommendation({"data": even, "tune": even[::-1]}, plan=replace(plan, total=10.0))
    assert say_verdict(known).startswith("not enough evidence: data ×2 leads, but not surely (5")
    assert say_more(known) == (
        "More certainty: up to 2 probes, about 1.5 full trainings, 60 minutes, with "
        "`wwopt recommend STUDY.py --trainings 10`."
    )
    assert say_more(make_recommendation(NET)) == ""
    score = make_recommendation(NET, measure=SCORE, decision=known.decision)
    assert say_verdict(score) == "no verdict: without a validation metric it would be a guess"


def test_what_was_paid_is_said() -> None:
    assert say_paid(make_recommendation(NET)).startswith("Paid so far: nothing beside")
    paid = Paid(1, 1.0, 30.0)
    assert say_paid(make_recommendation(NET, paid=paid)) == (
        "Paid so far: 1 probe, 1 full training, 30 seconds."
    )


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (Turn("example", True, 0.31, "data"), "data ×2 leads if an example costs less than 0.31"),
        (Turn("gpu_hour", False, 4.0, "stop"), "stop leads if a GPU hour costs more than 4"),
        (
            Turn("lead", False, 0.02, "tune"),
            "more trials leads if data ×2 costs 2 points of error more than it does",
        ),
        (
            Turn("lead", False, 0.04, "stop"),
            "stop leads if data ×2 costs more than 4 points of error are worth",
        ),
        (
            Turn("lead", True, 0.01, "longer"),
            "epochs ×2 pays if it costs less than 1 point of error are worth",
        ),
    ],
)
def test_what_would_change_the_verdict_is_said(turn: Turn, said: str) -> None:
    assert tell_turns(make_recommendation(NET, turns=(turn,))) == (said,)


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
    assert "gives no verdict" in score and "Without prices" not in score


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
    rough = ": a rough guess, so ask again after the first"
    still = "doublings still pay up to 2 of today's, where the forecast ends"
    assert reason == f"{step}; {still}{rough}"
    _, reason, _ = tell_reasons(replace(made, enough={"data": 2.0}))
    assert reason == f"{step}; from 2 of today's on a doubling brings less than the noise{rough}"
    _, reason, _ = tell_reasons(replace(made, enough={"data": 1.0}))
    assert reason == f"{step}; from 1 of today's on a doubling brings less than the noise"
    _, reason, _ = tell_reasons(make_recommendation({"tune": 0.1}, curve=curve_of()))
    assert reason == f"{step}, and the curve is not to be extrapolated"
    both = replace(made.gains, curves={"data": curve_of(), "longer": curve_of()})
    both = replace(both, draws={**both.draws, "longer": both.draws["data"]})
    _, _, longer, _ = tell_reasons(replace(made, gains=both))
    assert longer.startswith("from 0.5 to 1 of the epochs error went from")
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
    assert reason.endswith("%, below the 63% that a verdict needs")
    reason, *_ = tell_reasons(make_recommendation({}, missing={"data": "no probe"}))
    assert reason == "no action's gain is known yet"
