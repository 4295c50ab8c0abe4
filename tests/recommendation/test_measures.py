"""What gains are measured in: whose word counts, and what a trial or a probe is worth in it."""

import math

import pytest

import wwopt
from wwopt import Metric
from wwopt.recommendation.measures import (
    SCORE,
    choose_measure,
    find_best,
    guess_again,
    to_loss,
    value_of_probe,
    value_of_trial,
)
from wwopt.recommendation.probes import Probe, ProbeResult
from wwopt.tracking.tracked_trials import TrackedTrial


def trial(number: int, *, state: str = "COMPLETE", **metrics: float) -> TrackedTrial:
    logged = {"objective/value": 1.0} | {f"metrics/{k}": v for k, v in metrics.items()}
    return TrackedTrial("", "r", number, state, "ok", metrics=logged)


def study(*trials: TrackedTrial) -> wwopt.TrackedStudy:
    return wwopt.TrackedStudy("", "1", None, "made", {}, {}, {}, trials)


TWO = study(trial(0, accuracy=0.5, mystery=3.0), trial(1, accuracy=0.75, mystery=2.0))
MYSTERY = Metric("mystery", lower_is_better=False, top=100.0)


def test_what_is_wanted_counts_and_what_is_stated_says_what_it_means() -> None:
    guessed = Metric("accuracy", lower_is_better=False, top=1.0, is_share=True)
    assert choose_measure(TWO, None, stated=None) == guessed  # the only one that a name explains
    assert choose_measure(TWO, None, stated="accuracy") == guessed
    assert choose_measure(TWO, "accuracy", stated=MYSTERY) == guessed
    assert choose_measure(TWO, None, stated=MYSTERY) is MYSTERY
    assert choose_measure(TWO, "mystery", stated=MYSTERY) is MYSTERY
    assert choose_measure(TWO, MYSTERY, stated="accuracy") is MYSTERY
    assert choose_measure(study(trial(0)), None, stated=None) is SCORE
    assert choose_measure(study(), "anything", stated=None) is SCORE  # `find_best` says so
    with pytest.raises(wwopt.StudyError, match="no metric 'mystery' whose name tells"):
        choose_measure(TWO, "mystery", stated=None)
    with pytest.raises(wwopt.StudyError, match="say which one counts"):
        choose_measure(study(trial(0, accuracy=0.5, loss=1.0)), None, stated=None)


def test_the_best_is_best_in_the_metrics_own_direction() -> None:
    assert find_best(TWO, choose_measure(TWO, "accuracy", stated=None)).number == 1
    assert find_best(TWO, MYSTERY).number == 0
    with pytest.raises(wwopt.StudyError, match="no complete trial that violates no guard"):
        find_best(study(trial(0, state="FAIL", accuracy=0.5)), MYSTERY)


def test_what_was_not_trained_to_its_end_is_infinitely_bad() -> None:
    assert value_of_trial(trial(0, state="PRUNED", mystery=3.0), MYSTERY) == math.inf
    assert math.isnan(value_of_trial(trial(0), MYSTERY))
    failed = ProbeResult(Probe("data", 1.0), "training loss is nan", metrics={"mystery": 3.0})
    assert value_of_probe(failed, MYSTERY) == math.inf
    assert to_loss(math.nan, MYSTERY) == to_loss(math.inf, MYSTERY) == math.inf
    assert to_loss(30.0, MYSTERY) == 70.0 and to_loss(0.25, SCORE) == 0.25


def test_probes_may_show_that_a_share_is_a_percentage() -> None:
    measure = choose_measure(study(trial(0, accuracy=0.5)), None, stated=None)
    assert measure.top == 1.0
    beyond = ProbeResult(Probe("data", 1.0), "ok", metrics={"accuracy": 60.0})
    assert guess_again(measure, study(trial(0, accuracy=0.5)), [beyond]).top == 100.0
