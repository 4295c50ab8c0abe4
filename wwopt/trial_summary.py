"""What one trial says of itself in plain numbers: aggregates for charts, a row for each layer."""

import math
from collections.abc import Mapping
from typing import Any

from wwopt.layer_metrics import LayerMetrics, ModelMetrics
from wwopt.objective import ObjectiveValue


def aggregate(result: ObjectiveValue, spectra: ModelMetrics) -> dict[str, float]:
    """About a dozen numbers a network, grouped by what stands before the slash."""
    counted = spectra.counted
    columns: dict[str, list[float]] = {
        name: [float(v) for v in (getattr(layer, name) for layer in counted) if math.isfinite(v)]
        for name in ("alpha", "hill", "D", "num_traps", "trap_z", "stable_rank")
    }
    found = {"objective/value": result.value}
    found |= {f"objective/{term}": value for term, value in result.terms.items()}
    if columns["alpha"]:
        alpha = columns["alpha"]
        found |= {"alpha/mean": sum(alpha) / len(alpha), "alpha/min": min(alpha)}
        found |= {"alpha/max": max(alpha), "alpha/D": sum(columns["D"]) / len(alpha)}
    if columns["hill"]:
        found["alpha/hill"] = sum(columns["hill"]) / len(columns["hill"])
    if columns["trap_z"]:
        found |= {"traps/count": sum(columns["num_traps"]), "traps/worst_z": max(columns["trap_z"])}
    if columns["stable_rank"]:
        found["rank/stable_min"] = min(columns["stable_rank"])
    return found


def summarize_layer(layer: LayerMetrics) -> dict[str, Any]:
    """The few numbers of a layer that an Optuna trial carries; the whole table is MLflow's."""
    numbers = {
        "alpha": layer.alpha,
        "sigma": layer.sigma,
        "D": layer.D,
        "hill": layer.hill,
        "traps": layer.num_traps,
        "stable_rank": layer.stable_rank,
    }
    return {**finite(numbers), "status": layer.status}


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON knows them: what is not finite becomes null."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
