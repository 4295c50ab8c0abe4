"""What speaks against a study and its best trial is said, by hand, and nothing else."""

import json

from fixtures.by_hand.trials import bare_trial, study

from wwopt.report.cautions import warn_about
from wwopt.report.importance import explain_importance
from wwopt.tracking import read_settings
from wwopt.tracking.tracked_studies import TrackedStudy


def told(study: TrackedStudy) -> str:
    importance = explain_importance(study)
    settings = read_settings(study)  # of parameters alone: as version 0.1.0 left them
    return " ".join(warn_about(study, None, importance=importance, choices=(), settings=settings))


def test_warnings_by_hand() -> None:
    space = json.dumps({"ranges": {"lr": [0.01, 1.0], "momentum": [0.0, 0.9]}})
    ends = {"lr/a": "1", "lr/b": "0.1", "momentum/a": "0", "momentum/b": "0.9"}
    words = told(study(bare_trial(0, 1.0, params=ends), params={"space": space}))
    assert "Only 1 trial complete" in words
    assert "The best lr lies at the upper end of its range (1) for a: " in words
    assert "The best momentum lies at the upper end of its range (0.9) for b: " in words
    assert "lower end" not in words  # no momentum is an end that nothing lies beyond
    losing = [bare_trial(n, float(n), metrics={"train/loss": -float(n)}) for n in range(12)]
    assert "order the trials differently (tau -1.00)" in told(study(*losing))
    agreeing = [bare_trial(n, float(n), metrics={"train/loss": float(n)}) for n in range(12)]
    assert "differently" not in told(study(*agreeing))
    sizes = [bare_trial(n, float(n), params={"tuned/width": str(n)}) for n in range(3)]
    assert "Networks of different sizes" in told(study(*sizes))
    assert "a second objective, size" in told(
        study(bare_trial(0, 1.0), params={"second": '"size"'})
    )
    assert "second objective" not in told(study(bare_trial(0, 1.0), params={"second": "null"}))
    assert "Every complete trial violates a guard" in told(
        study(bare_trial(0, 1.0, metrics={"guards/traps": 1.0}))
    )
    assert "No trial logged an objective" in told(study(bare_trial(0, metrics={"loss": 1.0})))
    assert "1 trial still running" in told(study(bare_trial(0, state="RUNNING")))


def test_a_settings_text_that_mlflow_cut_is_no_error() -> None:
    assert "range" not in told(
        study(bare_trial(0, 1.0), params={"space": '{"ranges": {"lr": [0.0'})
    )
