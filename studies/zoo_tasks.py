"""The tasks whose networks `objective_vs_test_error.py` trains and judges scores on.

A task is data, an architecture and a range of hyperparameters that reaches far into the region
where training collapses, as a real search space does. All else follows from a network's index.
"""

import gzip
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

Tensors = tuple[torch.Tensor, torch.Tensor]  # inputs and targets: classes, or their probabilities


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


@dataclass(frozen=True)
class Data:
    """Inputs and targets; probabilities as targets where the true ones are known."""

    train: Tensors
    validation: Tensors
    test: Tensors


class Block(nn.Module):
    """A transformer block, causal, norm first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.drop1 = nn.Dropout(0.0)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.drop2 = nn.Dropout(0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) → the same."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=2)
        )
        heads = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop1(self.proj(heads.transpose(1, 2).flatten(2)))
        return x + self.drop2(self.down(torch.relu(self.up(self.norm2(x)))))


class CharGPT(nn.Module):
    """A small transformer over characters."""

    def __init__(self, *, width: int = 96, depth: int = 2, context: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, width)
        self.place = nn.Parameter(0.02 * torch.randn(1, context, width))
        self.blocks = nn.Sequential(*(Block(width, heads=4) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CHARACTERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Characters (batch, time) → logits (batch, time, CHARACTERS)."""
        return self.head(self.norm(self.blocks(self.embed(x) + self.place[:, : x.shape[1]])))


CHARACTERS = 65  # different ones in tinyshakespeare


def mlp(*widths: int) -> nn.Sequential:
    """ReLU MLP with a dropout after every hidden layer."""
    layers: dict[str, nn.Module] = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(widths[:-1])):
        layers[f"l{i}"] = nn.Linear(fan_in, fan_out)
        layers[f"relu{i}"] = nn.ReLU()
        layers[f"drop{i}"] = nn.Dropout(0.0)
    last = f"l{len(widths) - 2}"
    return nn.Sequential(OrderedDict(layers, **{last: nn.Linear(widths[-2], widths[-1])}))


def cnn(*, norm: bool = False) -> nn.Sequential:
    """Three convolutions and two dense layers, 28×28 → 10."""

    def convolve(fan_in: int, fan_out: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(fan_in, fan_out, 3, stride, 1)
        norms = [nn.BatchNorm2d(fan_out)] if norm else []
        return [convolution, *norms, nn.ReLU(), nn.Dropout(0.0)]

    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        *convolve(1, 32, 2),
        *convolve(32, 64, 2),
        *convolve(64, 64, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(64 * 16, 128),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(128, 10),
    )


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
        return _teacher_data(task.num_train)
    if task.data == "digits":
        return _digits_data(task.num_train)
    if task.data == "text":
        return _text_data(load_text(folder), task.num_train)
    x, y = load_mnist(folder)
    generator = np.random.default_rng(0)
    order = torch.as_tensor(generator.permutation(len(x)))
    train, validation, test = order[: task.num_train], order[4000:5000], order[5000:9000]
    y_train = y[train].clone()
    random = torch.as_tensor(generator.random(task.num_train) < task.noise)
    y_train[random] = torch.as_tensor(generator.integers(0, 10, int(random.sum())))
    return Data((x[train], y_train), (x[validation], y[validation]), (x[test], y[test]))


def load_mnist(folder: Path | None) -> Tensors:
    """MNIST's 10,000 test images, (10000, 784) normalised, and their labels.

    Raises:
        FileNotFoundError: if the folder is not given or lacks them.
    """
    files = (("t10k-images-idx3-ubyte.gz", 16), ("t10k-labels-idx1-ubyte.gz", 8))
    images, labels = (
        np.frombuffer(gzip.decompress(_find(folder, name).read_bytes()), np.uint8, offset=offset)
        for name, offset in files
    )
    x = torch.as_tensor((images.reshape(-1, 784) / 255.0 - 0.1307) / 0.3081, dtype=torch.float32)
    return x, torch.as_tensor(labels.astype(np.int64))


def load_text(folder: Path | None) -> torch.Tensor:
    """The characters of tinyshakespeare as numbers below `CHARACTERS`.

    Raises:
        FileNotFoundError: if the folder is not given or lacks it.
    """
    text = _find(folder, "tinyshakespeare.txt").read_text(encoding="utf-8")
    code = {character: i for i, character in enumerate(sorted(set(text)))}
    return torch.tensor([code[character] for character in text])


def _find(folder: Path | None, name: str) -> Path:
    """A file of that name in the folder, possibly with "mnist-" before it."""
    if folder is None:
        raise FileNotFoundError(f"{name} is needed: pass its folder with --data FOLDER")
    for path in (folder / name, folder / f"mnist-{name}"):
        if path.exists():
            return path
    raise FileNotFoundError(f"{folder} lacks {name}")


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


def _digits_data(num_train: int) -> Data:
    """Scikit-learn's 1,797 digits of 8×8 pixels."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.as_tensor(images[order] / 16.0, dtype=torch.float32)
    y = torch.as_tensor(labels[order])
    parts = [slice(num_train), slice(num_train, num_train + 200), slice(num_train + 200, None)]
    train, validation, test = ((x[part], y[part]) for part in parts)
    return Data(train, validation, test)


def _teacher_data(num_train: int) -> Data:
    """Inputs with a power-law covariance; classes drawn from a random network's probabilities.

    The test set's targets are the teacher's probabilities: its loss and error carry no label
    noise, and the teacher's own are the Bayes loss and error.
    """
    generator = torch.Generator().manual_seed(0)
    dimensions, classes = 128, 10
    scales = torch.arange(1, dimensions + 1) ** -0.5
    first = torch.randn(dimensions, 48, generator=generator) / scales.square().sum().sqrt()
    second = torch.randn(48, classes, generator=generator) / math.sqrt(48)

    def draw(n: int) -> Tensors:
        x = torch.randn(n, dimensions, generator=generator) * scales
        return x, (9.0 * torch.tanh(2.0 * (x @ first)) @ second).softmax(1)

    (x, p), (x_validation, p_validation), test = draw(num_train), draw(1000), draw(40_000)
    y, y_validation = (
        torch.multinomial(q, 1, generator=generator)[:, 0] for q in (p, p_validation)
    )
    return Data((x, y), (x_validation, y_validation), test)


def _text_data(codes: torch.Tensor, num_train: int) -> Data:
    """Windows of 64 characters and their successors; the last fifth of the text is held out."""

    def windows(start: int, count: int, stride: int) -> Tensors:
        starts = torch.arange(start, start + count - 64, stride)[:, None] + torch.arange(64)
        return codes[starts], codes[starts + 1]

    held_out = len(codes) * 4 // 5
    return Data(
        windows(0, num_train, 7),
        windows(held_out, 16_000, 64),
        windows(held_out + 20_000, 64_000, 64),
    )
