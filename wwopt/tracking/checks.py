"""A check of the gate in MLflow: a run, with the layers that broke and the table they come from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wwopt.plain_data import make_plain
from wwopt.tracking.artifacts import log_layer_table
from wwopt.tracking.keys import KIND_TAG, NOTE_TAG, PASSED_TAG
from wwopt.tracking.runs import TrialRun, log_params, open_run
from wwopt.tracking.store import connect, explained, reach
from wwopt.tracking.studies import open_experiment

EXPERIMENT = "wwopt check"
CHECK_KIND = "check"
DOCUMENT = "check.json"  # artifact: all that the check measured


@dataclass(frozen=True)
class LoggedCheck:
    """What is logged of one check; the weights stay where they are."""

    name: str  # of the run
    passed: bool
    note: str  # Markdown; the description of the run
    params: Mapping[str, Any]  # both sides and the thresholds
    metrics: Mapping[str, float]
    layers: pd.DataFrame  # of the side that was judged, as `ModelMetrics.to_frame`
    document: Mapping[str, Any]  # plain data


def log_check(uri: str, check: LoggedCheck) -> str:
    """Log a check as a run of the experiment "wwopt check".

    Returns:
        The run's id.

    Raises:
        TrackingError: if the store cannot be reached or does not accept it.
    """
    reach(uri)
    with explained(uri):
        client = connect(uri)
        experiment = open_experiment(client, uri, EXPERIMENT)
        run = open_run(uri, experiment, check.name, {KIND_TAG: CHECK_KIND})
        write_check(run, check, step=0)
        client.set_terminated(run.run_id, "FINISHED")
    return run.run_id


def write_check(run: TrialRun, check: LoggedCheck, *, step: int) -> None:
    """Log a check to a run that is open."""
    run.tag({NOTE_TAG: check.note, PASSED_TAG: str(check.passed).lower()})
    log_params(run.uri, run.run_id, check.params)
    run.log(check.metrics, step=step)
    log_layer_table(run, check.layers)
    run.log_text(json.dumps(make_plain(dict(check.document)), indent=1), DOCUMENT)
