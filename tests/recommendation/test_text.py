"""A recommendation as data and as text: probabilities, gains and what is not known."""

import json
import math

import pytest
from fixtures.by_hand.recommendations import make_recommendation

from wwopt.recommendation.label_noise import LabelNoise
from wwopt.recommendation.phrases import tell_reasons
from wwopt.recommendation.probe_plans import ProbePlan
from wwopt.recommendation.probes import Probe
from wwopt.recommendation.recommendation import Recommendation
from wwopt.recommendation.text import describe_recommendation, format_recommendation
from wwopt.recommendation.turning_points import Turn


def test_probabilities_sum_to_one_and_intervals_hold_the_gain(judged: Recommendation) -> None:
    actions = describe_recommendation(judged)["actions"]
    known = [a for a in actions.values() if not a["missing"]]
    assert sum(a["probability"] for a in known) == pytest.approx(1.0)
    assert all(a["low"] <= a["high"] for a in known)


def test_the_text_has_a_block_for_each_thing_that_there_is_to_say() -> None:
    labels = LabelNoise("labels may be noisy", 0.8)
    plan = ProbePlan((Probe("data", 1.0),), 1.0, 60.0, "the noise")
    made = make_recommendation(
        {"data": 0.05},
        missing={"longer": "no probe of epochs"},
        plan=plan,
        failed=("data ×0.5, seed 0: pruned",),
        labels=labels,
        turns=(Turn("lead", False, 0.04, "stop"),),
    )
    blocks = format_recommendation(made).split("\n\n")
    assert blocks[0].startswith("Study made, trial 2: add data")
    assert blocks[2].splitlines()[0].split("  ")[0] == "action"
    assert blocks[3] == "Not known:\n  epochs ×2: no probe of epochs."
    assert blocks[4].startswith("What decided:\n  data ×2 (gain -5) leads stop")
    assert blocks[5] == "Probes that failed:\n  data ×0.5, seed 0: pruned"
    change = "stop leads if data ×2 costs more than 4 points of error are worth"
    assert blocks[6] == f"What would change it:\n  {change}"
    assert blocks[7].startswith("Paid so far: nothing beside the study's own trials.\nMore cert")
    assert blocks[8] == "Labels may be noisy (80% sure)"


def test_without_more_to_say_nothing_is_said_and_lines_fit() -> None:
    text = format_recommendation(make_recommendation({"data": 0.05, "tune": 0.01}), width=60)
    assert len(text.split("\n\n")) == 5
    assert max(map(len, text.splitlines())) <= 60


def test_as_data_it_is_plain_and_says_the_same() -> None:
    made = make_recommendation({"data": 0.05}, missing={"longer": "no probe"}, noise=math.nan)
    document = json.loads(json.dumps(describe_recommendation(made), allow_nan=False))
    assert (document["verdict"], document["metric"], document["now"]) == ("probe", "error", 0.2)
    assert document["noise"] is None
    assert document["actions"]["longer"]["missing"] == "no probe"
    assert document["actions"]["longer"]["gain"] is None
    assert document["actions"]["data"]["missing"] is None
    assert document["reasons"] == list(tell_reasons(made))
    assert document["paid"] == {"probes": 0, "trainings": 0.0, "seconds": 0.0}
    assert document["changes"] == [] and document["labels"] is None
