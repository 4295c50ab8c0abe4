"""What logs through MLflow's fluent API logs into the run that is made active."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from wwopt.tracking import open_study, open_trial
from wwopt.tracking.active_runs import activate


def test_the_fluent_api_logs_into_the_run_and_afterwards_is_as_before(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'mlflow.db'}", name="s", study="u")
    run = open_trial(study, number=0, hyperparameters={"lr/0": 0.1})
    before = mlflow.get_tracking_uri()
    with pytest.raises(RuntimeError, match="out of luck"), activate(run):
        mlflow.log_metric("loss", 0.5, step=3, synchronous=False)
        mlflow.log_param("hidden_size", 64)
        raise RuntimeError("out of luck")
    found = MlflowClient(study.uri).get_run(run.run_id)
    assert found.data.metrics == {"loss": 0.5}
    assert found.data.params == {"lr/0": "0.1", "hidden_size": "64"}
    assert mlflow.active_run() is None and mlflow.get_tracking_uri() == before
    run.close("KILLED", state="PRUNED")  # however MLflow ended it
    assert MlflowClient(study.uri).get_run(run.run_id).info.status == "KILLED"
