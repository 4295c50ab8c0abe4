"""Which weights of a layer go: the smallest, exactly so many, and how many in which layer.

By alpha: AlphaPruning (Lu et al. 2024, NeurIPS; arXiv:2410.10912) prunes layers with a lighter
tail, a larger alpha, more. It maps alphas linearly to s from 1 - ε to 1 + ε and scales all s to the
sparsity that is wanted of the network.
"""

from collections.abc import Mapping

import numpy as np
import torch

from wwopt.compression.errors import CompressionError

EPSILON = 0.3  # AlphaPruning's for LLaMA


def count_zeros(size: int, sparsity: float) -> int:
    """Weights of so many that go.

    Raises:
        CompressionError: if the sparsity is not from 0 to below 1.
    """
    if not 0.0 <= sparsity < 1.0:
        raise CompressionError(f"sparsity must be from 0 to below 1, got {sparsity:g}")
    return round(sparsity * size)


def magnitude_mask(weights: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Which weights stay: all but the smallest by magnitude, exactly so many; of equals the later.

    Args:
        weights: of any shape, finite.
        sparsity: share that goes, from 0 to below 1.

    Returns:
        bool, of the same shape.

    Raises:
        CompressionError: if the sparsity is not from 0 to below 1.
    """
    zeros = count_zeros(weights.numel(), sparsity)
    if not zeros:
        return torch.ones(weights.shape, dtype=torch.bool)
    sizes = weights.detach().abs().reshape(-1)
    level = sizes.kthvalue(zeros).values  # a fifth of the time that sorting takes
    mask = sizes > level
    equal = (sizes == level).nonzero()[:, 0]
    mask[equal[zeros - int((sizes < level).sum()) :]] = True
    return mask.view(weights.shape)


def allot_sparsity(
    alphas: Mapping[str, float],
    sizes: Mapping[str, int],
    target: float,
    *,
    epsilon: float = EPSILON,
    most: float = 0.99,
) -> dict[str, float]:
    """AlphaPruning's map: a sparsity for each layer, whose mean over the weights is the target.

    s_l = 1 - ε + 2ε (α_l - α_min)/(α_max - α_min), scaled to Σ n_l s_l = target · Σ n_l.

    Args:
        alphas: of the layers; a layer without one (NaN) counts as the median.
        sizes: weights of each layer.
        target: share of all these weights that goes, from 0 to `most`.
        epsilon: from 0, uniform, to below 1.
        most: no layer loses more; what that leaves over is shared out among the others.

    Raises:
        CompressionError: if target or epsilon are out of range, or the layers are not the same.
    """
    if alphas.keys() != sizes.keys() or not sizes:
        raise CompressionError("sparsity is allotted to layers that have a size and an alpha each")
    if not 0.0 <= target <= most:
        raise CompressionError(f"sparsity must be from 0 to {most:g}, got {target:g}")
    if not 0.0 <= epsilon < 1.0:
        raise CompressionError(f"epsilon must be from 0 to below 1, got {epsilon:g}")
    found = np.array(list(alphas.values()), dtype=float)
    weights = np.array([sizes[name] for name in alphas], dtype=float)
    weights /= weights.sum()
    known = found[np.isfinite(found)]
    found[~np.isfinite(found)] = np.median(known) if known.size else 0.0
    spread = float(np.ptp(found))
    place = (found - found.min()) / spread if spread > 0.0 else np.full(found.size, 0.5)
    shares = 1.0 - epsilon + 2.0 * epsilon * place
    full = np.zeros(found.size, dtype=bool)  # at `most`
    while True:
        left = target - most * weights[full].sum()
        total = float((weights * shares)[~full].sum())
        scaled = np.where(full, most, shares * (left / total if total > 0.0 else 0.0))
        over = (scaled > most) & ~full
        if not over.any():
            return dict(zip(alphas, map(float, scaled), strict=True))
        full |= over
