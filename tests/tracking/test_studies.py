"""A study's experiment and parent run are opened once, and found again."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from wwopt.tracking import (
    open_study,
    open_trial,
)


def test_opening_again_finds_the_same_runs(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = open_study(uri, name="s", study="uuid", settings={"seed": 0})
    trial = open_trial(study, number=3, hyperparameters={"lr/fc": 0.1})
    assert open_study(uri, name="s", study="uuid") == study
    assert open_trial(study, number=3, hyperparameters={"lr/fc": 0.1}) == trial
    assert open_study(uri, name="s", study="another") != study
    runs = MlflowClient(uri).search_runs([study.experiment_id])
    assert len(runs) == 3


def test_a_deleted_experiment_is_said(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = open_study(uri, name="gone", study="u")
    MlflowClient(uri).delete_experiment(study.experiment_id)
    with pytest.raises(ValueError, match="experiment 'gone' was deleted"):
        open_study(uri, name="gone", study="v")
