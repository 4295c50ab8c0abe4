"""Thresholds are options of a check, and those that make no sense are refused."""

import math

import pytest
from fixtures.weights.damaged_models import edited, model

import wwopt
from wwopt.gate.thresholds import FACTORS, Thresholds


def test_thresholds_are_options() -> None:
    after = edited(lambda w: w * 1.1, "fc2")
    assert wwopt.check(model(), after).passed
    assert wwopt.check(model(), after, scale=1.05).broken == {"fc2": "scaled by 1.1"}
    assert wwopt.check(model(), edited(lambda w: w * 4.0), scale=math.inf).passed
    moved = wwopt.check(model(), after, relative_change=0.05).broken
    assert moved == {"fc2": "weights changed by 0.10 of their norm"}
    with pytest.raises(TypeError, match="kss"):
        wwopt.check(model(), after, kss=0.1)
    with pytest.raises(ValueError, match=r"threshold scale must be above 1, got 0\.5"):
        wwopt.check(model(), after, scale=0.5)
    with pytest.raises(ValueError, match="threshold ks must be above 0, got 0"):
        Thresholds(ks=0.0)


def test_a_factor_is_compared_as_a_logarithm_and_a_distance_as_it_is() -> None:
    limits = Thresholds(scale=2.0, ks=0.1)
    assert limits.allowed("scale") == math.log(2.0)
    assert limits.allowed("ks") == 0.1
    factors = {"scale", "hill", "spectral_norm", "norm", "stable_rank", "kurtosis", "max_abs"}
    assert factors == FACTORS
