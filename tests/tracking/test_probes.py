"""Probes in MLflow: child runs beside the trials, read back by what they probed, oldest first."""

from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

from wwopt.tracking import StudyRun, open_study, open_trial, read_study
from wwopt.tracking.probes import log_probe, read_probes


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    uri = f"sqlite:///{tmp_path_factory.mktemp('probes') / 'mlflow.db'}"
    return open_study(uri, name="s", study="u")


@pytest.fixture(scope="module")
def log(study: StudyRun) -> Callable[..., None]:
    """Return a function: document → the probe is logged."""

    def log(document: dict[str, Any], **changes: Any) -> None:
        given: dict[str, Any] = {
            "name": "data ×0.5",
            "configuration": "c",
            "seconds": 3.0,
            "hyperparameters": {"probe/factor": 0.5},
            "metrics": {"metrics/error": 0.25, "probe/score": float("nan")},
            "failed": False,
        }
        place = (study.uri, study.experiment_id, study.run_id)
        log_probe(*place, document=document, **(given | changes))

    return log


def test_documents_come_back_whole_and_in_order_for_their_configuration(
    study: StudyRun, log: Callable[..., None]
) -> None:
    documents = [{"number": n, "nested": {"größe": [1.5, None]}} for n in range(3)]
    for document in documents:
        log(document, configuration="mine", failed=document["number"] == 1)
    log({"number": 9}, configuration="another")
    place = (study.uri, study.experiment_id, study.run_id)
    assert read_probes(*place, "mine") == documents  # the one that failed among them
    assert read_probes(*place, "nobody") == []
    assert read_probes(study.uri, study.experiment_id, "another study", "mine") == []


def test_a_probe_is_a_run_with_its_numbers_and_its_time(
    study: StudyRun, log: Callable[..., None]
) -> None:
    log({}, name="lone", configuration="lone", seconds=3.0, failed=True)
    query = "tags.`wwopt.configuration` = 'lone'"
    (run,) = MlflowClient(study.uri).search_runs([study.experiment_id], query)
    assert (run.info.run_name, run.info.status) == ("lone", "FAILED")
    assert run.data.tags["mlflow.parentRunId"] == study.run_id
    assert run.data.metrics == {"metrics/error": 0.25}  # what is no number is on no chart
    assert run.data.params == {"probe/factor": "0.5"}
    assert run.info.end_time - run.info.start_time >= 3000


def test_a_probe_is_no_trial_and_an_unfinished_one_is_not_read(
    study: StudyRun, log: Callable[..., None]
) -> None:
    log({"number": 0}, configuration="apart")
    trial = open_trial(study, number=0, hyperparameters={})
    assert [t.run_id for t in read_study(study.uri, "s").trials] == [trial.run_id]
    client = MlflowClient(study.uri)
    (run,) = client.search_runs([study.experiment_id], "tags.`wwopt.configuration` = 'apart'")
    client.update_run(run.info.run_id, "RUNNING")
    place = (study.uri, study.experiment_id, study.run_id)
    assert read_probes(*place, "apart") == []
