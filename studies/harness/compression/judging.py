"""Compress a trained network by every rule to every budget, and measure what it lost.

One JSON file a network, so that a study that was stopped goes on where it was.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from scipy.optimize import minimize_scalar
from torch import nn

from harness.compression.networks import judge, load_network, predict, read_data
from harness.compression.rules import RULES, Rules
from harness.data import Tensors
from wwopt.compression import apply_plans, list_layers
from wwopt.compression.errors import CompressionError

ROUNDINGS = {"to the nearest": False, "compensated": True}


@dataclass(frozen=True)
class Loss:
    """What one network lost by one rule."""

    kind: str
    seed: int
    budget: str
    rule: str
    rounding: str
    bytes: int
    share: float  # of the tensors' bytes in float32
    divergence: float  # mean KL divergence of its answers from those before, nats
    loss: float  # rise of the test loss, nats
    refit: float  # the same, both at the temperature that fits the test data best
    error: float  # rise of the share of wrong answers
    before: float  # test loss before


def measure_losses(kind: str, seed: int, cache: Path, data: Path | None) -> list[Loss]:
    """Every rule, rounding and budget on one network; a rule that cannot meet one is left out."""
    path = cache / f"losses-{kind}-{seed}.json"
    if path.exists():
        return [Loss(**row) for row in json.loads(path.read_text())]
    model = load_network(kind, seed, cache, data)
    test = read_data(kind, data).test
    rules = Rules(list_layers(model))
    before = predict(model, test)
    found = []
    now = rules.measured.now
    for budget, limit in {"an eighth": rules.int4_bytes(), "a twelfth": now // 12}.items():
        for rule in RULES:
            for rounding, compensate in ROUNDINGS.items():
                try:
                    plans = rules.choose(rule, limit, compensate=compensate)
                except CompressionError:
                    continue
                compressed = apply_plans(rules.network, plans)
                assert compressed.bytes <= limit, (rule, compressed.bytes, limit)
                after = predict_with(model, compressed.weights, test)
                lost = compare(before, after, test)
                size = compressed.bytes
                found.append(Loss(kind, seed, budget, rule, rounding, size, size / now, *lost))
    part = path.with_suffix(".part")
    part.write_text(json.dumps([asdict(loss) for loss in found]))
    part.replace(path)
    return found


def predict_with(model: nn.Module, weights: dict[str, torch.Tensor], data: Tensors) -> torch.Tensor:
    """Log-probabilities of the model with other weights; it keeps its own."""
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    found = predict(model, data)
    model.load_state_dict(own)
    return found


def compare(
    before: torch.Tensor, after: torch.Tensor, data: Tensors
) -> tuple[float, float, float, float, float]:
    """Divergence, rise of the loss, of the refitted loss and of the error, and the loss before."""
    sides = [judge(side, data) for side in (before, after)]
    divergence = float((before.exp() * (before - after)).sum(1).mean())
    refits = [refit(side, data) for side in (before, after)]
    return (
        divergence,
        sides[1][0] - sides[0][0],
        refits[1] - refits[0],
        sides[1][1] - sides[0][1],
        sides[0][0],
    )


def refit(log_p: torch.Tensor, data: Tensors) -> float:
    """The loss at the temperature where it is least."""

    def loss(log_temperature: float) -> float:
        return judge((log_p * math.exp(-log_temperature)).log_softmax(1), data)[0]

    return float(minimize_scalar(loss, bounds=(-1.5, 2.0), method="bounded").fun)
