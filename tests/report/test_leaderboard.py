"""A leaderboard has the trials in order, and shows only what differs between them."""

import pytest
from fixtures.by_hand.trials import study, trial

from wwopt.report.leaderboard import find_differing, is_logarithmic, make_leaderboard
from wwopt.report.text import format_leaderboard
from wwopt.tracking.hyperparameters import read_knobs


def test_complete_trials_come_first_and_those_that_violate_a_guard_last_of_them() -> None:
    made = study(
        trial(0, 0.5),
        trial(1, -9.0, state="PRUNED"),
        trial(2, 0.1),
        trial(3, -5.0, metrics={"guards/traps": 0.3, "guards/mean": -1.0}),
        trial(4, state="FAIL", tags={"wwopt.error": "ValueError: no"}),
        trial(5, state="RUNNING", status=""),
        trial(6),
    )
    board = make_leaderboard(made)
    assert list(board["trial"]) == [2, 0, 6, 3, 5, 1, 4]
    assert made.best is made[2]
    status = dict(zip(board["trial"], board["status"], strict=True))
    assert status[3] == "violates traps"
    assert status[4] == "ValueError: no" and status[5] == "running"


def test_another_metric_orders_the_trials() -> None:
    made = study(trial(0, 1.0, metrics={"a/b": 2.0}), trial(1, 2.0, metrics={"a/b": 1.0}))
    assert list(make_leaderboard(made, by="a/b")["trial"]) == [1, 0]
    with pytest.raises(ValueError, match="no trial of 'made' has the metric 'x'; there are a/b"):
        make_leaderboard(made, by="x")


def test_only_terms_and_hyperparameters_that_differ_are_shown() -> None:
    metrics = {"objective/tail": -1.0, "objective/failure": 0.0}
    made = study(
        trial(0, 1.0, metrics=metrics, params={"lr/a": "0.1", "lr/b": "0.5", "batch": "8"}),
        trial(1, 2.0, metrics=metrics, params={"lr/a": "0.2", "lr/b": "0.5", "batch": "8"}),
    )
    board = make_leaderboard(made)
    assert "tail" in board and "failure" not in board
    assert list(board["lr/a"]) == [0.1, 0.2] and "lr/b" not in board and "batch" not in board


def test_knots_stand_for_the_layers_that_they_tie() -> None:
    tied = trial(0, params={"lr/a": "0.1", "tuned/lr.first": "0.1", "tuned/kind": "wide"})
    assert read_knobs(tied) == {"lr.first": 0.1, "kind": "wide"}
    assert find_differing([tied, trial(1, params={"tuned/lr.first": "0.1"})]) == {
        "run0": {"kind": "wide"},
        "run1": {},
    }


def test_runs_of_others_show_all_their_metrics() -> None:
    board = make_leaderboard(study(trial(0, metrics={"loss": 1.0}), trial(1, metrics={"acc": 0.5})))
    assert {"loss", "acc"} <= set(board) and "objective" not in board
    text = format_leaderboard(study(trial(0, metrics={"loss": 1.0})), top=0, width=80)
    assert "No objective was logged" in text


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], False),
        ([0.001, 0.01, 0.1, 1.0], True),
        ([0.0, 0.01, 1.0], False),
        ([-1.0, 0.01, 1.0], False),
        ([0.3, 0.3], False),
    ],
)
def test_which_values_look_sampled_in_their_logarithm(values: list, logarithmic: bool) -> None:
    assert is_logarithmic(values) is logarithmic
