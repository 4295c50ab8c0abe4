"""A network that is kept while training goes on, and whether one has changed since it was seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.objective import ObjectiveValue

Judged = Literal[
    "last",  # the network of the last step
    "best",  # of those that were analysed from half-way on, the best by the score
]


@dataclass(frozen=True)
class KeptNetwork:
    """The network of a step, with what is known of it."""

    step: int
    weights: Mapping[str, torch.Tensor]  # its state dict, on the CPU
    metrics: ModelMetrics
    result: ObjectiveValue
    train_loss: float | None  # of that step; None where none was logged

    @classmethod
    def of(
        cls,
        model: nn.Module,
        *,
        step: int,
        metrics: ModelMetrics,
        result: ObjectiveValue,
        train_loss: float | None,
    ) -> "KeptNetwork":
        """Copy a network; that takes its size in memory."""
        weights = {
            name: value.detach().to("cpu", copy=True) if torch.is_tensor(value) else value
            for name, value in model.state_dict().items()
        }
        return cls(step, weights, metrics, result, train_loss)


def fingerprint(model: nn.Module) -> tuple[float, ...]:
    """The sum and the norm of each parameter: other numbers, for other weights.

    A pass over the weights, where comparing them would need a copy. Of a parameter that is sharded
    over processes it is that of the local part: a sum over all would wait for the others.
    """
    numbers: list[torch.Tensor] = []
    with torch.no_grad():
        for parameter in model.parameters():
            own = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            if not own.is_floating_point():
                own = own.to(torch.float64)
            numbers.append(torch.sum(own, dtype=torch.float64))
            numbers.append(torch.linalg.vector_norm(own, dtype=torch.float64))
    # Not a number is equal to itself here, so that a broken network is not analysed twice.
    return tuple(float(torch.nan_to_num(number, nan=0.5).item()) for number in numbers)
