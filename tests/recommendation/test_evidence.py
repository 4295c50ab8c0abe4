"""What trials and probes are evidence of: values at the best rate, shares, noise and rates."""

import math

import pytest

from wwopt.recommendation.evidence import Evidence
from wwopt.recommendation.probes import Probe

TRIALS = (0.31, 0.25, 0.22)


def test_noise_is_pooled_over_the_probes_at_their_best_rates() -> None:
    """Pairs a (1 ± e): relative variance 2e² each, one degree of freedom each."""
    values = {}
    for share in (0.125, 0.25, 0.5, 1.0):
        for sign in (0, 1):
            loss = 0.2 * share**-0.5
            values[Probe("data", share, 1.0, sign)] = loss * (1.0 + (0.1 if sign else -0.1))
            values[Probe("data", share, 3.0, sign)] = loss * (9.0 if sign else 5.0)  # never best
    many = {  # enough pairs for the weak prior not to matter
        Probe("epochs", 2.0 + n, 1.0, sign): 0.3 * (1.0 + (0.1 if sign else -0.1))
        for n in range(300)
        for sign in (0, 1)
    }
    assert Evidence((), values | many).noise == pytest.approx(0.1 * math.sqrt(2.0), rel=0.01)
    negative = Evidence((-1.0,), {Probe("data", 1.0, 1.0, r): -1.0 + 0.1 * r for r in (0, 1)})
    assert negative.noise == pytest.approx(0.1 / math.sqrt(2.0))  # in the metric's own units
    assert math.isnan(Evidence((-1.0,), {}).noise)


def test_the_best_rate_is_that_of_the_lowest_mean_and_a_failed_training_spoils_its_rate() -> None:
    values = {
        Probe("data", 0.5, 1.0, 0): 0.30,
        Probe("data", 0.5, 1.0, 1): 0.32,
        Probe("data", 0.5, 3.0, 0): 0.10,
        Probe("data", 0.5, 3.0, 1): math.inf,
    }
    evidence = Evidence(TRIALS, values)
    assert evidence.retuned("data", 0.5) == (0.30, 0.32)
    assert evidence.unchanged("data", 0.5) == (0.30, 0.32)
    assert evidence.retuned("width", 2.0) == () == evidence.unchanged("width", 2.0)
    assert evidence.shares == {0.5: (0.30, 0.32)}
    values[Probe("data", 0.25, 1.0, 0)] = math.inf
    assert set(Evidence(TRIALS, values).shares) == {0.5}


def test_other_rates_at_all_of_the_data_are_configurations_too() -> None:
    values = {Probe("data", 1.0, 3.0, 0): 0.2, Probe("data", 1.0, 3.0, 1): 0.3}
    values |= {Probe("data", 1.0, 1.0, 0): 0.1, Probe("data", 0.5, 3.0, 0): 9.0}
    assert Evidence((0.4, 0.5), values).configurations == pytest.approx((0.4, 0.5, 0.25))


def test_the_best_rate_is_that_of_the_lowest_mean_on_all_of_the_data() -> None:
    losses = {1 / 3: (0.30, 0.34), 1.0: (0.20, 0.40), 3.0: (0.26, 0.28)}
    probes = {
        Probe("data", 1.0, rate, replicate): value
        for rate, values in losses.items()
        for replicate, value in enumerate(values)
    }
    probes |= {Probe("data", 0.5, 1 / 3, r): 0.1 for r in range(2)}  # of a part of the data
    assert Evidence((0.3,), probes).best_rate == 3.0
    assert Evidence((0.3,), probes).retuned("data", 1.0) == (0.26, 0.28)
    assert Evidence((0.3,)).best_rate == 1.0
