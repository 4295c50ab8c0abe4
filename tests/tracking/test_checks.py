"""A check in MLflow: one run, its parameters cut where MLflow would refuse them."""

from pathlib import Path

import pandas as pd
import pytest
from fixtures.machines.stores import StoreIn
from mlflow import MlflowClient

from wwopt.tracking import LoggedCheck, TrackingError, log_check
from wwopt.tracking.checks import DOCUMENT
from wwopt.tracking.keys import KIND_TAG, PASSED_TAG

CHECK = LoggedCheck(
    name="week 7",
    passed=True,
    note="**fine**",
    params={"before": "x" * 7000, "max_scale": 1.18},
    metrics={"gate/passed": 1.0, "change/ks": float("nan")},
    layers=pd.DataFrame({"longname": ["fc"], "alpha": [2.5]}),
    document={"passed": True},
)


def test_a_check_is_a_finished_run(tmp_path: Path, store_in: StoreIn) -> None:
    uri = store_in(tmp_path)
    run = MlflowClient(uri).get_run(log_check(uri, CHECK))
    assert (run.info.run_name, run.info.status) == ("week 7", "FINISHED")
    assert run.data.tags[KIND_TAG] == "check" and run.data.tags[PASSED_TAG] == "true"
    assert run.data.metrics == {"gate/passed": 1.0}
    assert len(run.data.params["before"]) == 6000
    names = {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)}
    assert names == {DOCUMENT, "layers.json"}


def test_a_server_that_nobody_answers_for_is_one_line() -> None:
    with pytest.raises(TrackingError, match="cannot be reached"):
        log_check("http://127.0.0.1:9", CHECK)
