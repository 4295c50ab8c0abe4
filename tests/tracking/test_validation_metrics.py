"""What a validation metric means: stated by a study, or guessed from its name and values."""

import math

import numpy as np
import pytest

from wwopt import Metric
from wwopt.tracking.tracked_trials import TrackedTrial
from wwopt.tracking.validation_metrics import find_validation_metrics, guess_metric, read_metric


def trial(**metrics: float) -> TrackedTrial:
    named = {f"metrics/{name}": value for name, value in metrics.items()}
    return TrackedTrial("", "r", 0, "COMPLETE", "ok", metrics=named)


def test_the_direction_of_a_validation_metric_is_its_names() -> None:
    names = ("val_loss", "Accuracy", "error_rate", "macro_f1", "mystery", "perplexity", "R2")
    found = find_validation_metrics([trial(**dict.fromkeys(names, 1.0))])
    assert {metric.name: metric.better for metric in found} == {
        "Accuracy": "higher",
        "R2": "higher",
        "error_rate": "lower",
        "macro_f1": "higher",
        "perplexity": "lower",
        "val_loss": "lower",
    }


@pytest.mark.parametrize(
    ("name", "values", "top", "is_share", "counts_errors"),
    [
        ("accuracy", (0.2, 0.9), 1.0, True, True),
        ("accuracy", (20.0, 90.0), 100.0, True, True),
        ("f1", (0.2, 0.9), 1.0, False, True),  # bounded, and no share of examples
        ("score", (200.0, 900.0), 0.0, False, False),
        ("error", (0.2, 0.1, math.inf), 1.0, True, True),
        ("error", (0.2, 12.0), 100.0, False, False),  # an error in metres, for all that is known
        ("val_loss", (0.2, 0.1), 1.0, False, False),
    ],
)
def test_its_name_and_values_tell_what_it_counts(
    name: str, values: tuple[float, ...], top: float, is_share: bool, counts_errors: bool
) -> None:
    metric = guess_metric(name, values)
    assert metric is not None
    assert (metric.top, metric.is_share, metric.counts_errors) == (top, is_share, counts_errors)


def test_a_loss_and_back() -> None:
    values = np.array([0.25, 0.5])
    accuracy = Metric("accuracy", lower_is_better=False, top=1.0, is_share=True)
    assert accuracy.to_loss(values).tolist() == [0.75, 0.5]
    assert accuracy.to_metric(accuracy.to_loss(values)).tolist() == values.tolist()
    loss = Metric("loss", lower_is_better=True)
    assert loss.to_loss(values) is values and loss.to_metric(values) is values
    reward = Metric("reward", lower_is_better=False)
    assert reward.to_loss(3.0) == -3.0


def test_what_a_study_states_is_not_guessed() -> None:
    stated = Metric("mystery", lower_is_better=True, top=100.0, is_share=True)
    trials = [trial(mystery=0.5, loss=1.0)]
    assert [m.name for m in find_validation_metrics(trials)] == ["loss"]
    found = find_validation_metrics(trials, stated=stated)
    assert [m.name for m in found] == ["loss", "mystery"] and found[1] is stated
    assert find_validation_metrics(trials, stated="mystery") == find_validation_metrics(trials)


@pytest.mark.parametrize("top", [math.nan, math.inf, -1.0])
def test_a_bound_that_is_none_is_refused(top: float) -> None:
    with pytest.raises(ValueError, match="top must be 0 or positive"):
        Metric("x", lower_is_better=False, top=top)


def test_a_share_needs_its_bound() -> None:
    with pytest.raises(ValueError, match="must be 1, or 100 for per cent"):
        Metric("error", lower_is_better=True, is_share=True)


def test_it_is_read_back_from_settings() -> None:
    stated = {"name": "x", "lower_is_better": True, "top": 1.0, "is_share": False}
    assert read_metric({"metric": stated}) == Metric("x", lower_is_better=True, top=1.0)
    assert read_metric({"metric": "x"}) == "x"
    assert read_metric({}) is None
