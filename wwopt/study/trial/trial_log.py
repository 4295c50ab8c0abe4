"""What a trial leaves in MLflow when it ends: its layers, its spectra, its weights."""

import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import nn

from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.objective import ObjectiveValue
from wwopt.study.trial.trial_summary import describe_trial, summarize_layer
from wwopt.tracking import TrialRun, artifacts, log_model
from wwopt.tracking.keys import ENDING_TAG, LAYER_ALPHA, NOTE_TAG, STATUS_TAG
from wwopt.wording import first_line

WEIGHTS = "weights.safetensors"  # in the trial's logged model
WEIGHTS_TAG = "wwopt.weights"  # why there are none


def log_spectra(
    run: TrialRun,
    result: ObjectiveValue | None,
    spectra: ModelMetrics | None,
    *,
    ending: str,
    status: str,
    hyperparameters: Mapping[str, Any],
    step: int,
) -> None:
    """Log the layer table, the spectra, every counted layer's alpha and a description.

    Args:
        run: of the trial.
        result: its objective at the last analysis; None before one.
        spectra: of that analysis.
        ending: how the trial ended, as `wwopt.study.trial.outcomes.Ending`.
        status: the same in words, with the reason.
        hyperparameters: each layer's own, as {"lr/fc1": .1}.
        step: of the analysis.
    """
    note = describe_trial(
        None if result is None else result.value,
        {} if result is None else result.terms,
        {} if spectra is None else {x.name: summarize_layer(x) for x in spectra.layers},
        status=status,
        hyperparameters=hyperparameters,
    )
    run.tag({ENDING_TAG: ending, STATUS_TAG: status, NOTE_TAG: note})
    if spectra is None:
        return
    # NaN is not logged, but keeps its place among names that become equal.
    alphas = {layer.name: layer.alpha if layer.counted else math.nan for layer in spectra.layers}
    run.log({f"{LAYER_ALPHA}/{name}": alpha for name, alpha in alphas.items()}, step=step)
    artifacts.log_layer_table(run, spectra.to_frame())
    artifacts.log_spectra(
        run, [vars(layer.spectrum) for layer in spectra.layers if layer.spectrum is not None]
    )


def log_weights(run: TrialRun, model: nn.Module, *, limit: int, step: int) -> str | None:
    """Log the weights as safetensors, in a logged model that its spectral metrics find.

    Weights that two layers share are kept once; `safetensors.torch.load_model` reads them back.

    Args:
        run: of the trial.
        model: whose weights.
        limit: bytes; a larger model is not logged, and the tag `wwopt.weights` says so.
        step: of the training.

    Returns:
        MLflow's id of the model; None where it was not logged.
    """
    size = _count_bytes(model)
    if size > limit:
        _say(run, f"{size / 1e6:.0f} MB are more than the limit of {limit / 1e6:.0f} MB")
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(folder) / WEIGHTS
            save_model(model, str(path))
            path.chmod(0o644)  # the library lets nobody else read it, and MLflow keeps that
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            # Quantised or extra state that the format does not know. The trial is good without.
            _say(run, first_line(error))
            return None
        return run.attempt("its weights", lambda: log_model(run, Path(folder), step=step))


def log_checkpoint(run: TrialRun, checkpoint: Path, *, limit: int, step: int) -> str | None:
    """Log a checkpoint that somebody else wrote, as it is; see `log_weights`.

    Args:
        run: of the trial.
        checkpoint: a file; a folder is not logged, and the tag `wwopt.weights` says so.
        limit: bytes; as for weights.
        step: of the training.
    """
    if not checkpoint.is_file():
        _say(run, f"{checkpoint.name} is a folder; it lies where the training left it")
        return None
    size = checkpoint.stat().st_size
    if size > limit:
        _say(run, f"{size / 1e6:.0f} MB are more than the limit of {limit / 1e6:.0f} MB")
        return None
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(checkpoint, Path(folder) / checkpoint.name)
        return log_model(run, Path(folder), step=step)


def _count_bytes(model: nn.Module) -> int:
    """Of all parameters and buffers, those that layers share counted once."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values() if torch.is_tensor(t))


def _say(run: TrialRun, reason: str) -> None:
    run.tag({WEIGHTS_TAG: f"not logged: {reason}"})
