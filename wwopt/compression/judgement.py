"""What compressing did to the layers' spectra, by the gate; and how far a broken layer could go.

The gate (`wwopt.gate`) sees no data. A layer that is cut to a rank is not judged by what it was
meant to lose: its rank, and the shape of the spectrum below (KS distance, alpha, averaged Hill).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from wwopt.compression.encoding import encode_layer
from wwopt.compression.layers import Layer
from wwopt.compression.low_rank import check_rank
from wwopt.compression.plans import LayerPlan
from wwopt.compression.quantization import BITS
from wwopt.gate.checks import LayerCheck, Side, compare_sides, measure_side
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.model_metrics import RANK_DEFICIENT, ModelMetrics
from wwopt.weights.matrices import WeightMatrix, Weights

LOST_BY_RANK = frozenset({"rank", "ks", "alpha", "hill"})  # quantities of the gate
_STEP = 0.05  # of sparsity, from one plan to the next milder one
_GROWTH = 1.15  # of a rank


@dataclass(frozen=True)
class Judge:
    """A network before it was compressed, measured, and what is still harmless."""

    before: Weights
    metrics: ModelMetrics  # of `before`
    thresholds: Thresholds
    options: Mapping[str, Any]  # of `wwopt.analyze`: seed, shuffles, device, quick

    def judge(
        self,
        layers: Sequence[Layer],
        weights: Mapping[str, torch.Tensor],
        plans: Mapping[str, LayerPlan],
        *,
        progress: bool = False,
    ) -> dict[str, tuple[LayerCheck, ...]]:
        """Compare layers with what they were.

        Args:
            layers: to judge.
            weights: by layer name, of the shape that the layer's tensor has.
            plans: by layer name, which the weights follow.
            progress: show bars.

        Returns:
            By layer name, a check for each of its matrices; none where a layer was not measured.
        """
        old = {matrix.name: matrix for matrix in self.before.matrices}
        new: list[WeightMatrix] = []
        for layer in layers:
            for name, part in zip(layer.matrices, layer.parts, strict=True):
                if name in old:
                    read = partial(part.slices, weights[layer.name])
                    new.append(replace(old[name], read=read))
        names = {matrix.name for matrix in new}
        if not names:
            return {layer.name: () for layer in layers}
        known = tuple(layer for layer in self.metrics.layers if layer.name in names)
        before = Side(
            replace(self.metrics, layers=known),
            replace(self.before, matrices=tuple(old[matrix.name] for matrix in new)),
        )
        after = measure_side(
            replace(self.before, matrices=tuple(new), in_files=False),
            progress=progress,
            **self.options,
        )
        result = compare_sides(before, after, self.thresholds, continued=True)
        checks = {check.name: check for check in result.layers}
        return {
            layer.name: tuple(
                _excuse(checks[name], plans[layer.name]) for name in layer.matrices if name in names
            )
            for layer in layers
        }

    def find_limit(self, layer: Layer, plan: LayerPlan) -> LayerPlan | None:
        """The furthest plan, milder than one that breaks a layer, that does not.

        The steps between are halved, as if each milder plan were harmless from some one on.

        Returns:
            None where the mildest one breaks it too.
        """
        steps = list(soften(plan, min(layer.shape[1:])))
        tensor = layer.read_tensor()
        first, end = 0, len(steps)
        while first < end:
            middle = (first + end) // 2
            encoded = encode_layer(
                layer.tensor.name, tensor, steps[middle], axis=layer.axis, stacked=layer.stacked
            )
            weights, plans = {layer.name: encoded.weights}, {layer.name: steps[middle]}
            (checks,) = self.judge([layer], weights, plans).values()
            if any(check.findings for check in checks):
                first = middle + 1
            else:
                end = middle
        return steps[first] if first < len(steps) else None


def soften(plan: LayerPlan, smaller_side: int) -> Iterator[LayerPlan]:
    """Ever milder plans, all that is asked for by a step each; the last that changes something.

    Steps are one bit, 5 % of the weights, and 15 % more rank.
    """
    check_rank(plan.rank or 1, smaller_side)
    while True:
        bits = None if plan.bits in (None, BITS[-1]) else plan.bits + 1
        sparsity = max(0.0, round(plan.sparsity - _STEP, 6))
        rank = None if plan.rank is None else max(plan.rank + 1, int(plan.rank * _GROWTH))
        if rank is not None and rank >= smaller_side:
            rank = None
        both = {"group": plan.group, "clip": plan.clip} if bits else {"group": None, "clip": False}
        plan = LayerPlan(bits=bits, sparsity=sparsity, rank=rank, **both)
        if plan.changes_nothing:
            return
        yield plan


def _excuse(check: LayerCheck, plan: LayerPlan) -> LayerCheck:
    if plan.rank is None:
        return check
    lost = set(LOST_BY_RANK)
    if check.after is not None and check.after.status == RANK_DEFICIENT:
        lost.add("status")
    return replace(check, findings=tuple(f for f in check.findings if f.quantity not in lost))
