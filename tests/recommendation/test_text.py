"""A recommendation as data and as text: probabilities, gains and what is not known."""

import pytest

from wwopt.recommendation.recommendation import Recommendation
from wwopt.recommendation.text import describe_recommendation


def test_probabilities_sum_to_one_and_intervals_hold_the_gain(judged: Recommendation) -> None:
    actions = describe_recommendation(judged)["actions"]
    known = [a for a in actions.values() if not a["missing"]]
    assert sum(a["probability"] for a in known) == pytest.approx(1.0)
    assert all(a["low"] <= a["high"] for a in known)
