"""A study's experiment and parent run: opened once, found again, the best trial mirrored on it."""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wwopt.tracking.artifacts import log_settings
from wwopt.tracking.keys import (
    BEST_RUN_TAG,
    BEST_TAG,
    GUIDE_TAG,
    KEPT_TAG,
    KIND_TAG,
    MAX_TAG,
    NOTE_TAG,
    STUDY_TAG,
    VALUE,
    hide_password,
    hide_passwords,
)
from wwopt.tracking.runs import MAX_WEIGHTS, StudyRun, TrialRun, context_tags, log_params, now
from wwopt.tracking.store import TrackingError, connect, explained, reach, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

MIRRORED = (VALUE, "alpha/mean", "traps/count", "train/loss")  # and validation metrics

# How the experiment's page opens, and what its tables sort by.
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": VALUE,
    "mlflow.experiment.primaryMetric.greaterIsBetter": "False",
}


def open_study(
    uri: str,
    *,
    name: str,
    study: str,
    settings: Mapping[str, Any] | None = None,
    max_weights: int = MAX_WEIGHTS,
    code: str | None = None,
) -> StudyRun:
    """Find or create a study's experiment and parent run.

    The run is looked up by the study's UUID, so that resuming logs nothing twice. Artifacts of a
    SQLite store lie in a folder `artifacts` beside the database file.

    Args:
        uri: tracking URI, as `sqlite:////absolute/mlflow.db` or `http://host:5000`.
        name: of the study; becomes the experiment's name.
        study: UUID of the study.
        settings: what the study is and how it is run, as plain data: logged as parameters of a
            new run, as far as MLflow keeps them, and whole as `study.json`, which resuming
            replaces. Passwords in URLs are masked.
        max_weights: bytes up to which a complete trial's weights are logged.
        code: hash of the study's file, for its trials' runs.

    Raises:
        TrackingError: if the store cannot be reached or does not accept the study.
    """
    reach(uri)
    with explained(uri):
        client = connect(uri)
        experiment_id = open_experiment(client, uri, name)
        tag = f"tags.`{STUDY_TAG}` = '{study}' and tags.`{KIND_TAG}` = 'study'"
        known = _oldest(client, experiment_id, tag)
        if known is not None:
            found = StudyRun(uri, experiment_id, known, study, max_weights, code)
            if settings is not None:
                log_settings(found, settings)
            return found
        tags = {STUDY_TAG: study, KIND_TAG: "study", "wwopt.data_free": "true"}
        run = client.create_run(experiment_id, run_name=name, tags=context_tags() | tags)
        first = _oldest(client, experiment_id, tag)
        if first is not None and first != run.info.run_id:  # another process has just opened it
            client.delete_run(run.info.run_id)
            return StudyRun(uri, experiment_id, first, study, max_weights, code)
        opened = StudyRun(uri, experiment_id, run.info.run_id, study, max_weights, code)
        if settings is not None:
            log_params(uri, run.info.run_id, {k: _to_text(v) for k, v in settings.items()})
            log_settings(opened, settings)
        return opened


def _to_text(setting: Any) -> str:
    """A setting as a parameter: text as it is, other data as JSON."""
    return hide_passwords(setting if isinstance(setting, str) else json.dumps(setting))


def mirror_best(study: StudyRun, *, number: int, best: TrialRun, value: float | None) -> None:
    """Copy a trial's main metrics and its description to the parent run.

    Args:
        study: the parent.
        number: of the trial.
        best: its run.
        value: of its objective; a mirrored trial that has a lower one stays. None replaces it.
    """
    from mlflow.entities import Metric, RunTag

    client = connect(study.uri)
    parent = client.get_run(study.run_id).data
    if best.run_id == parent.tags.get(BEST_RUN_TAG):
        return
    if value is not None and not value < parent.metrics.get(_mirror(VALUE), math.inf):
        return
    trial = client.get_run(best.run_id).data
    stamp = now()
    # A few: each becomes a chart, and a column of the table. The description says the rest.
    chosen = {k: v for k, v in trial.metrics.items() if k in MIRRORED or k.startswith("metrics/")}
    metrics = [Metric(_mirror(key), value, stamp, number) for key, value in chosen.items()]
    named = {BEST_TAG: str(number), BEST_RUN_TAG: best.run_id}
    if GUIDE_TAG in trial.tags:
        named[GUIDE_TAG] = trial.tags[GUIDE_TAG]
    if NOTE_TAG in trial.tags:
        named[NOTE_TAG] = f"**Best: trial {number}.** {trial.tags[NOTE_TAG]}"[:MAX_TAG]
    client.log_batch(
        study.run_id, metrics=metrics, tags=[RunTag(key, value) for key, value in named.items()]
    )


def finish_study(
    study: StudyRun,
    *,
    best_trial: int | None = None,
    best: TrialRun | None = None,
    kept: bool = False,
    status: str = "FINISHED",
) -> None:
    """End the parent run, with the best trial mirrored on it; resuming may do so again.

    Args:
        study: the parent.
        best_trial: number of the best trial; None without any.
        best: its run.
        kept: whether that one is kept though other trials that no guard refuses score lower.
        status: FINISHED, KILLED (interrupted, to be resumed) or FAILED.
    """
    with explained(study.uri):
        if best is not None and best_trial is not None:
            mirror_best(study, number=best_trial, best=best, value=None)
            tag = str(best_trial) if kept else ""
            connect(study.uri).set_tag(study.run_id, KEPT_TAG, tag)
        connect(study.uri).set_terminated(study.run_id, status)


def reopen_study(study: StudyRun) -> None:
    """Show the parent run as running again, where a study that had ended goes on."""
    with explained(study.uri):
        client = connect(study.uri)
        if client.get_run(study.run_id).info.status != "RUNNING":
            client.update_run(study.run_id, status="RUNNING")


def _oldest(client: "MlflowClient", experiment_id: str, query: str) -> str | None:
    """The run that was opened first; of two of one millisecond the one of lower id."""
    order = ["attributes.start_time ASC"]
    runs = client.search_runs([experiment_id], query, max_results=10, order_by=order)
    found = min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)
    return None if found is None else str(found.info.run_id)


def open_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Find or create an experiment; returns its id."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {name!r} was deleted in {hide_password(uri)}; restore it there, or "
                f"give the study another name"
            )
        return str(found.experiment_id)
    path = sqlite_path(uri)
    location = None if path is None else (path.parent / "artifacts").as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
    except MlflowException:
        # Another worker may have created it between the two calls.
        again = client.get_experiment_by_name(name)
        if again is None:
            raise
        return str(again.experiment_id)


def _mirror(key: str) -> str:
    """Name on the parent run: one group for all, so that they stand together in the table."""
    return f"best/{key.replace('/', '.')}"
