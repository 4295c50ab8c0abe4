"""Verdicts, gains and reasons are said in the metric's own direction and units."""

from wwopt.recommendation.phrases import say_gain
from wwopt.recommendation.recommendation import Recommendation


def test_gains_have_the_direction_of_the_metric(judged: Recommendation) -> None:
    assert judged.better == "higher"
    assert say_gain(judged, 0.008) == "+0.8"  # points
    assert say_gain(judged, -0.01) == "-1"
