"""One week's training of a small network, healthy or a little worse than the week before.

Data come in week by week: they grow, or a window moves over them, by amounts that scatter, and
classes do not come evenly. A network goes on from last week's weights, or is trained anew.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.damage import cnn, mlp
from harness.data import Tensors, cut_windows, load_digits, load_mnist, load_text
from networks import CharGPT

WEEKS = 26  # after the first
HEALTHY = 12  # weeks before something begins to break
BATCH = 32
CONTEXT = 32  # characters
CONTINUED, ANEW = "continued", "anew"
SGD, ADAM = torch.optim.SGD, torch.optim.AdamW
RECIPES = (
    (SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}),
    (ADAM, {"lr": 1e-3, "weight_decay": 0.05}),
    (SGD, {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}),
)
TEXT_RECIPE = (ADAM, {"lr": 3e-3, "weight_decay": 0.05})


@dataclass(frozen=True)
class Task:
    """A network, and how much of which data it sees."""

    data: str
    make: Callable[[], nn.Module]
    size: int  # examples in the first week
    more: int  # that come in a week, on average
    first: int  # epochs before the first week's checkpoint, of a network that goes on
    weekly: int  # ... and from a week to the next
    anew: int  # epochs of a training from scratch


TASKS = {
    "digits-mlp": Task("digits", lambda: mlp(64, 128, 128), 700, 25, 30, 3, 20),
    "mnist-mlp": Task("mnist", lambda: mlp(784, 128, 64), 2000, 150, 20, 2, 10),
    "mnist-cnn": Task("mnist", cnn, 1500, 150, 10, 1, 6),
    "text": Task("text", lambda: CharGPT(width=48, depth=1, context=CONTEXT), 1200, 150, 30, 1, 6),
}


@dataclass(frozen=True)
class Week:
    """What of a week's training is not as it was."""

    rate: float = 1.0  # times the learning rate
    decay: float = 1.0  # times the weight decay
    data: float = 1.0  # times the examples
    noise: float = 0.0  # share of the labels that are drawn at random
    frozen: bool = False  # whether the middle layer's weights are


BREAKAGES: dict[str, Callable[[int], Week]] = {  # of the weeks since it began, 1, 2, …
    "learning rate + 10 % a week": lambda k: Week(rate=1.1**k),
    "labels, 3 % more at random": lambda k: Week(noise=0.03 * k),
    "weight decay + 30 % a week": lambda k: Week(decay=1.3**k),
    "data − 15 % a week": lambda k: Week(data=0.85**k),
    "a layer frozen": lambda _: Week(frozen=True),
}


@dataclass(frozen=True)
class Stream:
    """Examples in the order in which they come in, and those that accuracy is measured on."""

    coming: Tensors
    held_out: Tensors
    ends: tuple[int, ...]  # examples that are there in each week
    size: int  # of the window; 0: all that are there

    def take(self, week: int, share: float) -> Tensors:
        """The latest of a week's examples."""
        x, y = self.coming
        end = self.ends[week]
        count = round(share * (min(self.size, end) or end))
        return x[end - count : end], y[end - count : end]


def open_stream(name: str, seed: int, folder: Path | None) -> Stream:
    """The data of a history; of half of the seeds they grow, of the others a window moves."""
    task = TASKS[name]
    rng = np.random.default_rng([seed, list(TASKS).index(name)])
    if task.data == "text":
        codes = load_text(folder)
        start = 70_000 * seed
        coming = cut_windows(codes, start, 250_000, stride=CONTEXT, context=CONTEXT)
        held_out = cut_windows(codes, 1_050_000, 32_000, stride=CONTEXT, context=CONTEXT)
    else:
        x, y = load_digits() if task.data == "digits" else load_mnist(folder, normalised=False)
        order = np.random.default_rng(0).permutation(len(x))  # the same are held out of all
        last = order[-len(x) // 5 :]
        order = order[: -len(x) // 5]
        early = 0.1 * rng.standard_normal(10)  # by class
        order = order[np.argsort(rng.random(len(order)) + early[y[order].numpy()])]
        coming, held_out = ((x[part], y[part]) for part in (order, last))
    steps = np.round(task.more * rng.uniform(0.5, 1.5, WEEKS)).astype(int)
    ends = np.minimum(task.size + np.cumsum([0, *steps]), len(coming[0]))
    grows = (seed // 2 + list(TASKS).index(name)) % 2 == 0
    return Stream(coming, held_out, tuple(map(int, ends)), 0 if grows else task.size)


def train_week(
    model: nn.Module, data: Tensors, epochs: int, *, recipe: int | None, week: Week
) -> nn.Module:
    """Train on the week's examples; a recipe of None is that for text."""
    make, options = TEXT_RECIPE if recipe is None else RECIPES[recipe]
    options = dict(options, lr=options["lr"] * week.rate)
    options["weight_decay"] *= week.decay
    layers = [m for m in model.modules() if getattr(m, "weight", None) is not None]
    matrices = [layer.weight for layer in layers if layer.weight.ndim > 1]
    matrices[len(matrices) // 2].requires_grad_(not week.frozen)
    optimizer = make([p for p in model.parameters() if p.requires_grad], **options)
    x, y = data
    classes = 1 + int(y.max())
    drawn = torch.rand(y.shape) < week.noise
    y = torch.where(drawn, torch.randint(classes, y.shape), y)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = cross_entropy(model(x[rows]).flatten(0, -2), y[rows].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


@torch.no_grad()
def measure_accuracy(model: nn.Module, data: Tensors) -> float:
    x, y = data
    found = float((model(x).argmax(-1) == y).double().mean())
    return found if math.isfinite(found) else 0.0
