"""The tasks whose networks `objective_vs_test_error.py` trains and judges scores on.

A task is data, an architecture and a range of hyperparameters that reaches far into the region
where training collapses, as a real search space does. All else follows from a network's index.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import nn

from harness.data import (
    Data,
    cut_windows,
    draw_teacher,
    load_digits,
    load_mnist,
    load_text,
    shuffle_and_cut,
)
from networks import CharGPT, cnn, mlp


@dataclass(frozen=True)
class Task:
    """One kind of network on one kind of data."""

    name: str
    data: str  # "mnist", "digits", "teacher" or "text"
    make_model: Callable[[], nn.Module]
    num_train: int  # images, points or characters
    epochs: int  # for text: of 50 batches each
    batch: int = 64
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
    lr: tuple[float, float] = (4e-4, 1.5)
    lr_spread: float = 1.0  # decades between the layers of one network
    momenta: tuple[float, ...] = (0.0, 0.5, 0.8, 0.9, 0.95)
    max_dropout: float = 0.6
    noise: float = 0.0  # share of training labels that are drawn at random
    unique: int = 10**9  # networks from this index on repeat a configuration under another seed
    sweep: bool = False  # vary one hyperparameter at a time around a default
    origin: str = ""  # the name that its random numbers follow, where the task was renamed

    @property
    def stream(self) -> int:
        """What tells its random numbers from those of other tasks."""
        return crc32((self.origin or self.name).encode())


_MLP = Task("mnist-mlp-seeds", "mnist", lambda: mlp(784, 512, 512, 256, 10), 4000, 20, unique=80)
_GPT = Task(
    "shakespeare-gpt",
    "text",
    CharGPT,
    200_000,
    8,
    batch=16,
    optimizer=torch.optim.AdamW,
    lr=(5e-5, 5e-2),
    lr_spread=0.6,
    momenta=(0.0, 0.5, 0.8, 0.9, 0.95),
    max_dropout=0.5,
    unique=60,
)
_CNN = Task("mnist-cnn", "mnist", cnn, 3000, 10, lr=(1e-3, 1.5), max_dropout=0.5, unique=60)

TASKS = {
    task.name: task
    for task in (
        _CNN,
        replace(_MLP, name="mnist-mlp-noise", noise=0.3, unique=60),
        _GPT,
        _MLP,
        replace(_MLP, name="mnist-mlp-small", num_train=400, epochs=60, batch=32, unique=60),
        replace(_GPT, name="shakespeare-gpt-small", num_train=15_000, epochs=10, unique=60),
        Task(
            "digits-mlp-96",
            "digits",
            lambda: mlp(64, 96, 96, 10),
            1000,
            12,
            lr=(3e-3, 3.0),
            origin="digits-mlp",
        ),
        Task("teacher-student", "teacher", lambda: mlp(128, 256, 256, 10), 3000, 20, unique=120),
        replace(_MLP, name="mnist-mlp-sweeps", sweep=True),
        replace(_CNN, name="mnist-cnn-noise", noise=0.3),
        Task(
            "mnist-mlp-adam",
            "mnist",
            lambda: mlp(784, 256, 256, 256, 256, 10),
            3000,
            12,
            optimizer=torch.optim.AdamW,
            lr=(3e-5, 0.1),
        ),
        replace(_CNN, name="mnist-cnn-norm-noise", make_model=lambda: cnn(norm=True), noise=0.2),
    )
}


def load_data(task: Task, folder: Path | None) -> Data:
    """Training, validation and test data of a task; the same for all its networks.

    Raises:
        FileNotFoundError: if the folder lacks MNIST's test images or tinyshakespeare.txt.
    """
    if task.data == "teacher":
        return draw_teacher(task.num_train)
    if task.data == "digits":
        return Data(*shuffle_and_cut(load_digits(), (task.num_train, 200, 1797)))  # 1797: the rest
    if task.data == "text":
        return _cut_text(load_text(folder), task.num_train)
    rng = np.random.default_rng(0)
    (x, y), validation, test = shuffle_and_cut(load_mnist(folder), (4000, 1000, 4000), rng=rng)
    x, y = x[: task.num_train], y[: task.num_train].clone()
    random = torch.as_tensor(rng.random(task.num_train) < task.noise)
    y[random] = torch.as_tensor(rng.integers(0, 10, int(random.sum())))
    return Data((x, y), validation, test)


def _cut_text(codes: torch.Tensor, num_train: int) -> Data:
    """Windows of 64 characters and their successors; the last fifth of the text is held out."""
    held_out = len(codes) * 4 // 5
    return Data(
        cut_windows(codes, 0, num_train, stride=7, context=64),
        cut_windows(codes, held_out, 16_000, stride=64, context=64),
        cut_windows(codes, held_out + 20_000, 64_000, stride=64, context=64),
    )


def draw_config(task: Task, index: int) -> dict[str, Any]:
    """Hyperparameters of a network: values per weight layer, in order; dropout per dropout module.

    About 70 % of the networks have their own values for each layer.
    """
    model = task.make_model()
    layers = sum(p.dim() > 1 and "place" not in name for name, p in model.named_parameters())
    dropouts = sum(isinstance(module, nn.Dropout) for module in model.modules())
    if task.sweep:
        return _sweep_config(task, index, layers, dropouts)
    rng = np.random.default_rng([task.stream, index % task.unique])
    layerwise = bool(rng.random() < 0.7)
    low, high = (math.log10(bound) for bound in task.lr)
    centre = rng.uniform(low, high)
    offsets = rng.uniform(-0.5, 0.5, layers) * task.lr_spread * layerwise
    dropout = rng.uniform(0.0, task.max_dropout, dropouts)
    momentum = rng.choice(task.momenta, layers)
    return {
        "lr": [float(v) for v in 10.0 ** np.clip(centre + offsets, low, high)],
        "drop": [float(v) for v in (dropout if layerwise else dropout[:1].repeat(dropouts))],
        "mom": [float(v) for v in (momentum if layerwise else momentum[:1].repeat(layers))],
        "layerwise": layerwise,
        "batch": task.batch,
        "config": index % task.unique,
    }


SWEEPS: dict[str, tuple[float, ...]] = {
    "lr": (0.0005, 0.0015, 0.005, 0.015, 0.05, 0.15, 0.3, 0.6),
    "momentum": (0.0, 0.5, 0.8, 0.9, 0.95, 0.98),
    "dropout": (0.0, 0.15, 0.3, 0.45, 0.6, 0.75),
    "batch": (8, 16, 32, 64, 128, 256),
    "weight_decay": (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}


def _sweep_config(task: Task, index: int, layers: int, dropouts: int) -> dict[str, Any]:
    points = [(axis, value) for axis, values in SWEEPS.items() for value in values]
    axis, value = points[index % len(points)]
    at = {"lr": 0.05, "momentum": 0.5, "dropout": 0.2, "batch": task.batch, "weight_decay": 0.0}
    at[axis] = value
    return {
        "lr": [at["lr"]] * layers,
        "drop": [at["dropout"]] * dropouts,
        "mom": [at["momentum"]] * layers,
        "layerwise": False,
        "batch": int(at["batch"]),
        "weight_decay": at["weight_decay"],
        "axis": axis,
        "config": index % len(points),
    }
