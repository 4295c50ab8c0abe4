"""Studies and trials in MLflow: study → parent run, trial → child run. The only user of mlflow.

Everything goes through `MlflowClient` with explicit run ids: the fluent API keeps its active run in
thread-local state and marks a pruned trial as failed. Importing mlflow takes 3 s, so it happens
inside functions, and `import wwopt` stays light. Logging is synchronous, one batch a step (about
10 ms on SQLite): an asynchronous queue dies with the process.
"""

import hashlib
import logging
import math
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_KEY = 250  # characters of a metric's or parameter's name that MLflow accepts

STUDY_TAG = "wwopt.study"  # UUID of the study, on its parent run and on every trial's
TRIAL_TAG = "wwopt.trial"  # Optuna's trial number
STATE_TAG = "optuna.state"  # RUNNING, COMPLETE, PRUNED or FAIL
STATUS_TAG = "wwopt.status"  # named status of the objective


class TrackingError(ValueError):
    """The tracking store cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class StudyRun:
    """Address of a study's parent run."""

    uri: str  # of the tracking store
    experiment_id: str
    run_id: str
    study: str  # UUID


@dataclass(frozen=True)
class TrialRun:
    """Address of one trial's child run."""

    uri: str
    run_id: str

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Log one batch of metrics; values that are not finite are left out.

        MLflow stores infinity as 1.8e308, which ruins every chart it appears in.
        """
        from mlflow.entities import Metric

        now = _milliseconds()
        finite = {safe_key(k): float(v) for k, v in values.items() if math.isfinite(v)}
        metrics = [Metric(key, value, now, step) for key, value in finite.items()]
        if metrics:
            _client(self.uri).log_batch(self.run_id, metrics=metrics)

    def log_frame(self, frame: pd.DataFrame, name: str) -> None:
        """Attach a table as an artifact that MLflow's screens show."""
        # MLflow 3.17 asks pandas for object columns in a way that pandas 3 deprecates for "str".
        texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
        frame = frame.astype(dict.fromkeys(texts, object))
        _client(self.uri).log_table(self.run_id, data=frame, artifact_file=name)

    def log_text(self, text: str, name: str) -> None:
        """Attach a text as an artifact."""
        _client(self.uri).log_text(self.run_id, text, name)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags; MLflow cuts values at 8,000 characters, and so do we."""
        from mlflow.entities import RunTag

        _client(self.uri).log_batch(
            self.run_id, tags=[RunTag(key, value[:8000]) for key, value in tags.items()]
        )

    def close(self, status: str, *, state: str) -> None:
        """End the run.

        Args:
            status: FINISHED, KILLED (pruned) or FAILED.
            state: of the Optuna trial: COMPLETE, PRUNED or FAIL.
        """
        self.tag({STATE_TAG: state})
        _client(self.uri).set_terminated(self.run_id, status)


def open_study(
    uri: str, *, name: str, study: str, settings: Mapping[str, Any] | None = None
) -> StudyRun:
    """Find or create a study's experiment and parent run.

    The run is looked up by the study's UUID, so that resuming logs nothing twice. Artifacts of a
    SQLite store lie in a folder `artifacts` beside the database file.

    Args:
        uri: tracking URI, as `sqlite:////absolute/mlflow.db` or `http://host:5000`.
        name: of the study; becomes the experiment's name.
        study: UUID of the study.
        settings: resolved settings, logged as parameters of a new run; passwords in URLs are
            masked.

    Raises:
        TrackingError: if the store cannot be reached or does not accept the study.
    """
    with _explained(uri):
        client = _client(uri)
        experiment_id = _experiment(client, uri, name)
        tag = f"tags.`{STUDY_TAG}` = '{study}' and tags.`wwopt.kind` = 'study'"
        runs = client.search_runs([experiment_id], tag, max_results=1)
        if runs:
            return StudyRun(uri, experiment_id, runs[0].info.run_id, study)
        tags = {STUDY_TAG: study, "wwopt.kind": "study", "wwopt.data_free": "true"}
        run = client.create_run(experiment_id, run_name=name, tags=_context_tags() | tags)
        _log_params(client, run.info.run_id, settings or {})
        return StudyRun(uri, experiment_id, run.info.run_id, study)


def open_trial(study: StudyRun, *, number: int, hyperparameters: Mapping[str, float]) -> TrialRun:
    """Find or create the child run of a trial, with its hyperparameters as parameters.

    Args:
        study: the parent.
        number: Optuna's trial number.
        hyperparameters: each layer's own, as {"lr/fc1": .1}.

    Raises:
        TrackingError: if the store does not accept the run.
    """
    with _explained(study.uri):
        client = _client(study.uri)
        query = f"tags.`{STUDY_TAG}` = '{study.study}' and tags.`{TRIAL_TAG}` = '{number}'"
        runs = client.search_runs([study.experiment_id], query, max_results=1)
        if runs:
            return TrialRun(study.uri, runs[0].info.run_id)
        tags = {
            "mlflow.parentRunId": study.run_id,
            STUDY_TAG: study.study,
            TRIAL_TAG: str(number),
            STATE_TAG: "RUNNING",
            "wwopt.kind": "trial",
        }
        run = client.create_run(
            study.experiment_id, run_name=f"trial {number}", tags=_context_tags() | tags
        )
        _log_params(client, run.info.run_id, hyperparameters)
        return TrialRun(study.uri, run.info.run_id)


def finish_study(
    study: StudyRun, *, best_trial: int | None = None, best: TrialRun | None = None
) -> None:
    """End the parent run, with the best trial mirrored on it; resuming may do so again."""
    from mlflow.entities import Metric, RunTag

    client = _client(study.uri)
    known = client.get_run(study.run_id).data.tags.get("wwopt.best_run")
    if best is not None and best.run_id != known:
        now = _milliseconds()
        values = client.get_run(best.run_id).data.metrics.items()
        metrics = [Metric(f"best/{k.replace('/', '.')}", v, now, 0) for k, v in values]
        named = {"wwopt.best_trial": str(best_trial), "wwopt.best_run": best.run_id}
        tags = [RunTag(key, value) for key, value in named.items()]
        client.log_batch(study.run_id, metrics=metrics, tags=tags)
    client.set_terminated(study.run_id, "FINISHED")


def close_orphan(study: StudyRun, *, number: int) -> None:
    """End the run of a trial whose process died before it could."""
    with _explained(study.uri):
        client = _client(study.uri)
        query = f"tags.`{STUDY_TAG}` = '{study.study}' and tags.`{TRIAL_TAG}` = '{number}'"
        for run in client.search_runs([study.experiment_id], query, max_results=1):
            if run.info.status == "RUNNING":
                trial = TrialRun(study.uri, run.info.run_id)
                trial.tag({"wwopt.orphan": "true"})
                trial.close("FAILED", state="FAIL")


def hide_password(url: str) -> str:
    """The URL with its password and the values of its query masked, for messages and logs."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return url
    masked = parsed.render_as_string(hide_password=True)
    return re.sub(r"([?&][^=&]+=)[^&]*", r"\1***", masked)


