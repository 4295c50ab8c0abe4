"""One trial as its MLflow run tells it: what it logged, and the artifacts that it left."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wwopt.tracking.keys import GUARDS, STATE_TAG, STATUS_TAG, TRIAL_TAG, VALUE
from wwopt.tracking.store import connect, download, explained

LAYER_TABLE = "layers.json"  # artifact: every layer's metrics, as `ModelMetrics.to_frame`
SPECTRA = "spectra.npz"  # artifact: every layer's eigenvalues, thinned out
HUGE = 1.79e308  # MLflow stores infinity as the largest float

# State of Optuna's trial for a run without our tag: MLflow's own status of the run.
STATES = {"FINISHED": "COMPLETE", "KILLED": "PRUNED", "FAILED": "FAIL"}

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")  # in order of preference


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
        """Names of the guards that the trial violates; see `wwopt.guards`."""
        prefix = f"{GUARDS}/"
        return tuple(
            key.removeprefix(prefix)
            for key, value in self.metrics.items()
            if key.startswith(prefix) and value > 0.0
        )

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


def read_layer_table(trial: TrackedTrial) -> pd.DataFrame | None:
    """The trial's table of all layers and their spectral metrics; None where none was logged."""
    path = _fetch(trial, LAYER_TABLE)
    if path is None:
        return None
    document = json.loads(path.read_text())
    return pd.DataFrame(document["data"], columns=document["columns"])


def read_spectra(trial: TrackedTrial) -> dict[str, NDArray[np.float32]] | None:
    """The trial's spectra, as `trial_summary.thin_spectra` keeps them; None without any.

    Returns:
        Layer → array (2, k): eigenvalues in ascending order, and the share of the layer's
        eigenvalues that are at least as large.
    """
    path = _fetch(trial, SPECTRA)
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return {str(name): arrays[f"layer{i}"] for i, name in enumerate(arrays["names"])}


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


def download_weights(trial: TrackedTrial, folder: str | Path) -> Path | None:
    """Copy the trial's checkpoint into a folder.

    Its logged models are searched first, then the run's own artifacts, each for a safetensors
    file, else for one that torch saved.

    Args:
        trial: whose.
        folder: made where it does not exist.

    Returns:
        The file; None where no weights were logged.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with explained(trial.uri):
        client = connect(trial.uri)
        for model in find_models(trial):
            listed = _walk(partial(client.list_logged_model_artifacts, model.model_id))
            chosen = _choose(listed)
            if chosen is not None:
                return download(trial.uri, f"{model.artifact_location}/{chosen}", folder)
        if not trial.run_id:
            return None
        chosen = _choose(_walk(partial(client.list_artifacts, trial.run_id)))
        if chosen is None:
            return None
        return download(trial.uri, f"runs:/{trial.run_id}/{chosen}", folder)


def find_models(trial: TrackedTrial) -> list[Any]:
    """MLflow's entities of the trial's logged models, the newest first."""
    with explained(trial.uri):
        client = connect(trial.uri)
        if trial.model_id is not None:
            return [client.get_logged_model(trial.model_id)]
        experiment = client.get_run(trial.run_id).info.experiment_id
        query = f"source_run_id = '{trial.run_id}'"
        newest_first = [{"field_name": "creation_time", "ascending": False}]
        return list(client.search_logged_models([experiment], query, order_by=newest_first))


def read_numbers(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """MLflow's numbers, with infinity where it stored the largest float."""
    return {key: read_number(value) for key, value in values}


def read_number(value: float) -> float:
    """One of MLflow's numbers, with infinity where it stored the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= HUGE else float(value)


def _fetch(trial: TrackedTrial, path: str) -> Path | None:
    """An artifact of the run as a local file; None where it has none of that name."""
    if not trial.run_id:
        return None
    with explained(trial.uri):
        client = connect(trial.uri)
        if path not in {file.path for file in client.list_artifacts(trial.run_id)}:
            return None
        return download(trial.uri, f"runs:/{trial.run_id}/{path}")


def _walk(list_folder: Callable[[str | None], Any], folder: str | None = None) -> Iterator[str]:
    for entry in list_folder(folder):
        if entry.is_dir:
            yield from _walk(list_folder, entry.path)
        else:
            yield entry.path


def _choose(paths: Iterable[str]) -> str | None:
    found = [path for path in paths if Path(path).suffix in WEIGHT_SUFFIXES]
    return min(found, key=lambda p: WEIGHT_SUFFIXES.index(Path(p).suffix), default=None)
