"""Small trained networks, and copies of them that were damaged or changed harmlessly.

What `calibrate_gate.py` counts over. Everything follows from the seed of a network.
"""

import copy
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import wwopt
from harness.data import MNIST, Tensors, load_digits, load_mnist, shuffle_and_cut

RECIPES: tuple[tuple[Any, dict[str, float]], ...] = (
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.01}),
    (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}),
)
Parts = tuple[Tensors, Tensors, Tensors]  # training, new data, held out


class Transformer(nn.Module):
    """Reads an 8×8 digit row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 64)
        self.place = nn.Parameter(0.1 * torch.randn(8, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of flat images."""
        return self.head(self.blocks(self.embed(x.view(-1, 8, 8)) + self.place).mean(1))


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


def cnn() -> nn.Sequential:
    convolutions = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2)]
    convolutions += [nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(nn.Unflatten(1, (1, 28, 28)), *convolutions, *mlp(400, 128))


NETWORKS: dict[str, tuple[str, Callable[[], nn.Module], int]] = {  # data, model, epochs
    "digits-mlp-128": ("digits", lambda: mlp(64, 128, 128), 20),
    "digits-mlp-256": ("digits", lambda: mlp(64, 256, 256, 256), 20),
    "digits-mlp-512": ("digits", lambda: mlp(64, 512, 512), 20),
    "digits-transformer": ("digits", Transformer, 20),
    "mnist-mlp-256": ("mnist", lambda: mlp(784, 256, 256), 12),
    "mnist-cnn": ("mnist", cnn, 10),
}


def load_data(folder: Path | None) -> dict[str, Parts]:
    """The parts of the digits and, if the folder holds them, of MNIST's images, all in [0, 1]."""
    found = {"digits": _cut(load_digits(), 1000, 200)}
    try:
        found["mnist"] = _cut(load_mnist(folder, normalised=False), 4000, 1000)
    except FileNotFoundError:
        print(f"no {' and '.join(MNIST)} in {folder}: networks on digits only")
    return found


def _cut(data: Tensors, train: int, new: int) -> Parts:
    training, further, held_out = shuffle_and_cut(data, (train, new, 3000))
    return training, further, held_out


def train(
    model: nn.Module, data: Tensors, epochs: int, seed: int, *, factor: float = 1.0, only: str = ""
) -> nn.Module:
    """Train on by the recipe that belongs to the seed, with the learning rate times a factor."""
    make, options = RECIPES[seed // 2 % len(RECIPES)]  # even and odd seeds have the same ones
    weights = (model.get_submodule(only) if only else model).parameters()
    optimizer = make(weights, **options | {"lr": options["lr"] * factor})
    x, y = data
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32 if len(x) < 1001 else 64):
            loss = cross_entropy(model(x[batch]), y[batch])
            model.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def quantize(w: torch.Tensor, bits: int, *, per_row: bool = True) -> torch.Tensor:
    """Symmetric rounding to the nearest of 2^bits - 1 values, weights only."""
    if w.ndim < 2:
        return w
    top = 2 ** (bits - 1) - 1
    largest = w.abs().flatten(1).amax(1).view(-1, *[1] * (w.ndim - 1)) if per_row else w.abs().max()
    step = (largest / top).clamp_min(1e-12)
    return (w / step).round() * step


def prune(w: torch.Tensor, share: float) -> torch.Tensor:
    smallest = w.abs().flatten().kthvalue(int(share * w.numel())).values
    return torch.where(w.abs() > smallest, w, 0.0)


def reinitialise(w: torch.Tensor) -> torch.Tensor:
    bound = 1.0 / math.sqrt(w[0].numel())  # torch's default for linear layers and convolutions
    return torch.empty_like(w).uniform_(-bound, bound)


ONE_LAYER: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "3 bits per row": lambda w: quantize(w, 3),
    "3 bits per layer": lambda w: quantize(w, 3, per_row=False),
    "pruned 95 %": lambda w: prune(w, 0.95),
    "pruned 99 %": lambda w: prune(w, 0.99),
    "scaled × 2": lambda w: w * 2.0,
    "scaled × 10": lambda w: w * 10.0,
    "scaled ÷ 4": lambda w: w / 4.0,
    "re-initialised": reinitialise,
    "4 bits per row": lambda w: quantize(w, 4),
    "pruned 50 %": lambda w: prune(w, 0.5),
    "pruned 80 %": lambda w: prune(w, 0.8),
    "pruned 90 %": lambda w: prune(w, 0.9),
}


def change(
    model: nn.Module, make: Callable[[], nn.Module], epochs: int, parts: Parts, seed: int
) -> Iterator[tuple[str, str, nn.Module]]:
    """Every changed copy of a network, with the kind of change and the layer ("": all)."""
    layers = wwopt.analyze(model, shuffles=0).layers
    named = dict(model.named_parameters())
    data, new, _ = parts
    large = [x.name for x in layers if x.counted and f"{x.name}.weight" in named]
    small = [x.name for x in layers if not x.counted and f"{x.name}.weight" in named]
    rng = np.random.default_rng(seed)
    targets = [*map(str, rng.permutation(large)[:2]), *map(str, rng.permutation(small)[:1])]

    def apply(edit: Callable[[torch.Tensor], torch.Tensor], target: str = "") -> nn.Module:
        changed = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in changed.named_parameters():
                if not target or name == f"{target}.weight":
                    parameter.copy_(edit(parameter))
        return changed

    def more(epochs: int, data: Tensors = data, **options: Any) -> nn.Module:
        return train(copy.deepcopy(model), data, epochs, seed, **options)

    for target in targets:
        for kind, edit in ONE_LAYER.items():
            yield kind, target, apply(edit, target)
    for factor in (10.0, 30.0, 100.0):
        kind = f"lr × {factor:.0f}, 1 epoch"
        yield f"{kind}, a layer", targets[0], more(1, factor=factor, only=targets[0])
        yield f"{kind}, all", "", more(1, factor=factor)
    yield "bf16", "", apply(lambda w: w.bfloat16().float())
    yield "int8 per row", "", apply(lambda w: quantize(w, 8))
    for count, kind in ((1, "1 more epoch"), (2, "2 more epochs"), (5, "5 more epochs")):
        yield kind, "", more(count)
    yield "3 epochs at lr/10", "", more(3, factor=0.1)
    yield "3 epochs on new data", "", more(3, new)
    yield "another seed", "", train(make(), data, epochs, seed)


@torch.no_grad()
def accuracy(model: nn.Module, data: Tensors) -> float:
    x, y = data
    return float((model(x).argmax(1) == y).double().mean())
