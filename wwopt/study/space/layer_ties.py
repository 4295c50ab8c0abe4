"""How layers share their hyperparameters: which values are sampled, and each layer's share in them.

A *knot* is a sampled value. A layer's own value is a mean of one or two knots, weighted by its
shares; for learning rates and weight decays the mean is that of the logarithms.
"""

import math
from collections.abc import Sequence
from typing import Literal

Tie = Literal["global", "block", "depth", "layer", "coarse-to-fine"]
Shares = list[tuple[str, float]]  # (knot, share); shares sum to 1

KNOTS = ("first", "middle", "last")


def share_knots(tie: Tie, layers: Sequence[str]) -> dict[str, Shares]:
    """Layer → its knots; "coarse-to-fine" starts as "depth"."""
    if tie == "global":
        return {layer: [("all", 1.0)] for layer in layers}
    if tie == "block":
        return {layer: [(_block(layer), 1.0)] for layer in layers}
    if tie == "layer" or len(layers) < len(KNOTS):
        return {layer: [(layer, 1.0)] for layer in layers}
    shares: dict[str, Shares] = {}
    for index, layer in enumerate(layers):
        position = index / (len(layers) - 1) * (len(KNOTS) - 1)
        left = min(int(position), len(KNOTS) - 2)
        part = position - left
        both = [(f"depth={KNOTS[left]}", 1.0 - part), (f"depth={KNOTS[left + 1]}", part)]
        shares[layer] = [(knot, share) for knot, share in both if share > 0.0]
    return shares


def interpolate(knots: Sequence[tuple[float, float]], *, log: bool) -> float:
    """Mean of the knots' values by share, or of their logarithms.

    Args:
        knots: (value, share) of each.
        log: whether to interpolate in the logarithm.
    """
    if len(knots) == 1:
        return knots[0][0]
    if log:
        return math.exp(math.fsum(share * math.log(value) for value, share in knots))
    return math.fsum(share * value for value, share in knots)


def _block(layer: str) -> str:
    """The block of a layer: `encoder.layers.3` for `encoder.layers.3.fc1`, `conv1` for `conv1`."""
    parts = layer.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else parts[0]
