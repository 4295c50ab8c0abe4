"""A trial as MLflow tells it: its numbers as they were, and how it ended."""

import math

import pytest

from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial, read_history, read_number


def test_the_history_of_a_metric_is_read(tracked: TrackedStudy) -> None:
    history = read_history(tracked[0], ["train/loss", "objective/value"])
    losses = history[history["key"] == "train/loss"]
    assert list(losses["step"]) == [1, 2] and losses["value"].iloc[0] == 1.0
    assert set(history["key"]) == {"train/loss", "objective/value"}
    assert not history.duplicated().any()  # the logged model's metrics are the run's own


def test_infinity_is_read_as_what_it_was() -> None:
    assert read_number(1.7976931348623157e308) == math.inf
    assert read_number(-1.7976931348623157e308) == -math.inf
    assert math.isnan(read_number(math.nan)) and read_number(3.0) == 3.0


@pytest.mark.parametrize(
    ("tags", "status", "refused"),
    [
        ({"wwopt.ending": "refused"}, "worded anew", True),
        ({"wwopt.ending": "pruned"}, "worded anew", False),
        ({}, "broken: 0 collapsed", True),  # version 0.1.0
        ({}, "pruned at step 4 with value 2.1", False),
        ({}, "", False),
    ],
)
def test_a_trial_says_whether_it_was_refused(
    tags: dict[str, str], status: str, refused: bool
) -> None:
    trial = TrackedTrial("", "r", 0, "PRUNED", status, tags=tags)
    assert trial.refused == refused
