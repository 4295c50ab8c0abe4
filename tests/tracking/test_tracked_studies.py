"""Reading studies back from MLflow: what wwopt wrote, what it did not, and what is not there."""

import math
from pathlib import Path

import pytest
from fixtures.studies.quick_studies import LAYERS, LONG
from fixtures.studies.recorded_study import Recorded
from mlflow import MlflowClient
from optuna.trial import TrialState

import wwopt
from wwopt import TrackingError
from wwopt.tracking import open_study, tracked_studies
from wwopt.tracking.artifacts import read_layer_table, read_spectra
from wwopt.tracking.keys import LAYER_ALPHA, unique_keys
from wwopt.tracking.models import download_weights, find_models
from wwopt.tracking.tracked_studies import TrackedStudy, find_runs, read_study


def test_the_study_is_what_optuna_has(recorded: Recorded, tracked: TrackedStudy) -> None:
    study, _ = recorded
    assert tracked.name == "härte/1"
    assert [t.number for t in tracked.trials] == list(range(14))
    for ours, theirs in zip(tracked.trials, study.trials, strict=True):
        assert ours.state == theirs.state.name
        assert ours.run_id == theirs.user_attrs["mlflow_run_id"]
        if theirs.state != TrialState.FAIL:
            assert ours.value == pytest.approx(theirs.value)
            assert ours.status == theirs.user_attrs["status"]
        own = theirs.user_attrs["hyperparameters"]
        keys = unique_keys(own)
        assert {k: float(ours.params[k]) for k in keys} == dict(
            zip(keys, own.values(), strict=True)
        )
        assert ours.duration >= 0.0
    assert tracked.best is not None and tracked.best.number == study.best_trial.number


def test_it_is_read_page_by_page(
    recorded: Recorded, tracked: TrackedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracked_studies, "PAGE", 3)
    assert read_study(recorded[1]) == tracked


def test_a_trials_run_and_the_studys_run_lead_to_the_study(
    recorded: Recorded, tracked: TrackedStudy
) -> None:
    uri = recorded[1]
    assert read_study(uri, run_id=tracked.trials[3].run_id) == tracked
    assert read_study(uri, run_id=tracked.run_id) == tracked
    assert read_study(uri, "härte/1") == tracked


def test_difficult_names_stay_apart_and_only_counted_layers_have_an_alpha(
    tracked: TrackedStudy,
) -> None:
    keys = [k for k in tracked[0].metrics if k.startswith(f"{LAYER_ALPHA}/")]
    assert sorted(keys) == sorted(unique_keys(f"{LAYER_ALPHA}/{name}" for name in LAYERS[:2]))
    assert all(len(key) <= 250 for key in keys)


def test_a_failed_trial_keeps_its_reason_without_the_password(
    recorded: Recorded, tracked: TrackedStudy
) -> None:
    assert tracked[4].tags["wwopt.error"] == "RuntimeError: postgresql://me:***@db/x is down"
    client = MlflowClient(recorded[1])
    text = Path(client.download_artifacts(tracked[4].run_id, "error.txt")).read_text()
    assert "me:***@db" in text and "s3cret" not in text


def test_a_pruned_trial_keeps_no_better_value_than_the_penalty(tracked: TrackedStudy) -> None:
    assert tracked[5].state == "PRUNED" and tracked[5].status == "training loss is nan"
    assert tracked[5].value == wwopt.SpectralObjective().penalty


def test_the_best_trial_is_mirrored_without_any_further_call(
    recorded: Recorded, tracked: TrackedStudy
) -> None:
    best = tracked.best
    assert best is not None
    assert tracked.tags["wwopt.best_run"] == best.run_id
    assert tracked.metrics["best/objective.value"] == best.value
    assert f"**Best: trial {best.number}.**" in tracked.tags["mlflow.note.content"]
    assert LAYERS[0] in best.tags["mlflow.note.content"]
    assert not any(LONG[:50] in key for key in tracked.metrics)


def test_runs_of_others_are_trials_in_order_of_time(foreign: str, tmp_path: Path) -> None:
    study = read_study(foreign)
    assert study.run_id is None and study.name == "theirs"
    assert [(t.number, t.state) for t in study.trials] == [
        (0, "COMPLETE"),
        (1, "PRUNED"),
        (2, "FAIL"),
    ]
    assert [t.metrics["loss"] for t in study.trials] == [0.0, math.inf, 2.0]
    assert study.trials[0].duration == 0.5
    assert study.best is None and study.judged == ()
    assert read_layer_table(study[2]) is None and read_spectra(study[2]) is None
    path = download_weights(study[2], tmp_path)
    assert path is not None and path.read_bytes() == b"weights"
    assert download_weights(study[0], tmp_path) is None


def test_runs_are_found_by_their_ids(recorded: Recorded, tracked: TrackedStudy) -> None:
    uri = recorded[1]
    assert find_runs(uri, run_id=tracked[2].run_id)[0].metrics == tracked[2].metrics
    assert find_runs(uri, run_id=tracked.run_id) == tracked.trials
    assert find_runs(uri, experiment="härte/1") == tracked.trials
    model = find_models(tracked[2])[0]
    found = find_runs(uri, model_id=model)[0]
    assert (found.run_id, found.model_id) == (tracked[2].run_id, model)
    with pytest.raises(ValueError, match="exactly one of"):
        find_runs(uri)


def test_a_logged_model_without_a_run_is_found(foreign: str) -> None:
    client = MlflowClient(foreign)
    experiment = client.get_experiment_by_name("theirs")
    assert experiment is not None
    model = client.create_logged_model(experiment.experiment_id, name="lone", params={"a": "1"})
    found = find_runs(foreign, model_id=model.model_id)[0]
    assert (found.run_id, found.name, found.params) == ("", "lone", {"a": "1"})
    assert read_layer_table(found) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "nope"}, "has no study 'nope'; its studies are härte/1"),
        ({"run_id": "0" * 32}, "not found"),
    ],
)
def test_what_is_not_there_is_said(recorded: Recorded, options: dict, message: str) -> None:
    with pytest.raises(TrackingError, match=message):
        read_study(recorded[1], **options)


def test_the_latest_study_is_the_one_that_was_last_active(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    for name, end in (("first", 3000), ("second", 2000)):
        run = open_study(uri, name=name, study=name)
        client.set_terminated(run.run_id, end_time=end)
    assert read_study(uri).name == "first"


def test_an_unknown_trial_is_said(tracked: TrackedStudy) -> None:
    with pytest.raises(KeyError, match="has no trial 99; it has 0, 1, 2"):
        tracked[99]
