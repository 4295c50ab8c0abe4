"""One candidate of a ranking: its spectral metrics, and what else tells its kind and its size.

Candidates are read one after another and tensors one at a time, so that any number of checkpoints
of any size costs the memory of one tensor; what stays are the spectra.
"""

import math
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from wwopt.metrics.analysis import analyze
from wwopt.metrics.model_metrics import MIN_EIGENVALUES, TOO_FEW, ModelMetrics
from wwopt.selection.kinship import Directions, read_directions
from wwopt.weights.matrices import is_path, locate, read_weights
from wwopt.weights.stored_tensors import WeightsError


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that asks to be ranked."""

    name: str
    metrics: ModelMetrics
    parameters: float  # of the whole model; where only its layers are known, of those; else NaN
    coverage: float  # share of the parameters that the counted layers hold; NaN: not known
    model_type: str = ""  # Hugging Face's, e.g. "bert"
    # Leading singular vectors of a few layers; empty where only a table or metrics are known.
    directions: Directions = field(default_factory=dict, repr=False, compare=False)


def read_candidate(
    name: str,
    source: Any,
    *,
    layers: Iterable[str] | None = None,
    key: str | None = None,
    seed: int = 0,
    shuffles: int = 3,
    executor: Executor | None = None,
    device: torch.device | str | None = None,
    quick: bool = False,
) -> Candidate:
    """Analyse a source, unless it is analysed already.

    Args:
        name: what the ranking calls it.
        source: whatever `analyze` takes; or its result, a layer table (see `layer_tables`), the
            path of one, ending in `.csv`, or a candidate that was read already.
        layers: names to analyse; None for all.
        key: dotted path of the model in a checkpoint that holds several.
        seed: of the shuffles behind the traps.
        shuffles: of every layer.
        executor: computes the layers.
        device: where to compute.
        quick: estimate large layers quickly, as `analyze` does.

    Raises:
        ValueError: if the source cannot be read, or no layer of it can be analysed; as
            `WeightsError` where it is about weights.
    """
    if isinstance(source, Candidate):
        return replace(source, name=name)
    metrics = _read_table(source)
    total, model_type = math.nan, ""
    directions: Directions = {}
    if metrics is None:
        if executor is not None:  # its workers may have another working directory
            source = locate(source)
        weights = read_weights(source, layers=None if layers is None else list(layers), key=key)
        total, model_type = weights.parameters, weights.model_type
        metrics = analyze(
            weights, seed=seed, shuffles=shuffles, executor=executor, device=device, quick=quick
        )
        directions = read_directions(weights)
    if not metrics.counted:
        raise WeightsError(_why_none(metrics))
    sizes = [layer.N * layer.M * layer.num_slices for layer in metrics.layers]
    known = float(sum(sizes)) if all(sizes) else math.nan
    counted = sum(layer.N * layer.M * layer.num_slices for layer in metrics.counted)
    return Candidate(
        name=name,
        metrics=metrics,
        parameters=known if math.isnan(total) else total,
        coverage=min(counted / total, 1.0) if total > 0 else math.nan,
        model_type=model_type,
        directions=directions,
    )


def _read_table(source: Any) -> ModelMetrics | None:
    if isinstance(source, ModelMetrics):
        return source
    if isinstance(source, pd.DataFrame):
        return ModelMetrics.from_frame(source)
    if is_path(source) and Path(source).suffix.lower() == ".csv":
        try:
            return ModelMetrics.from_frame(pd.read_csv(source))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise WeightsError(f"{source} cannot be read as a layer table: {reason}") from error
    return None


def _why_none(metrics: ModelMetrics) -> str:
    few = [layer for layer in metrics.layers if layer.status == TOO_FEW]
    if few:
        most = max(few, key=lambda layer: layer.num_evals)
        return (
            f"no layer has the {MIN_EIGENVALUES} eigenvalues that alpha takes; the most has "
            f"{most.name}, {most.num_evals}"
        )
    if metrics.layers:
        return f"no layer can be judged: {metrics.layers[0].name} is {metrics.layers[0].status}"
    named = "; ".join(f"{name} ({why})" for name, why in list(metrics.skipped.items())[:3])
    return f"no layer can be analysed: {named or 'there is none'}"
