"""The tasks: a transformer over characters and an MLP on images, each of several sizes.

Quality is what a network gets wrong, so lower is better: nats a character of the text, % of the
images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.data import Tensors, load_mnist, load_text, shuffle_and_cut
from networks import CharGPT, mlp

CONTEXT = 64  # characters in a window
Size = tuple[int, int]  # width, depth: blocks, or hidden layers


@dataclass(frozen=True)
class Parts:
    """The data of a task: a way to draw training examples, and what networks are judged on."""

    draw: Callable[[int, torch.Generator], Tensors]  # so many examples
    validation: Tensors  # by which rates, batch sizes and compressions are chosen
    test: Tensors


@dataclass(frozen=True)
class Task:
    """What is trained, and for how long."""

    name: str
    load: Callable[[Path | None], Parts]
    make_model: Callable[[Size], nn.Module]
    measure: Callable[[torch.Tensor, torch.Tensor], float]  # logits, targets → quality
    unit: str  # of the quality
    sizes: tuple[Size, ...]
    batches: tuple[int, ...]  # examples
    middle_rate: float  # where the search of learning rates begins, at the middle batch size
    budget: float  # CPU seconds of a training
    short: float  # of one that chooses a learning rate
    seeds: int
    long_seeds: int  # of four times the budget
    ends: Callable[[Size], tuple[str, ...]]  # the layers that meet characters or classes
    few: int  # examples of the batch whose latency is measured
    repeats: int = 3  # of each latency

    def shrink(self, *, sizes: int, seeds: int, factor: float) -> "Task":
        """The same in small: the first sizes, fewer seeds, shorter trainings."""
        return replace(
            self,
            sizes=self.sizes[:sizes],
            seeds=seeds,
            long_seeds=1,
            repeats=1,
            budget=self.budget * factor,
            short=self.short * factor,
        )


def judge(task: Task, model: nn.Module, data: Tensors) -> float:
    """The quality of a network on inputs and targets, in the task's unit; lower is better."""
    x, y = data
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(250)])
    return task.measure(logits.flatten(0, -2), y.flatten())


def _load_text(folder: Path | None) -> Parts:
    codes = load_text(folder)
    train, validation, test = codes[:900_000], codes[900_000:960_000], codes[960_000:1_020_000]

    def draw(count: int, generator: torch.Generator) -> Tensors:
        starts = torch.randint(len(train) - CONTEXT, (count, 1), generator=generator)
        rows = starts + torch.arange(CONTEXT)
        return train[rows], train[rows + 1]

    def cut(part: torch.Tensor, windows: int) -> Tensors:
        rows = CONTEXT * torch.arange(windows)[:, None] + torch.arange(CONTEXT)
        return part[rows], part[rows + 1]

    return Parts(draw, cut(validation, 300), cut(test, 500))


def _load_images(folder: Path | None) -> Parts:
    (x, y), validation, test = shuffle_and_cut(load_mnist(folder), [4000, 2000, 4000])

    def draw(count: int, generator: torch.Generator) -> Tensors:
        rows = torch.randint(len(x), (count,), generator=generator)
        return x[rows], y[rows]

    return Parts(draw, validation, test)


def _measure_loss(logits: torch.Tensor, targets: torch.Tensor) -> float:
    return float(cross_entropy(logits, targets))


def _measure_error(logits: torch.Tensor, targets: torch.Tensor) -> float:
    return 100.0 * float((logits.argmax(1) != targets).double().mean())


def _make_transformer(size: Size) -> nn.Module:
    return CharGPT(width=size[0], depth=size[1], context=CONTEXT)


def _make_mlp(size: Size) -> nn.Module:
    return mlp(784, *[size[0]] * size[1], 10)


TASKS = {
    "text": Task(
        name="text",
        load=_load_text,
        make_model=_make_transformer,
        measure=_measure_loss,
        unit="nats a character",
        sizes=((16, 2), (32, 2), (32, 4), (64, 2), (64, 4), (128, 2), (128, 4)),
        batches=(4, 16, 64),
        middle_rate=4e-3,
        budget=12.0,
        short=2.0,
        seeds=5,
        long_seeds=2,
        ends=lambda size: ("place", "embed", "head"),
        few=16,
    ),
    "images": Task(
        name="images",
        load=_load_images,
        make_model=_make_mlp,
        measure=_measure_error,
        unit="% of images wrong",
        sizes=((32, 1), (32, 3), (128, 1), (128, 3), (512, 1), (512, 3)),
        batches=(16, 64, 256),
        middle_rate=2e-3,
        budget=3.0,
        short=0.75,
        seeds=6,
        long_seeds=3,
        ends=lambda size: (f"l{size[1]}",),
        few=64,
    ),
}
