"""The scores that candidates are ranked by, lower is better, and what each layer adds to them.

A score is the weights-only objective under a preset's name, or a mean over layers that the
literature ranks by (`STATISTICS`). Both are a mean over layers (the objective but for a term of the
first one), so that layers can be drawn again for an interval, and it is known which of them decide.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from wwopt.metrics.model_metrics import OK, LayerMetrics, ModelMetrics
from wwopt.metrics.objective import Preset, SpectralObjective

CLIPPED_ALPHA = 8.0  # above it there is no power law, and the fit's scatter would rule the mean

# Means over the counted layers, each lower for better networks in the work that uses it.
STATISTICS: Mapping[str, str] = {
    "alpha_hat": "mean alpha · log10 λmax (Martin, Peng & Mahoney 2021)",
    "alpha": "mean alpha (Martin & Mahoney 2021); too large a learning rate lowers it as well",
    "alpha_distance": f"mean |alpha - 2|, alpha clipped at {CLIPPED_ALPHA:g}",
    "log_alpha_norm": "mean log10 Σ λ^alpha (Martin, Peng & Mahoney 2021)",
    "log_norm": "mean log10 ‖W‖² (the same; norm-based bounds)",
    "log_spectral_norm": "mean log10 λmax (the same)",
    "stable_rank": "mean Σλ/λmax (Neyshabur et al. 2018, arXiv 1707.09564: bounds grow with it)",
    "mp_softrank": "mean λ+/λmax (Martin & Mahoney 2021)",
}
ALIASES = {"alpha_weighted": "alpha_hat", "alphahat": "alpha_hat", "default": "weights-only"}


@dataclass(frozen=True)
class Score:
    """One candidate under one score."""

    value: float  # lower is better; NaN where the metrics do not hold what it takes
    layers: Mapping[str, float]  # layer → its part; the value is their mean, or close to it
    terms: Mapping[str, float]  # of an objective, they sum to the value; empty for a statistic
    status: str  # "ok", or what is wrong with the network


def resolve_objective(objective: str | SpectralObjective) -> str | SpectralObjective:
    """The statistic or objective of a name.

    Raises:
        ValueError: if no preset and no statistic has the name, or it reads more than weights.
    """
    if isinstance(objective, str):
        name = ALIASES.get(objective, objective)
        if name in STATISTICS:
            return name
        presets: tuple[Preset, ...] = get_args(Preset)
        if name not in presets:
            usable = [p for p in presets if not SpectralObjective(preset=p).reads_train_loss]
            known = ", ".join([*usable, *STATISTICS])
            raise ValueError(f"unknown objective {objective!r}; known: {known}")
        objective = SpectralObjective(preset=next(p for p in presets if p == name))
    if objective.reads_train_loss:
        raise ValueError(
            f"the preset {objective.preset!r} reads the training loss, and a ranking has weights "
            "alone; rank by 'weights-only'"
        )
    return objective


def name_objective(objective: str | SpectralObjective) -> str:
    """What a table calls it."""
    if isinstance(objective, str):
        return objective
    standard = objective == SpectralObjective(preset=objective.preset)
    return objective.preset if standard else f"{objective.preset}, other options"


def score_model(metrics: ModelMetrics, objective: str | SpectralObjective) -> Score:
    """Score a model by a resolved objective.

    Raises:
        ValueError: if the preset reads more than the weights.
    """
    if isinstance(objective, SpectralObjective):
        found = objective(metrics)
        layers = {name: math.fsum(terms.values()) for name, terms in found.layers.items()}
        return Score(found.value, layers, found.terms, found.status)
    layers = {layer.name: _statistic(layer, objective) for layer in metrics.counted}
    known = [value for value in layers.values() if math.isfinite(value)]
    value = sum(known) / len(known) if known else math.nan
    broken = metrics.broken
    status = f"broken: {broken[0].name} {broken[0].status}" if broken else OK
    return Score(value, layers, {}, status)


def _statistic(layer: LayerMetrics, name: str) -> float:
    if name == "alpha_distance":
        return abs(min(layer.alpha, CLIPPED_ALPHA) - 2.0) if layer.alpha > 0 else math.nan
    return float(getattr(layer, "alpha_weighted" if name == "alpha_hat" else name))
