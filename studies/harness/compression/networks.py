"""The networks that `compress_budget.py` compresses: trained once, then read from a folder.

Ten kinds of network on four kinds of data, trained to where somebody would compress them. All
follows from a kind and a seed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax

from harness.damage import Transformer
from harness.data import Data, Tensors
from harness.zoos.digits import digits_cnn
from harness.zoos.tasks import TASKS, load_data
from networks import CharGPT, cnn, mlp


@dataclass(frozen=True)
class Kind:
    """One architecture on one task's data, and how long it is trained."""

    task: str  # whose data
    make: Callable[[], nn.Module]
    epochs: int  # of text: of 50 batches
    designed_on: int = 0  # seeds below this one were looked at while the rule was made


KINDS = {
    "mnist-mlp": Kind("mnist-mlp-seeds", lambda: mlp(784, 512, 512, 256, 10), 12, 4),
    "mnist-cnn": Kind("mnist-cnn", cnn, 8, 4),
    "digits-mlp": Kind("digits-mlp-96", lambda: mlp(64, 256, 256, 10), 30, 4),
    "digits-transformer": Kind("digits-mlp-96", Transformer, 20, 4),
    "text-gpt": Kind("shakespeare-gpt", CharGPT, 24, 4),
    "mnist-cnn-norm": Kind("mnist-cnn", lambda: cnn(norm=True), 8),
    "mnist-mlp-deep": Kind("mnist-mlp-seeds", lambda: mlp(784, 256, 256, 256, 256, 10), 12),
    "digits-cnn": Kind("digits-mlp-96", digits_cnn, 15),
    "text-gpt-deep": Kind("shakespeare-gpt", lambda: CharGPT(width=64, depth=4), 24),
    "teacher-mlp": Kind("teacher-student", lambda: mlp(128, 256, 256, 10), 20),
}


@dataclass(frozen=True)
class Recipe:
    """How a seed trains; the learning rate falls to a tenth along a cosine."""

    optimizer: type[torch.optim.Optimizer]
    options: dict[str, float]
    dropout: float


RECIPES = (
    Recipe(torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}, 0.0),
    Recipe(torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.01}, 0.2),
    Recipe(torch.optim.SGD, {"lr": 0.03, "momentum": 0.9, "weight_decay": 5e-4}, 0.2),
    Recipe(torch.optim.AdamW, {"lr": 2e-3, "weight_decay": 0.1}, 0.0),
)


def load_network(kind: str, seed: int, cache_folder: Path, data: Path | None) -> nn.Module:
    """Read a network from the folder, trained first if it lacks it; in evaluation mode."""
    path = cache_folder / f"{kind}-{seed}.safetensors"
    model = KINDS[kind].make()
    if not path.exists():
        model = train(kind, seed, read_data(kind, data))
        part = path.with_suffix(".part")
        save_model(model, str(part))
        part.replace(path)
    load_model(model, str(path))
    return model.eval()


@cache
def read_data(kind: str, folder: Path | None) -> Data:
    """Training, validation and test data of a kind, read once."""
    return load_data(TASKS[KINDS[kind].task], folder)


def train(kind: str, seed: int, data: Data) -> nn.Module:
    """Train one network by its seed's recipe."""
    recipe = RECIPES[seed % len(RECIPES)]
    text = KINDS[kind].task.startswith("shakespeare")
    if text and recipe.optimizer is torch.optim.SGD:  # does not train a transformer in minutes
        recipe = replace(RECIPES[3], options={"lr": 4e-3, "weight_decay": 0.01}, dropout=0.1)
    torch.manual_seed(7000 + seed)
    model = KINDS[kind].make()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = recipe.dropout
    optimizer = recipe.optimizer(model.parameters(), **recipe.options)
    batches = list(draw_batches(data.train, 16 if text else 64, KINDS[kind].epochs, text))
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.55 + 0.45 * math.cos(math.pi * step / len(batches))
    )
    for x, y in batches:
        loss = cross_entropy(model(x).flatten(0, -2), y.flatten() if text else y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return model


def draw_batches(data: Tensors, batch: int, epochs: int, text: bool) -> Iterator[Tensors]:
    """Batches of all epochs, in random order; an epoch of text has 50."""
    x, y = data
    for _ in range(epochs):
        rows = torch.randperm(len(x)).split(batch)
        yield from ((x[part], y[part]) for part in (rows[:50] if text else rows))


@torch.no_grad()
def predict(model: nn.Module, data: Tensors) -> torch.Tensor:
    """Log-probabilities on inputs, (n, classes); of text, of every character."""
    logits = torch.cat([model(part) for part in data[0].split(500)])
    return log_softmax(logits.flatten(0, -2), 1)


def judge(log_p: torch.Tensor, data: Tensors) -> tuple[float, float]:
    """Cross-entropy in nats, and the share of wrong answers."""
    y = data[1] if data[1].dtype.is_floating_point else data[1].flatten()
    best = log_p.argmax(1)
    if y.dtype.is_floating_point:
        right = y.gather(1, best[:, None]).mean()
        return float(-(y * log_p).sum(1).mean()), 1.0 - float(right)
    loss = -log_p.gather(1, y[:, None]).mean()
    return float(loss), float((best != y).float().mean())
