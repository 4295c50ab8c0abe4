"""One trial as its MLflow run tells it: what it logged, and the artifacts that it left."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from wwopt.tracking.keys import (
    ALARM_TAG,
    ENDING_TAG,
    GUARDS,
    STATE_TAG,
    STATUS_TAG,
    TRIAL_TAG,
    VALUE,
)
from wwopt.tracking.store import connect, explained

HUGE = 1.79e308  # MLflow stores infinity as the largest float

# State of Optuna's trial for a run without our tag: MLflow's own status of the run.
STATES = {"FINISHED": "COMPLETE", "KILLED": "PRUNED", "FAILED": "FAIL"}


@dataclass(frozen=True)
class TrackedTrial:
    """One trial as its MLflow run tells it."""

    uri: str  # of the tracking store
    run_id: str  # "" for a logged model without a run
    number: int  # Optuna's, or the place in time of a run that wwopt did not write
    state: str  # COMPLETE, PRUNED, FAIL or RUNNING
    status: str  # of the objective: "ok", or why it was pruned; "" where none was logged
    name: str = ""  # of the run
    params: Mapping[str, str] = field(default_factory=dict)  # as MLflow keeps them: text
    metrics: Mapping[str, float] = field(default_factory=dict)  # last value of each
    tags: Mapping[str, str] = field(default_factory=dict)
    duration: float = math.nan  # seconds; NaN while it runs
    model_id: str | None = None  # of the logged model that it was looked up by

    @property
    def value(self) -> float:
        """The objective's last value; NaN where none was logged."""
        return self.metrics.get(VALUE, math.nan)

    @property
    def violated(self) -> tuple[str, ...]:
        """Names of the guards that the trial violates; see `wwopt.metrics.guards`."""
        prefix = f"{GUARDS}/"
        return tuple(
            key.removeprefix(prefix)
            for key, value in self.metrics.items()
            if key.startswith(prefix) and value > 0.0
        )

    @property
    def alarms(self) -> tuple[str, ...]:
        """What went wrong in a trial that wwopt only observed, in words."""
        return tuple(filter(None, self.tags.get(ALARM_TAG, "").split("\n")))

    @property
    def refused(self) -> bool:
        """Whether it was pruned because its network is broken, and not for its value."""
        ending = self.tags.get(ENDING_TAG)
        if ending is not None:
            return ending == "refused"
        # wwopt 0.1.0 told the two apart by the first word of the status alone.
        told = self.status not in ("", "ok") and not self.status.startswith("pruned")
        return self.state == "PRUNED" and told

    @property
    def judged(self) -> bool:
        """Whether the trial is complete and has an objective."""
        return self.state == "COMPLETE" and math.isfinite(self.value)


def trial_from_run(
    uri: str, run: Any, *, place: int = 0, model_id: str | None = None
) -> TrackedTrial:
    """Read an MLflow run as a trial.

    Args:
        uri: of the tracking store.
        run: MLflow's entity.
        place: number of the trial where the run has none of its own.
        model_id: of the logged model that the run was looked up by.
    """
    info, tags = run.info, dict(run.data.tags)
    number = tags.get(TRIAL_TAG, "")
    ended = info.end_time is not None and info.start_time is not None
    return TrackedTrial(
        uri=uri,
        run_id=info.run_id,
        number=int(number) if number.isdecimal() else place,
        state=tags.get(STATE_TAG) or STATES.get(info.status, "RUNNING"),
        status=tags.get(STATUS_TAG, ""),
        name=info.run_name or "",
        params=dict(run.data.params),
        metrics=read_numbers(run.data.metrics.items()),
        tags=tags,
        duration=(info.end_time - info.start_time) / 1000.0 if ended else math.nan,
        model_id=model_id,
    )


def read_history(trial: TrackedTrial, keys: Iterable[str]) -> pd.DataFrame:
    """The values that metrics had over a trial.

    Returns:
        One row a logged value: key, step, value.
    """
    with explained(trial.uri):
        client = connect(trial.uri)
        rows = [
            (key, point.step, read_number(point.value))
            for key in keys
            for point in client.get_metric_history(trial.run_id, key)
        ]
    return pd.DataFrame(rows, columns=["key", "step", "value"])


def read_numbers(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """MLflow's numbers, with infinity where it stored the largest float."""
    return {key: read_number(value) for key, value in values}


def read_number(value: float) -> float:
    """One of MLflow's numbers, with infinity where it stored the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= HUGE else float(value)
