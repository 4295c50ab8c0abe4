"""What trials and probes are evidence of: points of curves, rates, noise."""

import math

import pytest

from wwopt.recommendation.evidence import Evidence
from wwopt.recommendation.probes import RATED, Probe

TRIALS = (0.31, 0.25, 0.22)
COURSE = (0.8, 0.6, 0.45, 0.4, 0.35, 0.32, 0.31, 0.3)


def test_noise_is_pooled_over_the_probes_that_differ_by_their_seed() -> None:
    """Pairs a (1 ± e): relative variance 2e² each, one degree of freedom each."""
    many = {  # enough pairs for the weak prior not to matter
        Probe("epochs", 2.0 + n, 1.0, sign): 0.3 * (1.0 + (0.1 if sign else -0.1))
        for n in range(300)
        for sign in (0, 1)
    }
    assert Evidence((), many).noise == pytest.approx(0.1 * math.sqrt(2.0), rel=0.01)
    assert Evidence((), many).degrees == pytest.approx(301)
    negative = Evidence((-1.0,), {Probe("data", 1.0, 1.0, r): -1.0 + 0.1 * r for r in (0, 1)})
    assert negative.noise == pytest.approx(0.1 / math.sqrt(2.0))  # in the metric's own units
    assert math.isnan(Evidence((-1.0,), {}).noise)


def test_points_are_at_the_own_rate_and_what_failed_is_left_out() -> None:
    values = {
        Probe("data", 1.0): 0.2,
        Probe("data", 0.5): 0.3,
        Probe("data", 0.5, 1.0, 1): math.inf,
        Probe("data", 0.5, 3.0): 0.1,
        Probe("data", 0.25): math.inf,
        Probe("width", 0.5): 0.4,
    }
    evidence = Evidence(TRIALS, values)
    assert evidence.points("data") == {0.5: (0.3,), 1.0: (0.2,)}
    assert evidence.points("width") == {0.5: (0.4,), 1.0: (0.2,)}
    assert evidence.now == 0.2 and Evidence(TRIALS).now == min(TRIALS)
    assert not evidence.failed("data") and not evidence.failed("epochs")
    assert Evidence(TRIALS, {Probe("epochs", 0.5): math.inf}).failed("epochs")


def test_rates_tried_on_a_part_of_the_data_count_in_proportion() -> None:
    values = {Probe("data", RATED): 0.4, Probe("data", RATED, 3.0): 0.3, Probe("data", 1.0): 0.2}
    evidence = Evidence((0.25, 0.5), values)
    assert evidence.configurations == pytest.approx((0.25, 0.5, 0.15))
    assert evidence.best_rate == 3.0 and evidence.rates[0] == RATED
    on_all = Evidence((0.25, 0.5), values | {Probe("data", 1.0, 3.0): 0.22})
    assert on_all.configurations == pytest.approx((0.25, 0.5, 0.22))
    assert on_all.best_rate == 1.0 and on_all.rates[0] == 1.0
    assert Evidence((0.3,)).best_rate == 1.0 and Evidence((0.3,)).rates == (1.0, {})


def test_the_course_counts_where_half_the_epochs_end_where_it_was_half_way() -> None:
    values = {Probe("data", 1.0): 0.3, Probe("epochs", 0.5): 0.4}
    courses = {Probe("data", 1.0): COURSE}
    points = Evidence(TRIALS, values, courses=courses).points("epochs")
    assert points == {0.125: (0.8,), 0.25: (0.6,), 0.5: (0.4,), 1.0: (0.3,)}
    # A rate that falls: shorter trainings end lower than longer ones are on their way.
    annealed = values | {Probe("epochs", 0.5): 0.32}
    points = Evidence(TRIALS, annealed, courses=courses).points("epochs")
    assert points == {0.5: (0.32,), 1.0: (0.3,)}
    assert set(Evidence(TRIALS, values).points("epochs")) == {0.5, 1.0}
    one = Evidence(TRIALS, {Probe("data", 1.0): 0.3}, courses={Probe("data", 1.0): (0.3,)})
    assert one.points("epochs") == {1.0: (0.3,)}
