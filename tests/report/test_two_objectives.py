"""The front of two objectives: by hand, against Optuna's own, and as it is drawn and told."""

import numpy as np
import optuna
from fixtures.by_hand.report_data import data_of
from fixtures.by_hand.trials import study, trial

from wwopt.report.text import format_leaderboard
from wwopt.report.trial_figures import draw_terms
from wwopt.report.two_objectives import draw_objectives, find_front
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial

TWO = {"second": "bytes"}


def point(number: int, value: float, cost: float, **metrics: float) -> TrackedTrial:
    return trial(number, value, metrics={"objective/bytes": cost, **metrics})


def made(*trials: TrackedTrial) -> TrackedStudy:
    return study(*trials, params=TWO)


def test_a_front_by_hand() -> None:
    refused = point(4, 0.0, 1.0, **{"guards/traps": 0.5})
    found = made(point(0, 3.0, 10.0), point(1, 1.0, 30.0), point(2, 2.0, 40.0), refused)
    assert [t.number for t in find_front(found)] == [1, 0]
    assert find_front(study(point(0, 3.0, 10.0))) == ()  # of one objective
    assert find_front(study(point(0, 3.0, 10.0), params={"second": "null"})) == ()
    assert find_front(made(trial(0, 1.0))) == ()  # without the second value


def test_it_is_optunas() -> None:
    rng = np.random.default_rng(0)
    points = rng.integers(0, 12, size=(60, 2)).astype(float)  # with ties
    theirs = optuna.create_study(directions=["minimize", "minimize"])
    for values in points:
        theirs.add_trial(optuna.trial.create_trial(values=list(values)))
    ours = find_front(made(*(point(n, *values) for n, values in enumerate(points))))
    assert {t.number for t in ours} == {t.number for t in theirs.best_trials}


def test_it_is_drawn_and_told_and_is_no_term_of_the_score() -> None:
    found = made(
        point(0, 3.0, 10.0, **{"objective/tail": 3.0}),
        point(1, 1.0, 30.0, **{"objective/tail": 1.0}),
        point(2, 2.0, 40.0, **{"objective/tail": 2.0}),
    )
    picture = draw_objectives(data_of(found))
    assert picture is not None and "the front is trials 1, 0" in picture.alt
    traces = {trace.name: trace for trace in picture.figure.data}
    assert list(traces) == ["complete (3)", "front (2)"]
    assert list(traces["front (2)"].x) == [10.0, 30.0]
    assert list(traces["front (2)"].y) == [3.0, 1.0]
    assert traces["front (2)"].line.shape == "hv"  # at a cost between two the cheaper one's value
    assert picture.figure.layout.xaxis.title.text == "bytes"

    terms = draw_terms(data_of(found))
    assert terms is not None
    assert [trace.name for trace in terms.figure.data] == ["tail", "objective"]
    told = format_leaderboard(found, top=0, width=80)
    assert told.endswith("No other trial beats these in both objective and bytes: 1, 0.")
    assert draw_objectives(data_of(study(trial(0, 1.0)))) is None
