"""The end of a study in words: its best trial, front or sizes, and where to look further."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from fixtures.networks.sizes import make_space
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

import wwopt
from wwopt.study.guides import FIRST_STEP, GUIDE_ATTR
from wwopt.tracking import StudyRun
from wwopt.tuning.text import summarize
from wwopt.tuning.tuning import StudyResult

CONDITIONS = wwopt.Conditions(seed=0, epochs=8)
SERVER = StudyRun("http://me:s3cret@host:5000", "7", "parent", "uuid")


def result_of(
    *trials: FrozenTrial, run: StudyRun = SERVER, out: Path = Path("out"), **options: Any
) -> StudyResult:
    spec = wwopt.StudySpec("mine", print, make_space(CONDITIONS), conditions=CONDITIONS, **options)
    study = optuna.create_study(directions=spec.directions)
    study.add_trials(trials)
    return StudyResult(spec, study, run, "postgresql://me:***@db/x", out)


def trial(*values: float, **attributes: Any) -> FrozenTrial:
    return create_trial(values=list(values), user_attrs=attributes)


def test_trials_are_counted_by_what_became_of_them() -> None:
    failed = create_trial(state=TrialState.FAIL)
    text = summarize(result_of(failed, create_trial(state=TrialState.PRUNED), failed))
    assert "Study mine: 3 trials (1 pruned, 2 failed)." in text
    assert "No trial was completed, so there is no best one." in text


def test_the_best_trial_is_said_with_what_it_is_made_of_and_a_row_a_layer() -> None:
    layer = {"alpha": 2.5, "sigma": 0.125, "D": 0.0625, "traps": 1.0, "status": "ok"}
    best = trial(
        0.75,
        terms={"tail": 1.0, "traps": -0.25, "failure": 0.0},
        metrics={"train_loss": 0.5, "accuracy": 0.9},
        hyperparameters={"lr/fc": 0.01, "batch_size": 64},
        layers={"fc": layer, "head": layer | {"alpha": None, "sigma": None}},
    )
    lines = summarize(result_of(trial(2.0), best, metric="accuracy")).splitlines()
    at = lines.index("Best: trial 1, objective 0.7500 (tail +1.000, traps -0.250; lower is better)")
    assert lines[at + 1].strip() == (
        "train_loss 0.5, accuracy 0.9  (accuracy was not seen by the objective)"
    )
    assert lines[at + 3].split() == ["lr", "alpha", "D", "traps", "status"]
    assert lines[at + 4].split() == ["fc", "0.01", "2.50", "±", "0.12", "0.062", "1", "ok"]
    assert lines[at + 5].split() == ["head", "–", "–", "0.062", "1", "ok"]


def scored(number: float, weights: float, loss: float, **attributes: Any) -> FrozenTrial:
    scores = {"validation-free": number, "weights-only": weights, "training loss": loss}
    return trial(number, guide="validation-free", scores=scores, **attributes)


def test_it_says_which_score_guided_and_what_the_others_would_have_chosen() -> None:
    refused = {"constraints": {"guards/traps": 1.0}}
    result = result_of(
        scored(-1.0, 0.5, 0.3), scored(-2.0, 0.4, 0.2), scored(-0.5, -0.5, 0.2),
        scored(-3.0, -3.0, 0.1, **refused),
    )  # fmt: skip
    text = summarize(result)
    assert "Guided by validation-free, which reads the weights and the training loss.\n" in text
    assert "Others would have chosen: training loss the same, weights-only trial 2.\n" in text
    result.study.set_user_attr(GUIDE_ATTR, FIRST_STEP)
    assert "the weights and the training loss, since one is logged." in summarize(result)


TEXTBOOK: dict[str, Any] = {"wwopt.textbook": True}


def test_it_says_whether_the_choice_beats_the_textbook_and_by_what() -> None:
    worse = scored(1.0, -2.0, 0.5, **TEXTBOOK)
    assert (
        "It beats the textbook configuration, trial 0, by validation-free (-1, not 1), training "
        "loss (0.25, not 0.5); not by weights-only (-1, not -2)."
    ) in " ".join(summarize(result_of(worse, scored(-1.0, -1.0, 0.25))).split())
    seen = [{"metrics": {"accuracy": value}} for value in (0.75, 0.875)]
    shown = result_of(
        scored(1.0, -2.0, 0.5, **TEXTBOOK, **seen[0]),
        scored(-1.0, -1.0, 0.25, **seen[1]),
        metric="accuracy",
    )
    assert "\n      accuracy: 0.875, not 0.75.\n" in summarize(shown)
    best = summarize(result_of(scored(-3.0, -1.0, 0.5, **TEXTBOOK), scored(-1.0, -1.0, 0.25)))
    assert "It is the textbook configuration, trial 0: no other trial beats it." in best


def test_it_says_that_labels_are_memorised_and_what_is_kept() -> None:
    guards = {"constraints": {"memorising": 0.2}}
    said = summarize(result_of(trial(1.0, **TEXTBOOK, **guards), trial(-1.0, **guards)))
    assert "Guards refuse 2 of 2 complete trials (memorising 2)." in said
    assert "labels are memorised" in said and "memorising=math.inf" in said
    assert "trial 0: it is kept, since all trials memorise their labels." in said
    losses = [{"metrics": {"train_loss": 0.1 * k}} for k in range(7)]
    fitting = [trial(-1.0 - k, **guards, **losses[k]) for k in range(5)]
    others = [trial(1.0, **TEXTBOOK, **losses[5]), trial(0.5, **losses[6])]
    said = summarize(result_of(*fitting, *others))
    assert "Best: trial 5, objective 1.0000" in said
    assert "Of the others trial 6 has the lowest objective, 0.5000." in said
    memorised = [trial(1.0, **TEXTBOOK, **guards), trial(2.0)]
    assert "It does not memorise its labels, as the" in summarize(result_of(*memorised))


def test_it_says_where_there_is_no_textbook_to_compare_with() -> None:
    ours = scored(-1.0, -1.0, 0.25)
    pruned = create_trial(state=TrialState.PRUNED, user_attrs=TEXTBOOK | {"status": "loss is nan"})
    assert "trial 0, did not end well (loss is nan)." in summarize(result_of(pruned, ours))
    refused = scored(1.0, -2.0, 0.5, constraints={"guards/traps": 1.0}, **TEXTBOOK)
    assert "did not end well (guards refuse it)." in summarize(result_of(refused, ours))
    assert "textbook" not in summarize(result_of(ours))  # begun with wwopt 0.1.0


def test_it_warns_of_a_search_that_had_nothing_but_the_weights() -> None:
    result = result_of(trial(-1.0, guide="weights-only", scores={"weights-only": -1.0}))
    assert "Guided by weights-only, which reads the weights alone." in summarize(result)
    result.study.set_user_attr(GUIDE_ATTR, FIRST_STEP)
    text = summarize(result)
    assert "the weights alone: no training loss was logged. A search that minimises it" in text


def test_guards_that_refuse_are_counted_and_without_a_feasible_trial_the_nearest_is_named() -> None:
    refused = (
        trial(1.0, constraints={"traps": 0.5, "train_loss": 0.25}),
        trial(3.0, constraints={"traps": 0.5, "train_loss": -1.0}),
    )
    text = summarize(result_of(*refused))
    assert "Guards refuse 2 of 2 complete trials (train_loss 1, traps 2)." in text
    assert "the least infeasible is trial 1, beyond its limits by 0.50 (traps +0.50;" in text
    assert "objective 3.0000." in text and "Best:" not in text
    some = summarize(result_of(*refused, trial(5.0)))
    assert "Guards refuse 2 of 3 complete trials" in some and "Best: trial 2" in some


def test_of_two_objectives_the_front_is_told_lowest_objective_first() -> None:
    points = ((2.0, 100.0), (1.0, 200.0), (3.0, 300.0))
    text = summarize(result_of(*(trial(*point) for point in points), second="size"))
    assert "Front: 2 of 3 complete trials" in text
    rows = [line.split() for line in text.splitlines()]
    at = rows.index(["trial", "objective", "size"])
    assert rows[at + 1 : at + 3] == [["1", "1.0000", "200"], ["0", "2.0000", "100"]]


def test_of_several_sizes_there_is_a_best_of_each_and_none_of_all() -> None:
    choices = CategoricalDistribution((1.0, 2.0))
    trials = [
        create_trial(
            value=value,
            params={"width": width},
            distributions={"width": choices},
            user_attrs={"metrics": {"train_loss": value / 2}},
        )
        for value, width in ((4.0, 2.0), (2.0, 1.0), (3.0, 2.0))
    ]
    text = summarize(result_of(*trials))
    rows = [line.split() for line in text.splitlines()]
    at = rows.index(["width", "trial", "objective", "train_loss"])
    assert rows[at + 1 : at + 3] == [["1", "1", "2.0000", "1"], ["2", "2", "3.0000", "1.5"]]
    assert "Best:" not in text and "scores of different sizes do not compare" in text


def test_a_server_is_looked_at_without_its_password() -> None:
    lines = summarize(result_of(trial(1.0))).splitlines()
    assert "Optuna: postgresql://me:***@db/x" in lines
    assert "MLflow: http://me:***@host:5000" in lines
    (link,) = [line for line in lines if line.startswith("and open")]
    assert "http://me:***@host:5000/#/experiments/7/runs" in link
    assert lines[-1] == "Explain it with: wwopt report mine --tracking-uri http://me:***@host:5000"


def test_a_folder_is_looked_at_with_mlflows_own_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'my runs' / 'mlflow.db'}"
    out = Path("my runs")
    text = summarize(result_of(trial(1.0), run=StudyRun(uri, "7", "r", "u"), out=out))
    assert f"mlflow ui --backend-store-uri '{uri}'" in text
    assert "http://127.0.0.1:5000/#/experiments/7/runs" in text
    assert text.endswith("Explain it with: wwopt report 'my runs'")
