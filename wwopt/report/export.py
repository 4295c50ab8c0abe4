"""Take a trial out of its study: its weights, and a JSON of its hyperparameters and spectra."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wwopt.plain_data import make_plain
from wwopt.report.leaderboard import tell_status
from wwopt.report.spectrum_curves import thin
from wwopt.tracking import TrackingError, hide_password, register_model
from wwopt.tracking.artifacts import read_layer_table, read_spectra
from wwopt.tracking.hyperparameters import read_hyperparameters, read_knobs
from wwopt.tracking.models import download_weights, find_models
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    document: Path  # JSON
    weights: Path | None  # None where the trial logged none
    trial: TrackedTrial


def export_trial(study: TrackedStudy, folder: str | Path, *, number: int | None = None) -> Exported:
    """Write a trial's weights and its description to a folder.

    Args:
        study: tracked in MLflow.
        folder: made where it does not exist; files of the same names are replaced.
        number: of the trial; None for the best one.

    Returns:
        The files: `trial-N.json`, and `trial-N.safetensors` or with the suffix that the logged
        file has.

    Raises:
        TrackingError: if the study has no best trial, or the store cannot be read.
        KeyError: if it has no trial of that number.
        OSError: if the folder cannot be written.
    """
    trial = _choose(study, number)
    folder = Path(folder)
    stem = f"trial-{trial.number}"
    folder.mkdir(parents=True, exist_ok=True)
    weights = download_weights(trial, folder / f".{stem}")
    if weights is not None:
        place = folder / f"{stem}{weights.suffix}"
        os.replace(weights, place)
        weights = place
    shutil.rmtree(folder / f".{stem}")
    document = folder / f"{stem}.json"
    text = json.dumps(make_document(study, trial, weights), indent=1, allow_nan=False)
    document.write_text(text + "\n", "utf-8")
    return Exported(document, weights, trial)


def make_document(study: TrackedStudy, trial: TrackedTrial, weights: Path | None) -> dict[str, Any]:
    """A trial as plain data for JSON; what is not finite becomes None.

    Returns:
        study, trial, run_id, tracking_uri (its password masked), state, status, objective,
        hyperparameters (each layer's own), suggested (what the sampler chose), metrics, weights
        (name of the file), layers (a row each of the layer table), and spectra (layer → its
        eigenvalues, ascending and thinned out, and the share of all that are at least as large).
    """
    table = read_layer_table(trial)
    spectra = {name: thin(curve) for name, curve in (read_spectra(trial) or {}).items()}
    document = {
        "study": study.name,
        "trial": trial.number,
        "run_id": trial.run_id,
        "tracking_uri": hide_password(trial.uri),
        "state": trial.state,
        "status": tell_status(trial),
        "objective": trial.value,
        "hyperparameters": read_hyperparameters(trial),
        "suggested": read_knobs(trial),
        "metrics": dict(trial.metrics),
        "weights": None if weights is None else weights.name,
        "layers": [] if table is None else table.to_dict(orient="records"),
        "spectra": {
            name: {
                "eigenvalues": [float(f"{v:.7g}") for v in values],
                "share_above": [float(f"{v:.7g}") for v in shares],
            }
            for name, (values, shares) in spectra.items()
        },
    }
    plain: dict[str, Any] = make_plain(document)
    return plain


def register_trial(study: TrackedStudy, name: str, *, number: int | None = None) -> str:
    """Put a trial's weights into MLflow's model registry, as a new version of that name.

    Returns:
        The version.

    Raises:
        TrackingError: if the trial logged no weights, or the registry does not accept them.
    """
    trial = _choose(study, number)
    models = find_models(trial)
    if not models:
        raise TrackingError(
            f"trial {trial.number} has no logged model to register: "
            f"{trial.tags.get('wwopt.weights', 'its weights were not logged')}"
        )
    return register_model(study.uri, models[0], name)


def _choose(study: TrackedStudy, number: int | None) -> TrackedTrial:
    if number is not None:
        return study[number]
    if study.best is None:
        raise TrackingError(
            f"study {study.name!r} has no complete trial that violates no guard: choose one "
            f"with --trial"
        )
    return study.best
