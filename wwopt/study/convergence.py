"""Which layers have stopped moving, told by their spectra; and freezing those.

Between two analyses a layer's singular values σ move by ‖σ' - σ‖/‖σ‖, which is at most the relative
movement of its weights (Mirsky 1960). At the same pace the rest of training moves them by that
number of steps more. A layer is told to be

    "stopped moving"  by less than 1 % more
    "still falling"   by more, and its averaged Hill estimate falls: its tail grows heavier
    "rising"          by more, and it rises
    "still random"    by less than 1 %, and its spectrum is that of a random matrix
    "unknown"         not analysed twice, too few eigenvalues, or no fit

On the zoo of MNIST MLPs that the objective's constants were chosen on, the layers said at half of
training to have stopped (19 % of 201) moved by .5 % more in the median, 2.1 % at the 90th
percentile; the other layers by 5 %.
"""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch

from wwopt.metrics.model_metrics import OK, LayerMetrics, ModelMetrics
from wwopt.metrics.owners import owner_of

Convergence = Literal["stopped moving", "still falling", "rising", "still random", "unknown"]

TOLERANCE = 0.01  # of the norm of the singular values, over the rest of training


def judge_convergence(
    before: ModelMetrics | None,
    now: ModelMetrics,
    *,
    steps: int,
    remaining: int,
    tolerance: float = TOLERANCE,
) -> dict[str, Convergence]:
    """Judge every layer; see the module's docstring for the words.

    Args:
        before: the analysis before; None if there was none.
        now: the last analysis.
        steps: between the two.
        remaining: steps until the end of training.
        tolerance: relative movement until then below which a layer has stopped.
    """
    earlier = {} if before is None else {layer.name: layer for layer in before.layers}
    return {
        layer.name: _judge_layer(earlier.get(layer.name), layer, remaining / steps, tolerance)
        for layer in now.layers
    }


def freeze_layers(
    optimizer: torch.optim.Optimizer, convergence: Mapping[str, Convergence]
) -> tuple[str, ...]:
    """Stop training the parameter groups whose layers have all stopped moving.

    Their gradients are not computed any more, and the optimizer passes them over.

    Args:
        optimizer: with a "name" in each group, as `LayerHyperparameters.optimizer` makes it.
        convergence: of all layers, as `Advice.convergence` holds it. A group answers for the layers
            of its name or beneath it (`attn` for `attn.q`, `attn.k`, `attn.v`).

    Returns:
        Names of the groups that are frozen now and were not before. One group always stays: without
        any, the loss would have no gradient.
    """
    trained = [g for g in optimizer.param_groups if any(p.requires_grad for p in g["params"])]
    states: dict[str, list[Convergence]] = {}
    for layer, state in convergence.items():
        states.setdefault(find_group(optimizer, layer) or "", []).append(state)
    frozen: list[str] = []
    for group in trained:
        known = states.get(str(group.get("name")), [])
        if known and set(known) == {"stopped moving"} and len(frozen) < len(trained) - 1:
            for parameter in group["params"]:
                parameter.requires_grad_(False)
                parameter.grad = None
            frozen.append(str(group["name"]))
    return tuple(frozen)


def find_group(optimizer: torch.optim.Optimizer, layer: str) -> str | None:
    """Name of the parameter group that a layer belongs to; None if there is none.

    Raises:
        ValueError: if the optimizer's groups have no names.
    """
    if any("name" not in group for group in optimizer.param_groups):
        raise ValueError(
            "the optimizer's parameter groups have no names; make it with hp.optimizer(model, cls)"
        )
    return owner_of(layer, {str(group["name"]) for group in optimizer.param_groups})


def _judge_layer(
    before: LayerMetrics | None, now: LayerMetrics, ratio: float, tolerance: float
) -> Convergence:
    if before is None or before.status != OK or now.status != OK:
        return "unknown"
    if before.spectrum is None or now.spectrum is None or before.num_evals != now.num_evals:
        return "unknown"
    old, new = np.sqrt(before.spectrum.eigenvalues), np.sqrt(now.spectrum.eigenvalues)
    if float(np.linalg.norm(new - old)) * ratio >= tolerance * float(np.linalg.norm(old)):
        return "still falling" if now.hill < before.hill else "rising"
    # Averaged Hill estimates of random matrices scatter by about 2/n in log(h - 1).
    tail = math.log((now.hill - 1.0) / (now.hill_random - 1.0))
    return "stopped moving" if tail < -6.0 / now.num_evals else "still random"
