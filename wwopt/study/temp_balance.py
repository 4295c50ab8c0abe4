"""A learning-rate factor per layer that follows its alpha: TempBalance, and LLR.

Layers whose spectrum is less heavy-tailed than the others' (larger alpha) are less trained, and get
a larger learning rate:

    lr = η · [(alpha - alpha_min)/(alpha_max - alpha_min) · (s2 - s1) + s1]

with alpha the Hill estimate over the upper half of the eigenvalues. Two rules share that map:

    TempBalance  s1 = .5, s2 = 1.5; the first layer and the last one keep their rate (Zhou et al.,
                 "Temperature Balancing, Layer-wise Weight Analysis, and Neural Network Training",
                 NeurIPS 2023, eq. 2)
    LLR          s1 = 1, s2 = 5: no layer is slower than at η; embeddings and the head, which do
                 not enter alpha_min and alpha_max, are at s2 (He et al., "One LR Doesn't Fit All:
                 Heavy-Tail Guided Layerwise Learning Rates for LLMs", ICML 2026, arXiv 2605.22297;
                 1 to 5 as in its command for 1B parameters, a configuration for 60M has 1 to 3)

Under both, layers with fewer than 50 eigenvalues keep their rate. Under TempBalance of two layers
left one gets .5 and the other 1.5, whatever their alphas, and a single one keeps its rate; under
LLR alphas that do not differ get s1, an assumption, since the paper does not say. LLR's code turns
to new rates linearly, over the first half of the steps to the next analysis, and leaves norms at η;
here a rate jumps, and norms follow the layer whose parameter group they are in.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.metrics.model_metrics import OK, LayerMetrics, ModelMetrics
from wwopt.study.convergence import find_group

Rule = Literal["TempBalance", "LLR"]

RANGES: dict[Rule, tuple[float, float]] = {  # the papers' s1 and s2
    "TempBalance": (0.5, 1.5),
    "LLR": (1.0, 5.0),
}
FACTOR_KEY = "wwopt_lr_factor"  # of a parameter group: the factor that its rate holds now


def compute_lr_factors(
    metrics: ModelMetrics,
    *,
    rule: Rule = "TempBalance",
    low: float | None = None,
    high: float | None = None,
) -> dict[str, float]:
    """Layer → factor in [low, high]; 1 for layers that keep their rate.

    Args:
        metrics: of all layers, with their spectra.
        rule: whose range, and whose treatment of embeddings and head; see the module's docstring.
            The head is the last layer, whatever it is.
        low: factor of the layer with the smallest alpha; None for the rule's.
        high: factor of the layer with the largest alpha; None for the rule's.

    Raises:
        ValueError: if the rule is not known, or one of LLR's factors would slow a layer down.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"unknown rule {rule!r}; known: {', '.join(get_args(Rule))}")
    low, high = (
        known if given is None else given
        for given, known in zip((low, high), RANGES[rule], strict=True)
    )
    if rule == "LLR" and not 1.0 <= low <= high:
        raise ValueError(
            f"LLR never goes below the base rate: low and high must be 1 <= low <= high, "
            f"got {low:g} and {high:g}; rule='TempBalance' takes any"
        )
    ends = _find_ends(metrics, rule)
    alphas = {
        layer.name: pl_alpha_hill(layer.spectrum.eigenvalues)
        for layer in metrics.layers
        if layer.name not in ends and layer.status == OK and layer.spectrum is not None
    }
    known = {name: alpha for name, alpha in alphas.items() if math.isfinite(alpha)}
    factors = {layer.name: 1.0 for layer in metrics.layers}
    least, most = min(known.values(), default=0.0), max(known.values(), default=0.0)
    if most > least:
        share = {name: (alpha - least) / (most - least) for name, alpha in known.items()}
        factors |= {name: low + (high - low) * part for name, part in share.items()}
    elif rule == "LLR":
        factors |= dict.fromkeys(known, low)
    return factors | (dict.fromkeys(ends, high) if rule == "LLR" else {})


def _find_ends(metrics: ModelMetrics, rule: Rule) -> set[str]:
    """Names of the layers whose factor does not follow their alpha."""
    layers: tuple[LayerMetrics, ...] = metrics.layers
    ends = {layer.name for layer in layers[-1:]}
    if rule == "TempBalance":
        return ends | {layer.name for layer in layers[:1]}
    return ends | {layer.name for layer in layers if layer.kind == "embedding"}


def pl_alpha_hill(eigenvalues: NDArray[np.float64]) -> float:
    """Hill estimate over the upper half: 1 + k/Σ ln(λᵢ/λ_(n-k)), i > n - k, with k = n/2.

    Args:
        eigenvalues: shape (n,), ascending, slices pooled.

    Returns:
        NaN where λ_(n-k) is zero, or all of the upper half equal it.
    """
    n = eigenvalues.size
    k = n // 2
    threshold = eigenvalues[n - k - 1] if k else 0.0
    if not threshold > 0.0:
        return math.nan
    total = float(np.log(eigenvalues[n - k :] / threshold).sum())
    return 1.0 + k / total if total > 0.0 else math.nan


def scale_learning_rates(optimizer: torch.optim.Optimizer, factors: Mapping[str, float]) -> None:
    """Give every parameter group the rate that it would have without factors, times its own.

    Call it after the scheduler's step. Schedulers that multiply the present rate (StepLR,
    ExponentialLR, CosineAnnealingLR) keep the factor; those that set it anew (LambdaLR, OneCycleLR)
    are not supported.

    Args:
        optimizer: with a "name" in each group, as `LayerHyperparameters.optimizer` makes it.
        factors: layer → factor, as `Advice.lr_factors` holds them; a group with several layers gets
            their mean. Nothing happens without any, as at steps that were not analysed.
    """
    beneath: dict[str, list[float]] = {}
    for layer, factor in factors.items():
        beneath.setdefault(find_group(optimizer, layer) or "", []).append(factor)
    for group in optimizer.param_groups:
        found = beneath.get(str(group.get("name")))
        if found:
            factor = sum(found) / len(found)
            group["lr"] *= factor / group.get(FACTOR_KEY, 1.0)
            group[FACTOR_KEY] = factor
