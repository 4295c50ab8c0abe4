"""Ways of spending the same bytes: uniform, magnitude-global, AlphaPruning, AlphaQ and wwopt's.

All get the budget of the file as written, and the same rounding: to the nearest level, or with
compensation. Uniform takes one pair of bits and sparsity for all layers; a pruning rule shares out
the sparsity, and what stays has one number of bits. Which number, follows from the least mean
relative squared error, which needs no data.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch

from wwopt.compression import (
    LayerPlan,
    Network,
    allot_sparsity,
    apply_plans,
    count_bytes,
    dequantize,
    magnitude_mask,
    quantize,
)
from wwopt.compression.budget import Choice, MeasuredNetwork, choose_plans, measure_network
from wwopt.compression.errors import CompressionError
from wwopt.compression.quantization import BITS

Plans = dict[str, LayerPlan]
RULES = ("uniform", "magnitude-global", "AlphaPruning", "AlphaQ", "wwopt")
_MOST = 0.99  # of a layer's weights are pruned


class Rules:
    """The rules on one network; what they share is measured once."""

    def __init__(self, network: Network) -> None:
        """Read the layers, and measure them."""
        self.network = network
        self.weights = {layer.name: layer.read() for layer in network.layers}
        self.sizes = {name: w.numel() for name, w in self.weights.items()}
        self.alphas = find_alphas(network)
        self.measured = measure_network(network)
        self.headers = {
            sparse: self._true_bytes(plan) - self._tensor_bytes(self._all(plan))
            for sparse, plan in (
                (False, LayerPlan(bits=4)),
                (True, LayerPlan(bits=4, sparsity=0.5)),
            )
        }

    def int4_bytes(self) -> int:
        """Bytes of the file with every layer at 4 bits, a scale a row."""
        return self._true_bytes(LayerPlan(bits=4))

    def _all(self, plan: LayerPlan) -> Plans:
        return dict.fromkeys(self.weights, plan)

    def _true_bytes(self, plan: LayerPlan) -> int:
        return apply_plans(self.network, self._all(plan)).bytes

    def _tensor_bytes(self, plans: Plans) -> int:
        return sum(
            count_bytes(layer.shape, layer.dtype.itemsize, plans[layer.name])
            for layer in self.network.layers
        )

    def choose(self, rule: str, budget: int, *, compensate: bool) -> Plans:
        """The plans of a rule; their file has at most the budget's bytes.

        Raises:
            CompressionError: if the rule cannot meet the budget.
        """
        if rule == "wwopt":
            plans = choose_plans(self.measured, budget).plans
        else:
            plans = self._alpha_q(budget) if rule == "AlphaQ" else self._best(rule, budget)
        return {
            name: replace(plan, compensate=compensate) if plan.bits else plan
            for name, plan in plans.items()
        }

    def _alpha_q(self, budget: int) -> Plans:
        """Least Σ (median α/α_l) n_l Var(W_l) 4^(-b_l) within the budget."""
        middle = float(np.median(list(self.alphas.values())))
        choices = {}
        for layer in self.network.layers:
            scale = middle / self.alphas[layer.name] * layer.size
            scale *= float(self.weights[layer.name].var())
            choices[layer.name] = tuple(
                Choice(
                    LayerPlan(bits=bits),
                    count_bytes(layer.shape, layer.dtype.itemsize, LayerPlan(bits=bits)),
                    math.nan,
                    scale * 4.0**-bits,
                )
                for bits in BITS
            )
        fixed = self.headers[False] + 8 + 2 * len(choices)
        return choose_plans(MeasuredNetwork(choices, fixed, self.measured.now), budget).plans

    def _best(self, rule: str, budget: int) -> Plans:
        """Least mean relative squared error over how many bits the weights that stay have."""
        found: list[tuple[float, Plans]] = []
        for bits in (3, 4, 5, 6, 8):
            plans = self._fill(bits, self._maps()[rule], budget, may_keep_all=rule == "uniform")
            if plans is not None:
                found.append((self._error(plans), plans))
        if not found:
            raise CompressionError(f"{rule} cannot meet a budget of {budget:,} bytes")
        return min(found, key=lambda pair: pair[0])[1]

    def _maps(self) -> dict[str, Callable[[float], Mapping[str, float]]]:
        def magnitude(target: float) -> Mapping[str, float]:
            every = torch.cat([w.abs().flatten() for w in self.weights.values()])
            kept = max(1, round((1.0 - target) * len(every)))
            level = every.topk(kept).values[-1]
            return {
                name: min(_MOST, float((w.abs() < level).double().mean()))
                for name, w in self.weights.items()
            }

        return {
            "uniform": lambda target: dict.fromkeys(self.sizes, target),
            "magnitude-global": magnitude,
            "AlphaPruning": lambda t: allot_sparsity(self.alphas, self.sizes, t, most=_MOST),
        }

    def _fill(
        self,
        bits: int,
        share: Callable[[float], Mapping[str, float]],
        budget: int,
        *,
        may_keep_all: bool,
    ) -> Plans | None:
        """The least sparsity whose file fits, to a thousandth; None where none does."""

        def plans_at(target: float) -> Plans:
            return {n: LayerPlan(bits=bits, sparsity=s) for n, s in share(target).items()}

        low, high = 0.0, 0.98
        if self._bytes(plans_at(low)) <= budget:
            return plans_at(low) if may_keep_all else None
        if self._bytes(plans_at(high)) > budget:
            return None
        while high - low > 1e-3:
            middle = (low + high) / 2.0
            low, high = (low, middle) if self._bytes(plans_at(middle)) <= budget else (middle, high)
        return plans_at(high)

    def _bytes(self, plans: Plans) -> int:
        """Of the file, at most: a header for masks where a layer may have one, longer numbers."""
        sparse = any(plan.sparsity for plan in plans.values())
        return self._tensor_bytes(plans) + self.headers[sparse] + sparse * (8 + 4 * len(plans))

    def _error(self, plans: Plans) -> float:
        errors = []
        for name, plan in plans.items():
            W = self.weights[name].flatten(0, 1)
            pruned = W * magnitude_mask(W, plan.sparsity)
            assert plan.bits is not None
            change = dequantize(quantize(pruned, plan.bits)) - W
            errors.append(float(change.square().sum() / W.square().sum()))
        return float(np.mean(errors))


def find_alphas(network: Network) -> dict[str, float]:
    """AlphaPruning's and AlphaQ's alpha: Hill's estimate over the upper half of the eigenvalues."""
    found = {}
    for layer in network.layers:
        matrix = layer.read().flatten(0, 1).double()
        values = torch.linalg.svdvals(matrix).square()
        half = max(1, len(values) // 2)
        logs = (values[:half] / values[min(half, len(values) - 1)].clamp_min(1e-12)).log()
        found[layer.name] = 1.0 + half / max(float(logs.sum()), 1e-9) if half else math.nan
    return found
