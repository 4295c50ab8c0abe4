"""The study that somebody in a situation has been running: its data, networks and training."""

import math
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import wwopt
from harness.data import Tensors, cut_windows, load_digits, load_mnist, load_text
from harness.scenarios.situations import VALIDATION, Scenario, count_validation
from networks import CharGPT, mlp

TEST = {
    "mlp": 3500,
    "cnn": 3500,
    "halves": 3500,
    "digits": 600,
    "text": 64_000,
}  # images, or characters
CONTEXT, STRIDE = 32, 16  # characters in a window, and between the starts of two
TEXT_WIDTH_STEP = 4  # heads
HALF = 392  # pixels of an image
SIZES = {"mlp": (784, 10), "digits": (64, 10), "halves": (HALF, HALF)}  # inputs and outputs


def make_study(scenario: Scenario, folder: Path | None) -> wwopt.StudySpec:
    """The study that the one who asks has been running.

    Args:
        scenario: the situation.
        folder: with MNIST's test images and tinyshakespeare.txt.
    """
    training, validation, test = load(scenario, folder)
    text = scenario.task == "text"
    adam = text or scenario.adam
    cls = torch.optim.AdamW if adam else torch.optim.SGD
    batch = 16 if text else 32

    def train(
        hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
    ) -> None:
        x, y = _part(training, scenario, conditions)
        model = hp.apply_dropout(make_model(scenario, conditions))
        optimizer = hp.optimizer(model, cls)
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
                if scenario.cosine:
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

    lr = (1e-4, 3e-2) if adam else (1e-3, 1.5)
    momentum = (0.5, 0.98) if adam else (0.0, 0.95)
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
    deep = max(1, round(2 * conditions.depth))
    if scenario.task == "text":
        return CharGPT(width=TEXT_WIDTH_STEP * max(1, wide // 4), depth=deep, context=CONTEXT)
    if scenario.task == "cnn":
        return _add_norms(_cnn(wide)) if scenario.norm else _cnn(wide)
    inputs, outputs = SIZES[scenario.task]
    model = mlp(inputs, *[wide] * deep, outputs)
    return _add_norms(model) if scenario.norm else model


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


def _add_norms(model: nn.Sequential) -> nn.Sequential:
    """Batch norms before the activations."""
    parts: list[nn.Module] = []
    for part in model:
        if isinstance(part, nn.ReLU) and isinstance(parts[-1], nn.Conv2d):
            parts.append(nn.BatchNorm2d(parts[-1].out_channels))
        elif isinstance(part, nn.ReLU) and isinstance(parts[-1], nn.Linear):
            parts.append(nn.BatchNorm1d(parts[-1].out_features))
        parts.append(part)
    return nn.Sequential(*parts)


def load(scenario: Scenario, folder: Path | None) -> tuple[Tensors, Tensors, Tensors]:
    """Training data (twice as much as the scenario has today), validation and test data."""
    if scenario.task == "text":
        return _load_text(scenario, folder)
    x, y = _images(scenario.task, folder)
    test, validation, used = (
        TEST[scenario.task],
        VALIDATION[scenario.task],
        count_validation(scenario),
    )
    start, stop = test + validation, test + validation + 2 * scenario.examples
    if stop > len(x):
        raise ValueError(f"{scenario.name} needs {stop} examples, there are {len(x)}")
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    labels = y[rows[start:stop]].clone()
    generator = torch.Generator().manual_seed(1)
    wrong = torch.rand(len(labels), generator=generator) < scenario.noise
    drawn = torch.randint(0, 10, labels.shape, generator=generator)
    labels[wrong] = drawn[wrong]
    parts = rows[start:stop], rows[test : test + used], rows[:test]
    if scenario.task == "halves":  # of an image, of 14 rows each
        return tuple((x[part, :HALF], x[part, HALF:]) for part in parts)  # type: ignore[return-value]
    return (x[parts[0]], labels), *((x[part], y[part]) for part in parts[1:])


@cache
def _images(task: str, folder: Path | None) -> Tensors:
    return load_digits() if task == "digits" else load_mnist(folder)


def _load_text(scenario: Scenario, folder: Path | None) -> tuple[Tensors, Tensors, Tensors]:
    codes = load_text(folder)
    held_out = len(codes) * 4 // 5
    training = cut_windows(codes, 0, 2 * scenario.examples, stride=STRIDE, context=CONTEXT)
    validation, test = (
        cut_windows(codes, start, count, stride=CONTEXT, context=CONTEXT)
        for start, count in (
            (held_out, count_validation(scenario)),
            (held_out + 20_000, TEST["text"]),
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
    if scenario.task == "text":  # windows overlap: half of them, drawn at random, show all the text
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
    if scenario.task == "halves":
        return mse_loss(outputs, y)
    return cross_entropy(outputs.flatten(0, -2), y.flatten())
