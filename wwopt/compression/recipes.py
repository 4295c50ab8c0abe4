"""What is asked of a whole network, and the plan of each layer that follows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wwopt.compression.bit_allocation import GAMMA, allot_bits
from wwopt.compression.errors import CompressionError
from wwopt.compression.layers import Layer, Network, match_layers
from wwopt.compression.low_rank import RankRule, choose_rank
from wwopt.compression.plans import LayerPlan, count_bytes
from wwopt.compression.pruning import EPSILON, allot_sparsity
from wwopt.compression.quantization import BITS, check_bits
from wwopt.metrics.model_metrics import ModelMetrics

By = Literal["uniform", "alpha"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is to be compressed; by default not at all.

    Sparsity and bits are means over the weights of all layers that are compressed. By alpha they
    differ from layer to layer, by AlphaPruning's map and AlphaQ's allocation.
    """

    bits: float | None = None  # 2 to 8; by alpha also in between; None: not rounded
    bits_by: By = "uniform"
    gamma: float = GAMMA  # how much alpha counts in AlphaQ's allocation
    group: int | None = None  # inputs that share a scale; None: all inputs of an output
    clip: bool = False  # whether large weights may be clipped for less squared error
    sparsity: float = 0.0  # share of weights that are set to zero, from 0 to below 1
    sparsity_by: By = "uniform"
    epsilon: float = EPSILON  # AlphaPruning's: sparsities from 1 - ε to 1 + ε times the mean
    rank: int | float | RankRule | None = None  # a number, a share of energy, "erg" or "tail"
    keep: tuple[str, ...] = ()  # names and patterns of layers that stay as they are

    def __post_init__(self) -> None:
        if self.bits is not None and self.bits_by == "uniform":
            if self.bits != int(self.bits):
                raise CompressionError(
                    f"{self.bits:g} bits for every layer: only by alpha can a mean lie in between"
                )
            check_bits(int(self.bits), self.group)
        if self.bits is not None and not BITS[0] <= self.bits <= BITS[-1]:
            raise CompressionError(f"bits must be {BITS[0]} to {BITS[-1]}, got {self.bits:g}")
        if not 0.0 <= self.sparsity < 1.0:
            raise CompressionError(f"sparsity must be from 0 to below 1, got {self.sparsity:g}")
        if isinstance(self.rank, int) and self.rank < 1:
            raise CompressionError(f"rank must be at least 1, got {self.rank}")
        if isinstance(self.rank, float) and not 0.0 < self.rank <= 1.0:
            raise CompressionError(
                f"rank must be a whole number, or a share of energy up to 1, got {self.rank:g}"
            )
        if self.bits is None and not self.sparsity and self.rank is None:
            raise CompressionError("nothing to do: give bits, a sparsity or a rank")

    @property
    def needs_alpha(self) -> bool:
        """Whether the layers' spectra have a say."""
        return (self.bits is not None and self.bits_by == "alpha") or (
            self.sparsity > 0.0 and self.sparsity_by == "alpha"
        )


def plan_layers(network: Network, recipe: Recipe, metrics: ModelMetrics) -> dict[str, LayerPlan]:
    """The plan of every layer that is compressed; those that are kept have none.

    Args:
        network: as `list_layers` lists it.
        recipe: what is asked of it.
        metrics: of its layers, for alpha.

    Raises:
        CompressionError: if a layer to keep is not there, or nothing is left to compress.
    """
    kept = match_layers(network, recipe.keep)
    layers = [layer for layer in network.layers if layer.name not in kept]
    if not layers:
        raise CompressionError(f"all {len(kept)} layers are kept: nothing is left to compress")
    alphas = read_alphas(layers, metrics)
    sizes = {layer.name: layer.size for layer in layers}
    bits: Mapping[str, int | None] = dict.fromkeys(
        sizes, None if recipe.bits is None else int(recipe.bits)
    )
    if recipe.bits is not None and recipe.bits_by == "alpha":
        variances = {layer.name: float(layer.read().double().var()) for layer in layers}
        bits = allot_bits(alphas, variances, sizes, recipe.bits, gamma=recipe.gamma)
    sparsities: Mapping[str, float] = dict.fromkeys(sizes, recipe.sparsity)
    if recipe.sparsity and recipe.sparsity_by == "alpha":
        sparsities = allot_sparsity(
            alphas, sizes, recipe.sparsity, epsilon=recipe.epsilon, most=max(0.99, recipe.sparsity)
        )
    plans = {}
    for layer in layers:
        chosen = bits[layer.name]
        plan = LayerPlan(
            bits=chosen,
            group=None if chosen is None else recipe.group,
            clip=recipe.clip and chosen is not None,
            sparsity=sparsities[layer.name],
        )
        plans[layer.name] = _with_rank(layer, plan, recipe.rank)
    return plans


def read_alphas(layers: list[Layer], metrics: ModelMetrics) -> dict[str, float]:
    """The averaged Hill estimate of each layer, over the fused ones' matrices by their weights.

    AlphaPruning reads a Hill estimate too; the fit of alpha jumps with its xmin.

    Returns:
        NaN where there is none.
    """
    by_name = {layer.name: layer for layer in metrics.layers}
    found = {}
    for layer in layers:
        known = [by_name[name] for name in layer.matrices if name in by_name]
        values = [(m.hill, m.N * m.M * m.num_slices) for m in known if math.isfinite(m.hill)]
        hills, sizes = zip(*values, strict=True) if values else ((math.nan,), (1,))
        found[layer.name] = float(np.average(hills, weights=sizes))
    return found


def _with_rank(layer: Layer, plan: LayerPlan, rank: int | float | RankRule | None) -> LayerPlan:
    """The plan with a rank, if the layer takes fewer bytes by it; a layer of less rank stays."""
    if rank is None:
        return plan
    smaller = min(layer.shape[1:])
    if isinstance(rank, int):
        number = rank
    else:
        matrices = layer.read()
        number = choose_rank(matrices if layer.stacked else matrices[0], rank)
    cut = replace(plan, rank=min(number, smaller))
    itemsize = layer.dtype.itemsize
    saves = count_bytes(layer.shape, itemsize, cut) < count_bytes(layer.shape, itemsize, plan)
    return cut if number < smaller and saves else plan
