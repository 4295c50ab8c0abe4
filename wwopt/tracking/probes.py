"""Probes in MLflow: child runs of a study, apart from its trials; what each gave is JSON."""

import json
import time
from collections.abc import Mapping
from typing import Any

from wwopt.tracking.keys import KIND_TAG, PARENT_TAG, PROBE_KIND, STATE_TAG
from wwopt.tracking.runs import log_params, open_run
from wwopt.tracking.store import connect, download, explained

DOCUMENT = "probe.json"  # artifact
CONFIGURATION_TAG = "wwopt.configuration"  # digest of what was probed


def log_probe(
    uri: str,
    experiment_id: str,
    parent: str,
    *,
    name: str,
    configuration: str,
    seconds: float,
    hyperparameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    document: Mapping[str, Any],
    failed: bool,
) -> None:
    """Log a finished probe; one that was interrupted leaves nothing.

    Args:
        uri: of the tracking store.
        experiment_id: of the study.
        parent: run of the study.
        name: of the probe.
        configuration: digest of what was probed.
        seconds: that it took.
        hyperparameters: of the training.
        metrics: as charts show them.
        document: all of it, as JSON knows it.
        failed: whether it gave no value.

    Raises:
        TrackingError: if the store does not accept the run.
    """
    with explained(uri):
        client = connect(uri)
        tags = {
            PARENT_TAG: parent,
            KIND_TAG: PROBE_KIND,
            CONFIGURATION_TAG: configuration,
            STATE_TAG: "FAIL" if failed else "COMPLETE",
        }
        begun = int(1000 * (time.time() - seconds))
        logged = open_run(uri, experiment_id, name, tags, begun=begun)
        log_params(uri, logged.run_id, hyperparameters)
        logged.log(metrics, step=0)
        logged.log_text(json.dumps(document), DOCUMENT)
        client.set_terminated(logged.run_id, "FAILED" if failed else "FINISHED")


def read_probes(
    uri: str, experiment_id: str, parent: str, configuration: str
) -> list[dict[str, Any]]:
    """The documents of a configuration's finished probes, the oldest first.

    Args:
        uri: of the tracking store.
        experiment_id: of the study.
        parent: run of the study.
        configuration: digest of what was probed.

    Raises:
        TrackingError: if the store cannot be read.
    """
    with explained(uri):
        client = connect(uri)
        query = (
            f"tags.`{PARENT_TAG}` = '{parent}' and tags.`{KIND_TAG}` = '{PROBE_KIND}' "
            f"and tags.`{CONFIGURATION_TAG}` = '{configuration}'"
        )
        found, token = [], None
        while token is None or token:
            page = client.search_runs(
                [experiment_id], query, order_by=["attributes.end_time ASC"], page_token=token
            )
            for run in page:
                if run.info.status in ("FINISHED", "FAILED"):
                    path = download(uri, f"runs:/{run.info.run_id}/{DOCUMENT}")
                    found.append(json.loads(path.read_text("utf-8")))
            token = page.token or ""
    return found
