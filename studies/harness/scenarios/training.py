"""The study that somebody in a situation has been running: its data, networks and training."""

import math
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy, mse_loss

import wwopt
from harness.data import (
    Tensors,
    cut_windows,
    load_code,
    load_digits,
    load_manual,
    load_mnist,
    load_photos,
    load_table,
    load_text,
)
from harness.scenarios.situations import (
    REGRESSIONS,
    TEXTS,
    Scenario,
    Task,
    count_validation,
    most_validation,
)
from networks import CharGPT, mlp

# Examples, or characters.
TEST: dict[Task, int] = {"digits": 600, "cancer": 269, "diabetes": 142}
TEST |= dict.fromkeys(("photos", "tiles"), 3000)
TEST |= dict.fromkeys(TEXTS, 64_000)
IMAGES = 3500  # the same of all other tasks
CONTEXT, STRIDE = 32, 16  # characters in a window, and between the starts of two
TEXT_WIDTH_STEP = 4  # heads
HALF = 392  # pixels of an image
SIZES: dict[Task, tuple[int, int]] = {  # inputs and outputs
    "mlp": (784, 10),
    "digits": (64, 10),
    "halves": (HALF, HALF),
    "photos": (48, 192),
    "tiles": (192, 10),
    "sums": (392, 10),
    "cancer": (30, 2),
    "diabetes": (10, 1),
}


