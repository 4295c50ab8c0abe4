"""Fans are percentiles of what may come, in the metric's own direction, from where it is now."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fixtures.by_hand.recommendations import ACCURACY, curve_of, make_recommendation

from wwopt.recommendation.fans import best_so_far, fan_of_curve, fan_of_trials

DRAWS = np.linspace(0.0, 0.1, 1000)


def test_the_fan_of_trials_is_what_the_gains_leave() -> None:
    error = make_recommendation({"tune": DRAWS}, now=0.2)
    assert fan_of_trials(error) == pytest.approx([0.11, 0.15, 0.19])
    accuracy = make_recommendation({"tune": DRAWS}, now=0.2, measure=ACCURACY)
    assert fan_of_trials(accuracy) == pytest.approx([0.81, 0.85, 0.89])
    assert fan_of_trials(make_recommendation({"data": DRAWS})) is None


def test_the_fan_of_data_goes_from_the_least_share_to_four_times_todays() -> None:
    made = make_recommendation({"data": 0.03}, curve=curve_of())
    fan = fan_of_curve(made, "data")
    assert fan is not None
    shares, (low, middle, high) = fan
    assert (shares[0], shares[-1]) == pytest.approx((0.125, 4.0))
    assert np.diff(np.log(shares)) == pytest.approx([math.log(32.0) / 48.0] * 48)
    assert (low <= middle).all() and (middle <= high).all()
    measured = [0.02 + 0.06 / share for share in (0.125, 0.25, 0.5, 1.0)]
    assert np.interp([0.125, 0.25, 0.5, 1.0], shares, middle) == pytest.approx(measured, rel=0.05)


def test_a_curve_that_is_missing_or_not_to_be_extrapolated_has_no_fan() -> None:
    assert fan_of_curve(make_recommendation({"tune": 0.1}), "data") is None
    risen = replace(curve_of(), ill_behaved="it rises")
    assert fan_of_curve(make_recommendation({"tune": 0.1}, curve=risen), "data") is None


def test_the_best_so_far_leaves_out_trials_without_a_value_and_keeps_their_places() -> None:
    trials = (math.inf, 0.3, 0.4, math.inf, 0.2)
    places, best = best_so_far(make_recommendation({}, trials=trials))
    assert list(places) == [2, 3, 5]
    assert list(best) == [0.3, 0.3, 0.2]
    _, rising = best_so_far(make_recommendation({}, trials=trials, measure=ACCURACY))
    assert list(rising) == pytest.approx([0.7, 0.7, 0.8])
    places, _ = best_so_far(make_recommendation({}, trials=(math.inf,)))
    assert len(places) == 0
