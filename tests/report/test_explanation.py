"""The pictures of the best trial: drawn from what its trial computed, without its weights."""

import json
from dataclasses import fields
from pathlib import Path

import optuna
import pandas as pd
import pytest
from fixtures.studies.quick_studies import LAYERS, make_network
from fixtures.studies.recorded_study import Recorded
from mlflow import MlflowClient

import wwopt
from wwopt.metrics import metrics_from_records
from wwopt.report.explanation import attach_pictures, explain_study
from wwopt.report.next_step import explain_next_step
from wwopt.report.page import render_report
from wwopt.spectra import LayerSpectrum
from wwopt.tracking import StudyRun, read_layer_spectra
from wwopt.tracking.tracked_studies import find_runs, read_study
from wwopt.tracking.tracked_trials import TrackedTrial
from wwopt.tracking.views import VIEW_TAG


@pytest.fixture
def trial(tmp_path: Path) -> TrackedTrial:
    """A trial that logged no weights."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = optuna.create_study()
    with wwopt.record(study.ask(), epochs=1, tracking=uri, max_weights=0) as recorder:
        recorder.step(make_network(0, 0.5))
    assert recorder.run_id is not None
    return find_runs(uri, run_id=recorder.run_id)[0]


def test_pictures_need_no_weights(trial: TrackedTrial) -> None:
    assert trial.tags["wwopt.weights"].startswith("not logged")
    assert attach_pictures(trial, most=2) == 3
    (overview, first, second) = [
        Path(file.path).name
        for file in sorted(
            MlflowClient(trial.uri).list_artifacts(trial.run_id, "spectra"),
            key=lambda file: "overview" not in file.path,
        )
    ]
    assert overview == "overview.png" and first.startswith("001-") and second.startswith("002-")


def test_what_was_stored_gives_the_metrics_again_to_the_last_bit(trial: TrackedTrial) -> None:
    records = read_layer_spectra(trial)
    assert records is not None and [record["name"] for record in records] == list(LAYERS)
    again, whole = metrics_from_records(records), wwopt.analyze(make_network(0, 0.5))
    pd.testing.assert_frame_equal(again.to_frame(), whole.to_frame(), check_exact=True)
    assert set(records[0]) == {field.name for field in fields(LayerSpectrum)}


def test_a_finished_study_has_its_report_pictures_and_view_in_mlflow(recorded: Recorded) -> None:
    study = read_study(recorded[1])
    assert study.run_id is not None and study.best is not None
    for _ in range(2):  # again, as resuming does
        explain_study(StudyRun(study.uri, study.experiment_id, study.run_id, ""))
    client = MlflowClient(study.uri)
    assert [a.path for a in client.list_artifacts(study.run_id)] == ["report.html"]
    attached = Path(client.download_artifacts(study.run_id, "report.html")).read_text("utf-8")
    page = render_report(study, recommendation=explain_next_step(study))
    assert 'id="recommendation"' in attached
    assert attached.partition("<footer>")[0] == page.partition("<footer>")[0]  # but for the date
    pictures = {a.path for a in client.list_artifacts(study.best.run_id, "spectra")}
    assert len(pictures) == len(LAYERS) + 1 and "spectra/overview.png" in pictures
    view = json.loads(client.get_experiment(study.experiment_id).tags[VIEW_TAG])
    assert view["name"] == "wwopt" and view["state"].startswith("deflate;")
