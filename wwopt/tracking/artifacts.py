"""The artifacts of runs, written and read back: what a study is, a trial's layers and spectra."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wwopt.plain_data import make_plain
from wwopt.tracking.keys import hide_passwords
from wwopt.tracking.runs import StudyRun, TrialRun
from wwopt.tracking.spectra_files import unpack_spectra, write_spectra
from wwopt.tracking.store import TrackingError, connect, download, explained
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial

LAYER_TABLE = "layers.json"  # artifact: every layer's metrics, as `ModelMetrics.to_frame`
SPECTRA = "spectra.npz"  # artifact: every layer's spectrum, and those of its shuffles
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


def log_spectra(run: TrialRun, layers: Iterable[Mapping[str, Any]]) -> None:
    """Attach the spectra of layers, whole: they can be drawn and scored again without the weights.

    Args:
        run: of the trial.
        layers: one after the other, the fields of a `wwopt.LayerSpectrum`: a name, numbers and
            texts, and arrays or None.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SPECTRA
        write_spectra(path, layers)
        run.log_file(path)


def read_layer_table(trial: TrackedTrial) -> pd.DataFrame | None:
    """The trial's table of all layers and their spectral metrics; None where none was logged."""
    path = _fetch(trial.uri, trial.run_id, LAYER_TABLE)
    if path is None:
        return None
    document = json.loads(path.read_text())
    return pd.DataFrame(document["data"], columns=document["columns"])


def read_layer_spectra(trial: TrackedTrial) -> list[dict[str, Any]] | None:
    """The trial's spectra as `log_spectra` was given them.

    None without any, and of a trial of wwopt 0.1.0, which kept thinned eigenvalues alone.
    """
    stored = _read_arrays(trial)
    if stored is None or "layers" not in stored:
        return None
    return unpack_spectra(stored)


def read_spectra(trial: TrackedTrial) -> dict[str, NDArray[np.floating]] | None:
    """The eigenvalues of a trial's layers, as curves; None where none were logged.

    Returns:
        Layer → array (2, k): positive eigenvalues in ascending order, and the share of the layer's
        eigenvalues that are at least as large. Layers without any are left out; wwopt 0.1.0 kept
        at most 512 of them.
    """
    layers = read_layer_spectra(trial)
    if layers is not None:
        curves = {str(layer["name"]): _curve(layer["eigenvalues"]) for layer in layers}
        return {name: curve for name, curve in curves.items() if curve.size}
    stored = _read_arrays(trial)
    if stored is None:
        return None
    return {str(name): stored[f"layer{i}"] for i, name in enumerate(stored["names"])}


def _curve(eigenvalues: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = eigenvalues[np.isfinite(eigenvalues) & (eigenvalues > 0.0)]
    return np.stack([kept, np.arange(kept.size, 0, -1) / max(eigenvalues.size, 1)])


def _read_arrays(trial: TrackedTrial) -> dict[str, NDArray[Any]] | None:
    path = _fetch(trial.uri, trial.run_id, SPECTRA)
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _fetch(uri: str, run_id: str, path: str) -> Path | None:
    """An artifact of the run as a local file; None where it has none of that name."""
    if not run_id:  # a logged model without a run
        return None
    with explained(uri):
        if path not in {file.path for file in connect(uri).list_artifacts(run_id)}:
            return None
        return download(uri, f"runs:/{run_id}/{path}")
