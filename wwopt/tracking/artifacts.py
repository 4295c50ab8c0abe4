"""The artifacts of a trial's run, written and read back: its layer table and its spectra."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wwopt.tracking.runs import TrialRun
from wwopt.tracking.store import TrackingError, connect, download, explained
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial

LAYER_TABLE = "layers.json"  # artifact: every layer's metrics, as `ModelMetrics.to_frame`
SPECTRA = "spectra.npz"  # artifact: every layer's eigenvalues, thinned out
PAGE = "report.html"  # artifact of a study's parent run


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


def _fetch(trial: TrackedTrial, path: str) -> Path | None:
    """An artifact of the run as a local file; None where it has none of that name."""
    if not trial.run_id:
        return None
    with explained(trial.uri):
        client = connect(trial.uri)
        if path not in {file.path for file in client.list_artifacts(trial.run_id)}:
            return None
        return download(trial.uri, f"runs:/{trial.run_id}/{path}")
