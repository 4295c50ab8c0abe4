"""Compressed variants in MLflow: under a trial, or under a run that stands for their source."""

from pathlib import Path

import pandas as pd
import pytest
from fixtures.machines.stores import StoreIn
from fixtures.studies.recorded_study import Recorded
from mlflow import MlflowClient

from wwopt.tracking.compressions import (
    DOCUMENT,
    EXPERIMENT,
    TABLE,
    LoggedCompression,
    log_compression,
    read_variants,
)
from wwopt.tracking.keys import PARENT_TAG, PASSED_TAG
from wwopt.tracking.store import TrackingError
from wwopt.tracking.tracked_studies import find_runs, read_study

VARIANT = LoggedCompression(
    name="4 bits",
    passed=False,
    note="a table",
    params={"bits": 4.0, "keep": "none"},
    metrics={"bytes": 1234.0, "bytes_before": 9000.0, "noise": 0.1, "ks": float("nan")},
    quality={"accuracy": 0.9, "train_loss": 0.2},
    layers=pd.DataFrame({"layer": ["fc"], "bits": [4.0]}),
    document={"passed": False},
)


def test_variants_of_one_source_have_one_parent(tmp_path: Path, store_in: StoreIn) -> None:
    uri = store_in(tmp_path)
    client = MlflowClient(uri)
    runs = [
        client.get_run(log_compression(uri, VARIANT, source=source))
        for source in ("/models/it's.pt", "/models/it's.pt", "/models/other.pt")
    ]
    parents = [run.data.tags[PARENT_TAG] for run in runs]
    assert parents[0] == parents[1] != parents[2]
    assert client.get_run(parents[0]).info.run_name == "it's.pt"
    experiment = client.get_experiment(runs[0].info.experiment_id)
    assert experiment.name == EXPERIMENT
    assert runs[0].data.metrics == {
        "compression/bytes": 1234.0,
        "compression/bytes_before": 9000.0,
        "compression/noise": 0.1,
        "metrics/accuracy": 0.9,
        "train/loss": 0.2,
    }
    assert runs[0].data.tags[PASSED_TAG] == "false" and runs[0].info.status == "FINISHED"
    names = {file.path for file in client.list_artifacts(runs[0].info.run_id)}
    assert names == {DOCUMENT, TABLE}


def test_a_variant_of_a_trial_is_found_with_its_study_and_is_no_trial(recorded: Recorded) -> None:
    uri = recorded[1]
    study = read_study(uri)
    number = len(study.trials)
    run = log_compression(uri, VARIANT, trial=study[3])
    try:
        again = read_study(uri)
        assert len(again.trials) == number
        (found,) = read_variants(again)
        assert (found.trial, found.run_id, found.bytes) == (3, run, 1234.0)
        assert found.name == VARIANT.name and not found.passed
        assert len(find_runs(uri, run_id=run)) == 1
    finally:
        MlflowClient(uri).delete_run(run)  # others read this study
    assert read_variants(study) == []


def test_a_server_that_nobody_answers_for_is_one_line() -> None:
    with pytest.raises(TrackingError, match="cannot be reached"):
        log_compression("http://127.0.0.1:9", VARIANT, source="x")
