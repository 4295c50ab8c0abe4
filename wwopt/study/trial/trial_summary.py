"""What one trial says of itself in plain numbers: aggregates for charts, a row for each layer."""

import math
from collections.abc import Mapping
from typing import Any

from wwopt.metrics.model_metrics import OK, LayerMetrics, ModelMetrics
from wwopt.metrics.objective import ObjectiveValue
from wwopt.metrics.owners import group_by_kind, settings_of
from wwopt.plain_data import make_plain
from wwopt.wording import number, plus_minus

MAX_NOTE = 7500  # characters of a description; MLflow's tags hold 8,000


def aggregate(result: ObjectiveValue | None, spectra: ModelMetrics) -> dict[str, float]:
    """About a dozen numbers a network, grouped by what stands before the slash."""
    counted = spectra.counted
    columns: dict[str, list[float]] = {
        name: [float(v) for v in (getattr(layer, name) for layer in counted) if math.isfinite(v)]
        for name in ("alpha", "hill", "D", "num_traps", "trap_z", "stable_rank")
    }
    found: dict[str, float] = {}
    if result is not None:
        found["objective/value"] = result.value
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
    plain: dict[str, Any] = make_plain({name: float(value) for name, value in numbers.items()})
    return plain | {"status": layer.status}


def describe_trial(
    value: float | None,
    terms: Mapping[str, float],
    layers: Mapping[str, Mapping[str, Any]],
    *,
    status: str,
    hyperparameters: Mapping[str, Any],
) -> str:
    """A trial in Markdown, for MLflow and the dashboard: objective, terms, a row for each layer.

    What does not fit into MLflow's description is left out, and said to be.

    Args:
        value: of the objective at the last analysis; None before one.
        terms: that it is the sum of.
        layers: name → what `summarize_layer` says of it; empty before an analysis.
        status: named; "ok" is not worth a word.
        hyperparameters: each layer's own, as {"lr/fc1": .1}.
    """
    words = [] if status == OK else [f"Status: {status}."]
    if value is not None:
        listed = ", ".join(f"{name} {term:+.3f}" for name, term in terms.items() if term)
        words.append(f"Objective {value:.4f} ({listed}; lower is better).")
    text = " ".join(words)
    if not layers:
        return text
    return f"{text}\n\n{tabulate_layers(layers, hyperparameters, most=MAX_NOTE - len(text))}"


def tabulate_layers(
    layers: Mapping[str, Mapping[str, Any]],
    hyperparameters: Mapping[str, Any],
    *,
    most: int = MAX_NOTE,
) -> str:
    """A Markdown table with a row for each layer.

    Args:
        layers: name → what `summarize_layer` says of it.
        hyperparameters: each layer's own, as {"lr/fc1": .1}.
        most: characters; rows that do not fit are counted instead.
    """
    kinds = group_by_kind(hyperparameters)
    head = ["layer", *kinds, "alpha", "D", "traps", "status"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for index, (name, layer) in enumerate(layers.items()):
        own = settings_of(name, kinds)
        cells = [name.replace("|", "\\|"), *(number(own.get(kind), ".3g") for kind in kinds)]
        cells += [plus_minus(layer.get("alpha"), layer.get("sigma")), number(layer.get("D"), ".3f")]
        cells += [number(layer.get("traps"), ".0f"), str(layer.get("status", ""))]
        row = f"| {' | '.join(cells)} |"
        left = len(layers) - index
        if sum(map(len, lines)) + len(lines) + len(row) + 60 > most:
            return "\n".join([*lines, "", f"{left} more layers are in the layer table."])
        lines.append(row)
    return "\n".join(lines)