def make_study(scenario: Scenario, folder: Path | None) -> wwopt.StudySpec:
    """The study that the one who asks has been running.

    Args:
        scenario: the situation.
        folder: with MNIST's test images and tinyshakespeare.txt.
    """
    training, validation, test = load(scenario, folder)
    cls: type[torch.optim.Optimizer] = torch.optim.AdamW if scenario.adam else torch.optim.SGD
    options = {"weight_decay": 0.3} if "decay" in scenario.kinds else {}
    batch = 16 if scenario.task in TEXTS else 32
    batch = 4 * batch if "batch" in scenario.kinds else batch
    batch = batch // 4 if "tiny" in scenario.kinds else batch

    def train(
        hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
    ) -> None:
        x, y = _part(training, scenario, conditions)
        model = hp.apply_dropout(make_model(scenario, conditions))
        optimizer = hp.optimizer(model, cls, **options)
        steps = conditions.epochs * math.ceil(len(x) / batch)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for epoch in range(conditions.epochs):
            model.train()
            losses = []
            for rows in torch.randperm(len(x)).split(batch):
                loss = _loss(scenario, model(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if "cosine" in scenario.kinds:
                    fall.step()
                losses.append(loss.detach())
            mean = torch.stack(losses).mean().item()
            parts = {"validation": validation}
            if epoch + 1 == conditions.epochs or not math.isfinite(mean):
                parts["test"] = test
            model.eval()
            measured = {
                f"{part}_{scenario.metric}": _measure(model, scenario, *data)
                for part, data in parts.items()
            }
            recorder.step(model, train_loss=mean, **measured)

    lr = (1e-4, 3e-2) if scenario.adam else (1e-3, 1.5)
    momentum = (0.5, 0.98) if scenario.adam else (0.0, 0.95)
    return wwopt.StudySpec(
        name=scenario.name,
        train=train,
        space=lambda conditions: wwopt.LayerSpace.from_model(
            make_model(scenario, conditions), lr=lr, dropout=(0.0, 0.5), momentum=momentum
        ),
        conditions=wwopt.Conditions(seed=0, epochs=scenario.epochs),
        metric=f"validation_{scenario.metric}",
    )


def make_model(scenario: Scenario, conditions: wwopt.Conditions) -> nn.Module:
    """The untrained network; width and depth follow the conditions."""
    wide = max(1, round(scenario.width * conditions.width))
    deep = max(1, round((4 if "deep" in scenario.kinds else 2) * conditions.depth))
    if scenario.task in TEXTS:
        return CharGPT(width=TEXT_WIDTH_STEP * max(1, wide // 4), depth=deep, context=CONTEXT)
    if scenario.task == "rows":
        return Rows(wide, depth=max(1, deep // 2))
    if scenario.task == "cnn":
        return _add_norms(_cnn(wide)) if "norm" in scenario.kinds else _cnn(wide)
    inputs, outputs = SIZES[scenario.task]
    model = mlp(inputs, *[wide] * deep, outputs)
    if "layernorm" in scenario.kinds:
        return _add_norms(model, nn.LayerNorm)
    return _add_norms(model) if "norm" in scenario.kinds else model


class Rows(nn.Module):
    """Reads an image from the top, row by row."""

    def __init__(self, width: int, *, depth: int = 1) -> None:
        super().__init__()
        self.rnn = nn.GRU(28, width, depth, batch_first=True)
        self.drop = nn.Dropout(0.0)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 784) → (batch, 10)."""
        states, _ = self.rnn(x.unflatten(1, (28, 28)))
        return self.head(self.drop(states[:, -1]))


def _cnn(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, channels, 5, 2, 2),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Conv2d(channels, 2 * channels, 3, 2, 1),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Flatten(),
        nn.Linear(2 * channels * 49, 8 * channels),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(8 * channels, 10),
    )


def _add_norms(model: nn.Sequential, norm: type[nn.Module] = nn.BatchNorm1d) -> nn.Sequential:
    """Norms before the activations; batch norms of two dimensions after convolutions."""
    parts: list[nn.Module] = []
    for part in model:
        if isinstance(part, nn.ReLU) and isinstance(parts[-1], nn.Conv2d):
            parts.append(nn.BatchNorm2d(parts[-1].out_channels))
        elif isinstance(part, nn.ReLU) and isinstance(parts[-1], nn.Linear):
            parts.append(norm(parts[-1].out_features))
        parts.append(part)
    return nn.Sequential(*parts)


def load(scenario: Scenario, folder: Path | None) -> tuple[Tensors, Tensors, Tensors]:
    """Training data (twice as much as the scenario has today), validation and test data."""
    if scenario.task in TEXTS:
        return _load_characters(scenario, folder)
    x, y = _load_examples(scenario.task, folder)
    if scenario.task == "sums":
        return _load_sums(scenario, x, y)
    test = TEST.get(scenario.task, IMAGES)
    start = test + most_validation(scenario.task)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    training = rows[start:]
    if "uneven" in scenario.kinds:
        training = _thin_classes(training, y)
    if len(training) < 2 * scenario.examples:
        raise ValueError(
            f"{scenario.name} needs {2 * scenario.examples} examples, there are {len(training)}"
        )
    training = training[: 2 * scenario.examples]
    labels = y[training].clone()
    if scenario.noise:
        generator = torch.Generator().manual_seed(1)
        wrong = torch.rand(len(labels), generator=generator) < scenario.noise
        drawn = torch.randint(0, int(y.max()) + 1, labels.shape, generator=generator)
        labels[wrong] = drawn[wrong]
    parts = training, rows[test : test + count_validation(scenario)], rows[:test]
    if scenario.task == "halves":  # of an image, of 14 rows each
        return tuple((x[part, :HALF], x[part, HALF:]) for part in parts)  # type: ignore[return-value]
    return (x[parts[0]], labels), *((x[part], y[part]) for part in parts[1:])


@cache
def _load_examples(task: Task, folder: Path | None) -> Tensors:
    if task == "digits":
        return load_digits()
    if task == "photos":
        return load_photos()
    if task == "tiles":  # of two photographs, 53 rows of 80 each: five bands of either
        _, pixels = load_photos()
        place = torch.arange(len(pixels))
        return pixels, 5 * (place // 4240) + place % 4240 // 80 * 5 // 53
    if task == "cancer" or task == "diabetes":
        return load_table(task)
    return load_mnist(folder)


def _load_sums(scenario: Scenario, x: torch.Tensor, y: torch.Tensor) -> tuple[Tensors, ...]:
    """Pairs of images, at half of their resolution, that the parts do not share."""
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test, validation = IMAGES, most_validation(scenario.task)
    small = avg_pool2d(x.view(-1, 1, 28, 28), 2).flatten(1)
    parts = []
    for start, stop, count in (
        (test + validation, len(x), 2 * scenario.examples),
        (test, test + validation, count_validation(scenario)),
        (0, test, test),
    ):
        generator = torch.Generator().manual_seed(start)
        pairs = rows[torch.randint(start, stop, (count, 2), generator=generator)]
        parts.append((small[pairs].flatten(1), y[pairs].sum(dim=1) % 10))
    return tuple(parts)


def _thin_classes(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Rows of which each of ten classes keeps less than the one before, the last an eighth."""
    kept = 2.0 ** (-labels[rows] / 3.0)
    return rows[torch.rand(len(rows), generator=torch.Generator().manual_seed(2)) < kept]


def _load_characters(scenario: Scenario, folder: Path | None) -> tuple[Tensors, Tensors, Tensors]:
    if scenario.task == "text":
        codes = load_text(folder)
    else:
        codes = load_manual() if scenario.task == "manual" else load_code()
    held_out = len(codes) * 4 // 5
    training = cut_windows(codes, 0, 2 * scenario.examples, stride=STRIDE, context=CONTEXT)
    validation, test = (
        cut_windows(codes, start, count, stride=CONTEXT, context=CONTEXT)
        for start, count in (
            (held_out, count_validation(scenario)),
            (held_out + 20_000, TEST[scenario.task]),
        )
    )
    return training, validation, test


def _part(training: Tensors, scenario: Scenario, conditions: wwopt.Conditions) -> Tensors:
    """Today's data, a random part of them, or more than there are today."""
    x, y = training
    today = len(x) // 2
    wanted = round(conditions.fraction * today)
    if wanted >= today:
        return x[:wanted], y[:wanted]
    generator = torch.Generator().manual_seed(conditions.seed)
    if scenario.task in TEXTS:  # windows overlap: half of them, drawn at random, show all the text
        first = int(torch.randint(0, today - max(wanted, 1) + 1, (1,), generator=generator))
        rows = torch.arange(first, first + max(wanted, 1))
    else:
        rows = torch.randperm(today, generator=generator)[: max(wanted, 1)]
    return x[rows], y[rows]


@torch.no_grad()
def _measure(model: nn.Module, scenario: Scenario, x: torch.Tensor, y: torch.Tensor) -> float:
    outputs = torch.cat([model(part) for part in x.split(500)])
    if scenario.metric == "loss":
        return float(_loss(scenario, outputs, y))
    return float((outputs.argmax(1) != y).double().mean())


def _loss(scenario: Scenario, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if scenario.task in REGRESSIONS:
        return mse_loss(outputs, y)
    return cross_entropy(outputs.flatten(0, -2), y.flatten())