def safe_key(name: str) -> str:
    """A name that MLflow accepts as a key, the same for the same name.

    Letters of any script stay; what MLflow refuses becomes "_". One "/" separates the group that
    its charts are ordered by. Names that lose something in the layer part to the length limit get
    a hash, so that two long layers do not become one.
    """
    group, _, rest = unicodedata.normalize("NFC", name).partition("/")
    cleaned = "/".join(
        re.sub(r"[^\w.\- ]", "_", part.replace("/", ".")).strip(" .") or "_"
        for part in ((group, rest) if rest else (group,))
    )
    cleaned = re.sub(r"\.{2,}", ".", cleaned)
    if len(cleaned) > MAX_KEY:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        cleaned = f"{cleaned[: MAX_KEY - 13]}-{digest}"
    return cleaned


def _client(uri: str) -> "MlflowClient":
    _quiet()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _quiet() -> None:
    """Keep the 60 lines of schema migration off the terminal; errors are raised, not logged."""
    for name in ("alembic", "mlflow.store.db.utils"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise TrackingError(
            f"the tracking store {hide_password(uri)} cannot be used: {reason}"
        ) from error


def _experiment(client: "MlflowClient", uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {name!r} was deleted in {hide_password(uri)}; restore it there, or "
                f"give the study another name"
            )
        return str(found.experiment_id)
    path = _sqlite_path(uri)
    location = None if path is None else (path.parent / "artifacts").as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        # Another worker may have created it between the two calls.
        again = client.get_experiment_by_name(name)
        if again is None:
            raise
        return str(again.experiment_id)


def _sqlite_path(uri: str) -> Path | None:
    if not uri.startswith("sqlite:"):
        return None
    database = make_url(uri).database
    return Path(database).resolve() if database else None


def _context_tags() -> dict[str, str]:
    """User, source and git commit, as MLflow's own runs carry them."""
    from mlflow.tracking.context.registry import resolve_tags

    return {key: str(value) for key, value in resolve_tags().items()}


def _log_params(client: "MlflowClient", run_id: str, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    keys = _unique(safe_key(name) for name in values)
    params = [
        Param(key, (f"{v:.6g}" if isinstance(v, float) else str(v))[:6000])
        for key, v in zip(keys, values.values(), strict=True)
    ]
    if params:
        client.log_batch(run_id, params=params)


def _unique(keys: Iterable[str]) -> list[str]:
    seen: dict[str, int] = {}
    unique = []
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        unique.append(key if seen[key] == 1 else f"{key}-{seen[key]}")
    return unique


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
