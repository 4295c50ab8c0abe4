"""The artifacts of runs, written and read back: what a study is, a trial's layers and spectra."""

import json
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wwopt.plain_data import make_plain
from wwopt.tracking.keys import hide_passwords
from wwopt.tracking.runs import StudyRun, TrialRun
from wwopt.tracking.store import TrackingError, connect, download, explained
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial

LAYER_TABLE = "layers.json"  # artifact: every layer's metrics, as `ModelMetrics.to_frame`
SPECTRA = "spectra.npz"  # artifact: every layer's eigenvalues, thinned out
PAGE = "report.html"  # artifact of a study's parent run
SETTINGS = "study.json"  # artifact of a study's parent run: what it is, whole and exact
FORMAT = 1  # of study.json


def attach_page(study: TrackedStudy, page: bytes) -> None:
    """Attach the page that explains a study to its parent run.

    Raises:
        TrackingError: if the study has no parent run, or the store does not take it.
    """
    if study.run_id is None:
        raise TrackingError(f"study {study.name!r} has no parent run to attach its report to")
    with explained(study.uri), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PAGE
        path.write_bytes(page)
        TrialRun(study.uri, study.run_id).log_file(path)


def log_settings(run: StudyRun, settings: Mapping[str, Any]) -> None:
    """Attach what a study is as `study.json`: MLflow's parameters cut long texts, this does not.

    Args:
        run: the study's parent run.
        settings: plain data; passwords in URLs are masked.
    """
    document = {"format": FORMAT, "wwopt": version("wwopt"), **_mask(make_plain(settings))}
    TrialRun(run.uri, run.run_id).log_text(json.dumps(document, indent=1), SETTINGS)


def read_settings(study: TrackedStudy) -> dict[str, Any]:
    """What a study is, as `log_settings` left it.

    Of a study that has no such artifact (of wwopt 0.1.0, or of others) its parameters, as far as
    they were not cut; of several settings of JSON each is read.
    """
    path = None if study.run_id is None else _fetch(study.uri, study.run_id, SETTINGS)
    if path is not None:
        known: dict[str, Any] = json.loads(path.read_text())
        return known
    return {key: _parse(text) for key, text in study.params.items()}


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _mask(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mask(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mask(item) for item in value]
    return hide_passwords(value) if isinstance(value, str) else value


def log_layer_table(run: TrialRun, table: pd.DataFrame) -> None:
    """Attach a table of all layers and their spectral metrics, as `ModelMetrics.to_frame`."""
    run.log_frame(table, LAYER_TABLE)


def log_spectra(run: TrialRun, spectra: Mapping[str, NDArray[np.float32]]) -> None:
    """Attach spectra, as `read_spectra` gives them back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SPECTRA
        arrays: dict[str, Any] = {f"layer{i}": values for i, values in enumerate(spectra.values())}
        np.savez_compressed(path, names=np.array(list(spectra), dtype=np.str_), **arrays)
        run.log_file(path)


def read_layer_table(trial: TrackedTrial) -> pd.DataFrame | None:
    """The trial's table of all layers and their spectral metrics; None where none was logged."""
    path = _fetch(trial.uri, trial.run_id, LAYER_TABLE)
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
    path = _fetch(trial.uri, trial.run_id, SPECTRA)
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return {str(name): arrays[f"layer{i}"] for i, name in enumerate(arrays["names"])}


def _fetch(uri: str, run_id: str, path: str) -> Path | None:
    """An artifact of the run as a local file; None where it has none of that name."""
    if not run_id:  # a logged model without a run
        return None
    with explained(uri):
        if path not in {file.path for file in connect(uri).list_artifacts(run_id)}:
            return None
        return download(uri, f"runs:/{run_id}/{path}")
