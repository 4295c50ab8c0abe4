"""Addresses of runs, and what is logged to them: a study's parent run, a trial's child run.

Logging is synchronous, one batch a step (about 10 ms on SQLite): an asynchronous queue dies with
the process.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from wwopt.tracking.keys import MAX_PARAM, MAX_TAG, STATE_TAG, hide_passwords, unique_keys
from wwopt.tracking.store import connect, is_away, reach

Result = TypeVar("Result")
MAX_WEIGHTS = 100_000_000  # bytes of a checkpoint that is logged without being asked for


@dataclass(frozen=True)
class StudyRun:
    """Address of a study's parent run."""

    uri: str  # of the tracking store
    experiment_id: str
    run_id: str
    study: str  # UUID
    max_weights: int = MAX_WEIGHTS  # bytes up to which a complete trial's weights are logged
    code: str | None = None  # hash of the study's file, as its trials' runs say it


@dataclass(frozen=True)
class TrialRun:
    """Address of one trial's child run.

    One with a list `unlogged` goes on where its server stays away for longer than MLflow's client
    waits, which is about four minutes: what is not logged is noted there.
    """

    uri: str
    run_id: str
    unlogged: list[str] | None = field(default=None, compare=False)

    def attempt(self, what: str, call: Callable[[], Result]) -> Result | None:
        """Log something; note it where the server is away and this run goes on without it.

        Args:
            what: is logged, as it is noted.
            call: logs it.

        Returns:
            What the call returned; None where the server was away.
        """
        try:
            if self.unlogged:  # it was away: wait for minutes again only if somebody listens
                reach(self.uri)
            return call()
        except Exception as error:
            if self.unlogged is None or not is_away(error):
                raise
            self.unlogged.append(what)
            return None

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Log one batch of metrics; values that are not finite are left out.

        MLflow stores infinity as 1.8e308, which ruins every chart it appears in.
        """
        from mlflow.entities import Metric

        stamp = now()
        keys = unique_keys(values)
        pairs = zip(keys, map(float, values.values()), strict=True)
        metrics = [Metric(key, value, stamp, step) for key, value in pairs if math.isfinite(value)]
        if metrics:
            client = connect(self.uri)
            what = f"metrics of step {step}"
            self.attempt(what, lambda: client.log_batch(self.run_id, metrics=metrics))

    def log_frame(self, frame: pd.DataFrame, name: str) -> None:
        """Attach a table as an artifact that MLflow's screens show."""
        # MLflow 3.17 asks pandas for object columns in a way that pandas 3 deprecates for "str".
        texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
        frame = frame.astype(dict.fromkeys(texts, object))
        client = connect(self.uri)
        self.attempt(name, lambda: client.log_table(self.run_id, data=frame, artifact_file=name))

    def log_text(self, text: str, name: str) -> None:
        """Attach a text as an artifact."""
        client = connect(self.uri)
        self.attempt(name, lambda: client.log_text(self.run_id, text, name))

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Attach a file, or all files of a folder, as artifacts."""
        client = connect(self.uri)
        log = client.log_artifacts if path.is_dir() else client.log_artifact
        self.attempt(path.name, lambda: log(self.run_id, str(path), folder))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags; MLflow cuts values at 8,000 characters, and so do we."""
        from mlflow.entities import RunTag

        client = connect(self.uri)
        values = [RunTag(key, value[:MAX_TAG]) for key, value in tags.items()]
        self.attempt("tags", lambda: client.log_batch(self.run_id, tags=values))

    def close(self, status: str, *, state: str) -> None:
        """End the run.

        Args:
            status: FINISHED, KILLED (pruned) or FAILED.
            state: of the Optuna trial: COMPLETE, PRUNED or FAIL.
        """
        self.tag({STATE_TAG: state})
        client = connect(self.uri)
        self.attempt("its end", lambda: client.set_terminated(self.run_id, status))


def open_run(
    uri: str, experiment: str, name: str, tags: Mapping[str, str], *, begun: int | None = None
) -> TrialRun:
    """Begin a run, with the tags that MLflow's own runs carry too.

    Args:
        uri: of the tracking store.
        experiment: its id.
        name: of the run.
        tags: of its own.
        begun: milliseconds since 1970; None for now.
    """
    everything = context_tags() | dict(tags)
    client = connect(uri)
    run = client.create_run(experiment, start_time=begun, run_name=name, tags=everything)
    return TrialRun(uri, run.info.run_id)


def log_params(uri: str, run_id: str, values: Mapping[str, Any]) -> None:
    """Log hyperparameters, every digit of them, or settings; they cannot be changed later."""
    from mlflow.entities import Param

    params = [
        Param(key, (repr(float(v)) if isinstance(v, float) else str(v))[:MAX_PARAM])
        for key, v in zip(unique_keys(values), values.values(), strict=True)
    ]
    if params:
        connect(uri).log_batch(run_id, params=params)


def context_tags() -> dict[str, str]:
    """User, source and git commit, as MLflow's own runs carry them."""
    from mlflow.tracking.context.registry import resolve_tags

    # The address of a git remote may hold a token.
    return {key: hide_passwords(str(value)) for key, value in resolve_tags().items()}


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000
