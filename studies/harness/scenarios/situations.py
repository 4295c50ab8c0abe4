"""Situations in which someone asks "more data, or more tuning?", from real data.

They spread over what decides the answer: few or many examples, a start from one configuration or
from a search, clean or noisy labels, models too small or too large, training too short or ample.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import wwopt
from harness.data import Tensors, cut_windows, load_digits, load_mnist, load_text
from networks import CharGPT, mlp

CONTEXT, STRIDE = 32, 16  # characters in a window, and between the starts of two
TEXT_WIDTH_STEP = 4  # heads


@dataclass(frozen=True)
class Scenario:
    """One situation."""

    name: str
    task: str  # "mlp" and "cnn" on MNIST images, "digits", "text"
    examples: int  # of training data that there are today; characters of text
    width: int  # of the hidden layers, or channels of the first convolution
    epochs: int
    trials: int  # that were run before the question is asked; 1 for one configuration
    lr: float = 0.03  # of that configuration
    noise: float = 0.0  # share of training labels drawn at random
    judged: bool = False  # whether it was kept aside until the rules were frozen

    @property
    def metric(self) -> str:
        """What the validation data measure; the test data measure the same."""
        return "loss" if self.task == "text" else "error"


def _situations() -> tuple[Scenario, ...]:
    rows: list[tuple[str, int, int, int, int, float, float]] = [
        # task, examples, width, epochs, trials, lr of the only trial, noise
        ("mlp", 150, 64, 20, 1, 0.03, 0.0),
        ("mlp", 150, 64, 20, 6, 0.0, 0.0),
        ("mlp", 150, 64, 20, 16, 0.0, 0.0),
        ("mlp", 600, 64, 12, 1, 0.003, 0.0),
        ("mlp", 600, 128, 12, 6, 0.0, 0.3),
        ("mlp", 600, 128, 12, 16, 0.0, 0.3),
        ("mlp", 2500, 128, 8, 1, 0.1, 0.0),
        ("mlp", 2500, 128, 8, 1, 0.003, 0.0),
        ("mlp", 2500, 128, 8, 6, 0.0, 0.0),
        ("mlp", 2500, 128, 8, 16, 0.0, 0.0),
        ("mlp", 2500, 6, 8, 6, 0.0, 0.0),
        ("mlp", 2500, 6, 8, 16, 0.0, 0.0),
        ("mlp", 2500, 10, 8, 1, 0.03, 0.0),
        ("mlp", 600, 64, 2, 6, 0.0, 0.0),
        ("mlp", 2500, 64, 1, 16, 0.0, 0.0),
        ("mlp", 2500, 64, 1, 6, 0.0, 0.0),
        ("mlp", 2500, 256, 15, 16, 0.0, 0.3),
        ("mlp", 300, 512, 20, 6, 0.0, 0.0),
        ("cnn", 200, 8, 10, 1, 0.01, 0.0),
        ("cnn", 200, 8, 10, 6, 0.0, 0.0),
        ("cnn", 800, 8, 5, 16, 0.0, 0.0),
        ("cnn", 800, 2, 5, 6, 0.0, 0.0),
        ("cnn", 2000, 8, 1, 6, 0.0, 0.0),
        ("cnn", 2000, 6, 3, 1, 0.03, 0.0),
        ("digits", 60, 64, 40, 6, 0.0, 0.0),
        ("digits", 60, 64, 40, 16, 0.0, 0.0),
        ("digits", 220, 64, 20, 1, 0.01, 0.0),
        ("digits", 440, 64, 15, 16, 0.0, 0.0),
        ("digits", 440, 5, 15, 6, 0.0, 0.0),
        ("digits", 440, 5, 15, 16, 0.0, 0.0),
        ("text", 6_000, 64, 6, 6, 0.0, 0.0),
        ("text", 6_000, 64, 6, 16, 0.0, 0.0),
        ("text", 15_000, 64, 2, 1, 0.001, 0.0),
        ("text", 15_000, 8, 3, 6, 0.0, 0.0),
        ("text", 20_000, 64, 1, 16, 0.0, 0.0),
        ("text", 20_000, 64, 3, 6, 0.0, 0.0),
    ]
    kept_aside: list[tuple[str, int, int, int, int, float, float]] = [
        ("mlp", 100, 96, 25, 6, 0.0, 0.0),
        ("mlp", 300, 32, 15, 1, 0.01, 0.0),
        ("mlp", 300, 200, 10, 12, 0.0, 0.2),
        ("mlp", 1000, 96, 4, 4, 0.0, 0.0),
        ("mlp", 1000, 8, 10, 12, 0.0, 0.0),
        ("mlp", 1000, 200, 20, 8, 0.0, 0.0),
        ("mlp", 2000, 48, 3, 1, 0.3, 0.0),
        ("mlp", 2000, 96, 6, 20, 0.0, 0.0),
        ("mlp", 2000, 96, 10, 8, 0.0, 0.4),
        ("mlp", 2000, 4, 5, 4, 0.0, 0.0),
        ("cnn", 120, 6, 15, 8, 0.0, 0.0),
        ("cnn", 400, 6, 6, 1, 0.1, 0.0),
        ("cnn", 400, 12, 8, 12, 0.0, 0.0),
        ("cnn", 1500, 3, 2, 8, 0.0, 0.0),
        ("cnn", 1500, 8, 4, 12, 0.0, 0.2),
        ("digits", 120, 48, 30, 8, 0.0, 0.0),
        ("digits", 120, 96, 10, 1, 0.05, 0.0),
        ("digits", 300, 8, 20, 12, 0.0, 0.0),
        ("digits", 300, 96, 25, 4, 0.0, 0.3),
        ("text", 9_000, 64, 3, 8, 0.0, 0.0),
        ("text", 9_000, 16, 4, 1, 0.003, 0.0),
        ("text", 15_000, 64, 2, 12, 0.0, 0.0),
    ]
    found = []
    for index, (task, examples, width, epochs, trials, lr, noise) in enumerate(rows + kept_aside):
        name = f"{task}-{examples}-w{width}-e{epochs}-t{trials}"
        name += f"-lr{lr:g}" * (trials == 1) + f"-noise{noise:g}" * (noise > 0.0)
        judged = index >= len(rows)
        found.append(Scenario(name, task, examples, width, epochs, trials, lr, noise, judged))
    return tuple(found)


SCENARIOS = {scenario.name: scenario for scenario in _situations()}
_TEST = {"mlp": 3500, "cnn": 3500, "digits": 600, "text": 64_000}
_VALIDATION = {"mlp": 1000, "cnn": 1000, "digits": 200, "text": 16_000}


def make_study(scenario: Scenario, folder: Path | None) -> wwopt.StudySpec:
    """The study that the one who asks has been running.

    Args:
        scenario: the situation.
        folder: with MNIST's test images and tinyshakespeare.txt.
    """
    training, validation, test = load(scenario, folder)
    text = scenario.task == "text"
    cls = torch.optim.AdamW if text else torch.optim.SGD
    batch = 16 if text else 32

    def train(
        hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
    ) -> None:
        x, y = _part(training, scenario, conditions)
        model = hp.apply_dropout(make_model(scenario, conditions))
        optimizer = hp.optimizer(model, cls)
        for epoch in range(conditions.epochs):
            model.train()
            losses = []
            for rows in torch.randperm(len(x)).split(batch):
                loss = cross_entropy(model(x[rows]).flatten(0, -2), y[rows].flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            mean = torch.stack(losses).mean().item()
            if epoch + 1 < conditions.epochs and math.isfinite(mean):
                continue
            model.eval()
            measured = {
                f"{part}_{scenario.metric}": _measure(model, scenario.metric, *data)
                for part, data in (("validation", validation), ("test", test))
            }
            recorder.step(model, train_loss=mean, **measured)

    lr = (1e-4, 3e-2) if text else (1e-3, 1.5)
    momentum = (0.5, 0.98) if text else (0.0, 0.95)
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
        return _cnn(wide)
    return mlp(64 if scenario.task == "digits" else 784, *[wide] * deep, 10)


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


def load(scenario: Scenario, folder: Path | None) -> tuple[Tensors, Tensors, Tensors]:
    """Training data (twice as much as the scenario has today), validation and test data."""
    if scenario.task == "text":
        return _load_text(scenario, folder)
    x, y = _images(scenario.task, folder)
    test, validation, used = (
        _TEST[scenario.task],
        _VALIDATION[scenario.task],
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
    parts = rows[:test], rows[test : test + used]
    return (x[rows[start:stop]], labels), *((x[part], y[part]) for part in parts[::-1])


def count_validation(scenario: Scenario) -> int:
    """Validation examples, characters of text: who has few to train on has few to validate on."""
    few, share = (2_000, 4) if scenario.task == "text" else (100, 2)
    return min(_VALIDATION[scenario.task], max(few, scenario.examples // share))


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
            (held_out + 20_000, _TEST["text"]),
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
def _measure(model: nn.Module, metric: str, x: torch.Tensor, y: torch.Tensor) -> float:
    logits = torch.cat([model(part) for part in x.split(500)]).flatten(0, -2)
    if metric == "loss":
        return float(cross_entropy(logits, y.flatten()))
    return float((logits.argmax(1) != y.flatten()).double().mean())
