"""What is logged to a run is what charts can show."""

import math
from pathlib import Path

from mlflow import MlflowClient

from wwopt.tracking import (
    open_study,
    open_trial,
)


def test_infinity_and_nan_never_reach_a_chart(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'mlflow.db'}", name="s", study="u")
    run = open_trial(study, number=0, hyperparameters={})
    run.log({"a/x": math.inf, "a/y": math.nan, "a/z": 1.0}, step=1)
    assert MlflowClient(study.uri).get_run(run.run_id).data.metrics == {"a/z": 1.0}
