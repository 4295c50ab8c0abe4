"""A study is tuned into real stores, resumed as if never stopped, and mirrored in MLflow."""

from pathlib import Path

import optuna
import pytest
import torch
from fixtures.studies.tuned_folders import runs_of, values_of
from mlflow import MlflowClient
from optuna.trial import TrialState

import wwopt
from wwopt.report import write_report
from wwopt.study.textbook import TEXTBOOK_ATTR
from wwopt.tracking import TRIAL_TAG, open_trial, read_study
from wwopt.tuning.text import summarize
from wwopt.tuning.tuning import tune


def test_resuming_gives_the_numbers_of_a_run_without_interruption(
    study_file: str, tmp_path: Path
) -> None:
    whole = tune(study_file, trials=14, out=tmp_path / "whole", seed=3, progress=False)
    for trials in (4, 11, 14):
        parts = tune(study_file, trials=trials, out=tmp_path / "parts", seed=3, progress=False)
    assert values_of(parts.study) == values_of(whole.study)
    assert [t.params for t in parts.study.trials] == [t.params for t in whole.study.trials]
    other = tune(study_file, trials=2, out=tmp_path / "other", seed=4, progress=False)
    assert values_of(other.study) != values_of(whole.study)[:2]


def test_the_first_trial_is_the_textbook_configuration(study_file: str, tmp_path: Path) -> None:
    result = tune(study_file, trials=2, out=tmp_path, progress=False)
    first, second = result.study.trials
    usual = {"lr": 0.01, "dropout": 0.1, "momentum": 0.9}
    assert first.params == {name: usual[name.split("/")[0]] for name in first.params}
    assert first.user_attrs["hyperparameters"] == first.params
    assert (TEXTBOOK_ATTR in first.user_attrs, TEXTBOOK_ATTR in second.user_attrs) == (True, False)
    assert result.best_trial is not None
    tags = [run.tags for run in read_study(result.run.uri).trials]
    assert [tag.get(TEXTBOOK_ATTR) for tag in tags] == ["true", None]
    assert "the textbook configuration, trial 0" in summarize(result)


def test_the_parent_run_mirrors_the_best_trial_and_holds_the_settings(
    study_file: str, tmp_path: Path
) -> None:
    result = tune(study_file, trials=3, out=tmp_path, progress=False)
    assert result.best_trial is not None
    parent = MlflowClient(result.run.uri).get_run(result.run.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["wwopt.best_trial"] == str(result.best_trial.number)
    assert parent.data.metrics["best/objective.value"] == pytest.approx(result.best_trial.value)
    assert {"storage", "seed", "jobs", "space", "objective", "conditions"} <= set(
        parent.data.params
    )


def test_the_run_of_a_trial_that_ended_without_it_is_closed(
    study_file: str, tmp_path: Path
) -> None:
    first = tune(study_file, trials=1, out=tmp_path / "out", progress=False, explain=False)
    url = f"sqlite:///{tmp_path / 'out' / 'optuna.db'}"
    study = optuna.load_study(study_name="tiny", storage=url)
    dead = study.ask()  # its process dies here, and Optuna finds out
    open_trial(first.run, number=dead.number, hyperparameters={})
    study.tell(dead.number, state=TrialState.FAIL)
    tune(study_file, trials=2, out=tmp_path / "out", progress=False, explain=False)
    (run,) = runs_of(tmp_path / "out", "tags.`wwopt.orphan` = 'true'")
    assert run.info.status == "FAILED" and run.data.tags[TRIAL_TAG] == str(dead.number)


@pytest.mark.integration
def test_a_real_mlflow_server(study_file: str, tmp_path: Path, mlflow_server: str) -> None:
    result = tune(study_file, trials=2, out=tmp_path, tracking=mlflow_server, progress=False)
    assert not (tmp_path / "mlflow.db").exists()
    client = MlflowClient(mlflow_server)
    runs = client.search_runs([result.run.experiment_id])
    assert sorted(r.info.status for r in runs) == ["FINISHED"] * 3
    trial = next(r for r in runs if r.data.tags.get(TRIAL_TAG) == "0")
    assert "layers.json" in {a.path for a in client.list_artifacts(trial.info.run_id)}


def test_under_memorised_labels_the_textbook_configuration_is_kept_everywhere(
    tmp_path: Path,
) -> None:
    def train(
        hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
    ) -> None:
        assert isinstance(recorder, wwopt.Recorder)
        number = recorder.trial.number
        slows, goes_on = (2.3, 1.3, 1.1, 1.1, 1.0, 1.0, 1.0, 1.0), (0.9, 0.8, 0.7, 0.6)
        losses = [*slows[:4], *goes_on] if 0 < number < 6 else slows
        model = hp.apply_dropout(make())
        for loss in losses:
            recorder.step(model, train_loss=loss - 0.1 * (number == 6))

    def make() -> torch.nn.Sequential:
        parts = torch.nn.Linear(64, 80), torch.nn.Dropout(), torch.nn.Linear(80, 10)
        return torch.nn.Sequential(*parts)

    ranges = {"lr": (0.001, 1.0), "dropout": (0.0, 0.5), "momentum": (0.0, 0.9)}
    space = wwopt.LayerSpace.from_model(make(), **ranges)
    spec = wwopt.StudySpec("wrong", train, space, conditions=wwopt.Conditions(seed=0, epochs=8))
    result = tune(spec, trials=7, out=tmp_path, progress=False)
    signs = [t.user_attrs["constraints"]["memorising"] > 0.0 for t in result.complete_trials]
    assert signs == [False, *[True] * 5, False]
    assert result.best_trial is not None and result.best_trial.number == 0
    assert "it is kept, since those that fit the labels best memorise them" in summarize(result)
    tracked = read_study(result.run.uri)
    assert tracked.best is not None and tracked.best.number == 0
    assert tracked.kept is tracked.best and tracked.judged[-2].number == 6
    write_report(tracked, tmp_path / "page.html")
    assert "the textbook configuration, is kept" in (tmp_path / "page.html").read_text()
