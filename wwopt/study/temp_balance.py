"""A learning-rate factor per layer that follows its alpha: TempBalance.

Layers whose spectrum is less heavy-tailed than the others' (larger alpha) are less trained, and get
a larger learning rate (Zhou et al., "Temperature Balancing, Layer-wise Weight Analysis, and Neural
Network Training", NeurIPS 2023, eq. 2):

    lr = η · [(alpha - alpha_min)/(alpha_max - alpha_min) · (s2 - s1) + s1]    s1 = .5, s2 = 1.5

with alpha the Hill estimate over the upper half of the eigenvalues. As there, the first layer, the
last one and those with fewer than 50 eigenvalues keep their rate. With two layers left one gets .5
and the other 1.5, whatever their alphas; with one, it keeps its rate.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.metrics.model_metrics import OK, ModelMetrics
from wwopt.study.convergence import find_group

LOW, HIGH = 0.5, 1.5  # the paper's s1 and s2
FACTOR_KEY = "wwopt_lr_factor"  # of a parameter group: the factor that its rate holds now


def compute_lr_factors(
    metrics: ModelMetrics, *, low: float = LOW, high: float = HIGH
) -> dict[str, float]:
    """Layer → factor in [low, high]; 1 for layers that keep their rate.

    Args:
        metrics: of all layers, with their spectra.
        low: factor of the layer with the smallest alpha.
        high: factor of the layer with the largest alpha.
    """
    alphas = {
        layer.name: pl_alpha_hill(layer.spectrum.eigenvalues)
        for layer in metrics.layers[1:-1]
        if layer.status == OK and layer.spectrum is not None
    }
    known = {name: alpha for name, alpha in alphas.items() if math.isfinite(alpha)}
    factors = {layer.name: 1.0 for layer in metrics.layers}
    least, most = min(known.values(), default=0.0), max(known.values(), default=0.0)
    if most > least:
        share = {name: (alpha - least) / (most - least) for name, alpha in known.items()}
        factors |= {name: low + (high - low) * part for name, part in share.items()}
    return factors


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
