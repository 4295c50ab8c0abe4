"""One network, trained plainly, or following what the spectra advise after each epoch."""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import optuna
import torch
from torch.nn.functional import cross_entropy

import wwopt
from wwopt.study.convergence import freeze_layers
from wwopt.study.temp_balance import compute_lr_factors, scale_learning_rates

RULES = ("TempBalance", "LLR")


@dataclass(frozen=True)
class AdvisedTask:
    """A study's network, and how it is trained here."""

    study: str  # the name of its file
    arms: tuple[str, ...]
    rates: tuple[float, ...]
    epochs: int
    batches: int  # an epoch
    batch: int  # examples
    examples: int | None  # None for all
    momentum: float
    dropout: float
    optimizer: type[torch.optim.Optimizer]
    options: dict[str, Any] = field(default_factory=dict)  # of the optimizer


TASKS = {
    "mlp": AdvisedTask(
        study="mnist_mlp",
        arms=("plain", "freezing", "TempBalance"),
        rates=(0.01, 0.05, 0.2),
        epochs=10,
        batches=47,
        batch=64,
        examples=3000,
        momentum=0.5,
        dropout=0.2,
        optimizer=torch.optim.SGD,
    ),
    "transformer": AdvisedTask(
        study="char_gpt",
        arms=("plain", *RULES),
        rates=(3e-4, 1e-3, 3e-3, 5.5e-3, 1e-2, 1.8e-2),
        epochs=8,
        batches=50,
        batch=16,
        examples=None,
        momentum=0.9,
        dropout=0.1,
        optimizer=torch.optim.AdamW,
        options={"betas": (0.9, 0.99)},
    ),
}


def train(task: AdvisedTask, arm: str, rate: float, seed: int) -> dict[str, float]:
    """Train one network; returns its test error and loss, what was frozen, and CPU seconds."""
    module = import_module(task.study)  # reads WWOPT_DATA
    (x, y), _, (x_test, y_test) = module.load_data()
    x, y = x[: task.examples], y[: task.examples]
    torch.manual_seed(seed)
    conditions = wwopt.Conditions(seed=seed, epochs=task.epochs)
    model = module.make_model(conditions)
    space = module.make_space(conditions)
    hp = wwopt.LayerHyperparameters(
        lr=dict.fromkeys(space.layers, rate),
        momentum=dict.fromkeys(space.layers, task.momentum),
        dropout=dict.fromkeys(space.dropout_layers, task.dropout),
    )
    optimizer = hp.optimizer(hp.apply_dropout(model), task.optimizer, **task.options)
    spent, frozen, start = 0.0, 0, time.process_time()
    trial = optuna.create_study().ask()
    # A network that breaks would be pruned; here it is judged as it is.
    with (
        suppress(optuna.TrialPruned),
        wwopt.record(trial, conditions=conditions, every=1) as recorder,
    ):
        for _ in range(task.epochs):
            begun = time.process_time()
            model.train()
            for batch in torch.randperm(len(x)).split(task.batch)[: task.batches]:
                loss = cross_entropy(model(x[batch]).flatten(0, -2), y[batch].flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            spent += time.process_time() - begun
            advice = recorder.step(model, train_loss=loss.item())
            frozen += sum(not group["params"][0].requires_grad for group in optimizer.param_groups)
            if arm == "freezing":
                freeze_layers(optimizer, advice.convergence)
            elif arm in RULES:
                scale_learning_rates(optimizer, compute_lr_factors(advice.metrics, rule=arm))
    whole = time.process_time() - start
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part) for part in x_test.split(500)]).flatten(0, -2)
    return {
        "error": 100.0 * float((logits.argmax(1) != y_test.flatten()).double().mean()),
        "loss": float(cross_entropy(logits, y_test.flatten())),
        "frozen": 100.0 * frozen / (task.epochs * len(optimizer.param_groups)),
        "train": spent,
        "analysis": whole - spent,
    }
