"""A store that wwopt did not write."""

import math

import pytest
from mlflow import MlflowClient


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with an experiment that wwopt did not write: three runs, one with infinity."""
    folder = tmp_path_factory.mktemp("foreign")
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment("theirs", artifact_location=(folder / "a").as_uri())
    for number, status in enumerate(("FINISHED", "KILLED", "FAILED")):
        run = client.create_run(experiment, start_time=1000 * (number + 1)).info.run_id
        client.log_metric(run, "loss", math.inf if number == 1 else float(number))
        client.log_param(run, "rate", 0.1 * number)
        client.set_terminated(run, status, end_time=1000 * (number + 1) + 500)
    path = folder / "best.pt"
    path.write_bytes(b"weights")
    client.log_artifact(run, str(path), "checkpoints")
    return f"sqlite:///{folder / 'mlflow.db'}"
