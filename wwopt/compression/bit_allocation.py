"""How many bits each layer gets, so that so many are enough on average: AlphaQ (arXiv:2606.04980).

    min Σ_l (median α/α_l)^γ Var(W_l) 2^(-2 b_l)   with   Σ_l n_l b_l ≤ bits · Σ_l n_l

A layer with a heavy tail, a small alpha, gets more bits. In AlphaQ's code each layer counts alike
in the budget, whatever its size; here by its weights n_l, since a file is made of those.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from wwopt.compression.errors import CompressionError
from wwopt.compression.quantization import BITS

GAMMA = 1.0  # AlphaQ's; 10 in one of its recipes


def allot_bits(
    alphas: Mapping[str, float],
    variances: Mapping[str, float],
    sizes: Mapping[str, int],
    bits: float,
    *,
    gamma: float = GAMMA,
    choices: Sequence[int] = BITS,
) -> dict[str, int]:
    """AlphaQ's allocation, solved exactly.

    Args:
        alphas: of the layers; one without (NaN) counts as the median.
        variances: of each layer's weights.
        sizes: weights of each layer.
        bits: mean over all weights that may not be exceeded.
        gamma: how much alpha counts; 0: not at all.
        choices: of bits, from which each layer gets one.

    Raises:
        CompressionError: if the least choice is above the budget, or the layers are not the same.
    """
    if not alphas.keys() == variances.keys() == sizes.keys() or not sizes:
        raise CompressionError("bits are allotted to layers that have alpha, variance and size")
    choices = sorted(choices)
    if not bits >= choices[0]:
        raise CompressionError(f"a mean of {bits:g} bits is below the least choice, {choices[0]}")
    found = np.array(list(alphas.values()), dtype=float)
    known = found[np.isfinite(found)]
    middle = float(np.median(known)) if known.size else 1.0
    found[~np.isfinite(found)] = middle
    sensitivities = (middle / found) ** gamma * np.array([variances[name] for name in alphas])
    weights = np.array([sizes[name] for name in alphas], dtype=float)
    shares = weights / weights.sum()
    options = np.array(choices, dtype=float)
    # One binary variable a layer and choice, the choices of a layer side by side.
    costs = np.outer(sensitivities, 2.0 ** (-2.0 * options)).ravel()
    scale = float(costs.max()) or 1.0
    once = np.kron(np.eye(found.size), np.ones(options.size))
    spent = np.outer(shares, options).ravel()
    solved = milp(
        costs / scale,
        integrality=np.ones(costs.size, dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(once, 1, 1),
            LinearConstraint(spent, -np.inf, bits * (1.0 + 1e-12)),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
        raise CompressionError(f"bits could not be allotted: {solved.message}")
    chosen = solved.x.reshape(found.size, options.size).argmax(1)
    allotted = {name: choices[k] for name, k in zip(alphas, chosen, strict=True)}
    assert math.fsum(sizes[n] * b for n, b in allotted.items()) <= bits * weights.sum() + 1e-6
    return allotted
