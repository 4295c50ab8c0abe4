"""A watch in MLflow: one run with its charts over time, and under it a run for each checkpoint.

The runs are also the memory of the watch. A checkpoint counts as scored when its run is finished,
which is the last thing that happens to it: a run that is still open belongs to a watcher that died,
and is deleted before its checkpoint is scored again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.checks import DOCUMENT, LoggedCheck, write_check
from wwopt.tracking.keys import (
    CHECKPOINT_TAG,
    KIND_TAG,
    NOTE_TAG,
    PARENT_TAG,
    PASSED_TAG,
    STEP_TAG,
    WATCHED_TAG,
    unique_keys,
)
from wwopt.tracking.runs import TrialRun, context_tags, open_run
from wwopt.tracking.store import TrackingError, connect, create_tables, download, explained, reach
from wwopt.tracking.studies import open_experiment
from wwopt.tracking.tracked_studies import find_runs, search_runs

EXPERIMENT = "wwopt watch"
WATCH_KIND, CHECKPOINT_KIND = "watch", "checkpoint"
CHARTED = "gate/passed"  # metric of the watch's run that has a value at each step


@dataclass(frozen=True)
class Watch:
    """Address of a watch's run."""

    uri: str  # of the tracking store
    experiment_id: str
    run_id: str
    source: str  # what is watched


@dataclass(frozen=True)
class WatchedCheckpoint:
    """A checkpoint that was scored, or could not be read."""

    run_id: str
    name: str
    identity: str  # what tells it from another of that name
    step: int  # of the watch's charts; -1 for one that could not be read
    passed: bool  # as the gate said, or as somebody corrected it

    @property
    def scored(self) -> bool:
        """Whether it could be read."""
        return self.step >= 0


def open_watch(uri: str, source: str) -> Watch:
    """Find or create the run of a watch.

    Args:
        uri: of the tracking store; a SQLite file is made where there is none.
        source: what is watched: an absolute path, or an address of MLflow.

    Raises:
        TrackingError: if the store cannot be used.
    """
    reach(uri)
    create_tables(uri)
    with explained(uri):
        client = connect(uri)
        experiment = open_experiment(client, uri, EXPERIMENT)
        # Among all watches and not by its tag: MLflow's queries know no quote within a text.
        watches = search_runs(client, [experiment], f"tags.`{KIND_TAG}` = '{WATCH_KIND}'")
        found = [run for run in watches if run.data.tags.get(WATCHED_TAG) == source]
        if found:
            run = min(found, key=lambda run: run.info.start_time)
        else:
            tags = context_tags() | {KIND_TAG: WATCH_KIND, WATCHED_TAG: source}
            run = client.create_run(experiment, run_name=f"watch {source}", tags=tags)
        if run.info.status == "RUNNING":  # what a watch logs is logged whether it runs or not
            client.set_terminated(run.info.run_id, "FINISHED")
    return Watch(uri, experiment, run.info.run_id, source)


def read_watched(watch: Watch) -> list[WatchedCheckpoint]:
    """All checkpoints that were dealt with, in the order in which they were.

    What a watcher left open when it died is deleted.
    """
    found = []
    with explained(watch.uri):
        client = connect(watch.uri)
        query = f"tags.`{PARENT_TAG}` = '{watch.run_id}'"
        runs = search_runs(client, [watch.experiment_id], query)
        for run in sorted(runs, key=lambda run: run.info.start_time):
            if run.info.status == "RUNNING":
                client.delete_run(run.info.run_id)
                continue
            tags = run.data.tags
            found.append(
                WatchedCheckpoint(
                    run_id=run.info.run_id,
                    name=run.info.run_name,
                    identity=tags.get(CHECKPOINT_TAG, ""),
                    step=int(tags.get(STEP_TAG, "-1")),
                    passed=tags.get(PASSED_TAG) == "true",
                )
            )
    return found


def log_checkpoint(watch: Watch, check: LoggedCheck, *, identity: str, step: int) -> str:
    """Log a checkpoint that was scored, as a run of its own.

    Args:
        watch: whose.
        check: with the last checkpoint that passed; its name is the checkpoint's.
        identity: of the checkpoint.
        step: how many were scored before.

    Returns:
        The run's id.
    """
    with explained(watch.uri):
        run = _create(watch, check.name, identity)
        run.tag({STEP_TAG: str(step)})
        write_check(run, check, step=step)
        connect(watch.uri).set_terminated(run.run_id, "FINISHED")
    return run.run_id


def log_unreadable(watch: Watch, name: str, *, identity: str, reason: str) -> None:
    """Log that a checkpoint could not be read, so that it is told once."""
    with explained(watch.uri):
        run = _create(watch, name, identity)
        run.tag({NOTE_TAG: reason, PASSED_TAG: "false"})
        connect(watch.uri).set_terminated(run.run_id, "FAILED")


def _create(watch: Watch, name: str, identity: str) -> TrialRun:
    tags = {KIND_TAG: CHECKPOINT_KIND, PARENT_TAG: watch.run_id, CHECKPOINT_TAG: identity}
    return open_run(watch.uri, watch.experiment_id, name, tags)


def read_document(watch: Watch, checkpoint: WatchedCheckpoint) -> dict[str, Any]:
    """All that was measured of a checkpoint that was scored."""
    with explained(watch.uri):
        path = download(watch.uri, f"runs:/{checkpoint.run_id}/{DOCUMENT}")
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def read_table(watch: Watch, checkpoint: WatchedCheckpoint) -> pd.DataFrame:
    """A scored checkpoint's table of layers, as `ModelMetrics.to_frame`.

    Raises:
        TrackingError: if somebody removed it.
    """
    (trial,) = find_runs(watch.uri, run_id=checkpoint.run_id)
    table = read_layer_table(trial)
    if table is None:
        raise TrackingError(f"the run {checkpoint.run_id} of {checkpoint.name} has no layer table")
    return table


def read_charted(watch: Watch) -> set[int]:
    """The steps that the charts of a watch have a value at."""
    with explained(watch.uri):
        return {p.step for p in connect(watch.uri).get_metric_history(watch.run_id, CHARTED)}


def chart(watch: Watch, values: Mapping[str, float], *, step: int, time: int) -> None:
    """Add a checkpoint to the charts of a watch.

    Args:
        watch: whose.
        values: finite, `CHARTED` among them.
        step: of the checkpoint.
        time: at which it was written, milliseconds since 1970.
    """
    from mlflow.entities import Metric

    keys = unique_keys(values)
    metrics = [Metric(k, v, time, step) for k, v in zip(keys, values.values(), strict=True)]
    with explained(watch.uri):
        connect(watch.uri).log_batch(watch.run_id, metrics=metrics)
