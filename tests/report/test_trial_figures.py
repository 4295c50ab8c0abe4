"""Figures of trials show every trial where it belongs: history, terms, hyperparameters."""

import math
from typing import Any

import numpy as np
import pytest
from fixtures.by_hand.report_data import data_of
from fixtures.by_hand.trials import study, trial

from wwopt.report.trial_figures import MAX_AXES, draw_history, draw_parallel, draw_terms
from wwopt.tracking.tracked_trials import TrackedTrial


def traces(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def test_history_shows_every_trial_and_the_best_so_far() -> None:
    trials = [
        trial(0, 3.0),
        trial(1, 1.0, metrics={"guards/traps": 0.5}),  # lower, and refused
        trial(2, 2.0),
        trial(3, 2.5),
        trial(4, 9.0, state="PRUNED"),
        trial(5, state="FAIL"),
        trial(6, state="RUNNING"),
    ]
    found = traces(draw_history(data_of(study(*trials))).figure)
    assert list(found) == ["complete (4)", "pruned (1)", "failed (1)", "best so far"]
    assert list(found["complete (4)"].x) == [0, 1, 2, 3]
    assert list(found["complete (4)"].y) == [3.0, 1.0, 2.0, 2.5]
    assert list(found["best so far"].x) == [0, 2, 3]
    assert list(found["best so far"].y) == [3.0, 2.0, 2.0]
    assert list(found["pruned (1)"].y) == list(found["failed (1)"].y) == [3.0]  # at the edge


def test_terms_add_up_to_the_objective_and_those_of_zero_are_left_out() -> None:
    def made_of(number: int, tail: float, traps: float) -> TrackedTrial:
        terms = {"objective/tail": tail, "objective/traps": traps, "objective/failure": 0.0}
        return trial(number, tail + traps, metrics=terms)

    picture = draw_terms(data_of(study(made_of(0, 1.0, 1.0), made_of(1, -2.0, 0.5))))
    assert picture is not None
    found = traces(picture.figure)
    assert list(found) == ["tail", "traps", "objective"]
    assert list(found["objective"].x) == ["#1", "#0"]  # best first
    assert list(np.add(found["tail"].y, found["traps"].y)) == list(found["objective"].y)
    assert draw_terms(data_of(study(trial(0, 1.0)))) is None


def axes_of(*trials: TrackedTrial) -> dict[str, Any]:
    picture = draw_parallel(data_of(study(*trials)))
    assert picture is not None
    return {axis.label: axis for axis in picture.figure.data[0].dimensions}


def test_an_axis_of_numbers_is_plain_or_logarithmic_and_one_of_words_has_places() -> None:
    rates, sizes, kinds = (0.001, 0.01, 1.0), (16.0, 40.0, 64.0), ("b", "a", "b")
    trials = [
        trial(n, float(n), params={"lr": str(rate), "size": str(size), "kind": kind, "same": "1"})
        for n, (rate, size, kind) in enumerate(zip(rates, sizes, kinds, strict=True))
    ]
    axes = axes_of(*trials)
    assert set(axes) == {"lr", "size", "kind", "objective"}
    # The worst first: the best is drawn last, on top.
    assert list(axes["lr"]["values"]) == pytest.approx([math.log10(rate) for rate in rates[::-1]])
    assert list(axes["lr"].ticktext) == ["0.001", "0.01", "0.1", "1"]
    assert list(axes["size"]["values"]) == list(sizes[::-1])
    assert list(axes["kind"]["values"]) == [1, 0, 1]
    assert list(axes["kind"].ticktext) == ["a", "b"]
    assert list(axes["objective"]["values"]) == [2.0, 1.0, 0.0]


def test_only_what_all_trials_have_is_an_axis_and_not_too_many_are() -> None:
    trials = [
        trial(n, float(n), params={f"p{i:02}": str(n * i) for i in range(1, 30 - n)})
        for n in range(3)
    ]
    assert len(axes_of(*trials)) == MAX_AXES + 1
    lone = [trial(0, 0.0, params={"a": "1"}), trial(1, 1.0, params={"b": "1"})]
    assert draw_parallel(data_of(study(*lone))) is None
    assert draw_parallel(data_of(study(trial(0, 0.0, params={"a": "1"})))) is None
