"""One trained network of a closed loop: its losses, errors and spectra, and what each of them cost.

A trial is a line of JSON in FOLDER/TASK-SEED.jsonl and its spectra in FOLDER/spectra, so that every
score can be computed again without training.
"""

import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import wwopt
from harness.loops.evidence import laplace_evidence
from wwopt.study import LastNetwork

EXAMPLES = (100, 300, 1000)  # images, or windows of 64 characters
NOISY = "noisy validation 1000"  # labels as wrong as those of the training
EVIDENCE = "evidence"  # of a Laplace approximation, per example, negative: lower is better
SPECTRUM_ARRAYS = ("eigenvalues", "shuffled_tops")
SPECTRUM_NUMBERS = ("element_mean", "element_variance", "kurtosis", "max_abs")


@dataclass(frozen=True)
class LoopTask:
    """A study's network and data, small enough to be trained a thousand times."""

    study: str  # the name of its file, or of an attribute of `image_tasks`
    epochs: int
    fraction: float  # of the study's training data
    default: dict[str, float]  # textbook values: lr, dropout, momentum
    memorising: float = 1.0  # limit of the guard; infinite where no example is seen twice

    @property
    def module(self) -> Any:
        """What trains, makes the space and loads data; imported when first wanted, for its data."""
        if self.study.isupper():
            return getattr(import_module("harness.loops.image_tasks"), self.study)
        return import_module(self.study)

    @property
    def conditions(self) -> wwopt.Conditions:
        """Without a seed of its own: every trial has one."""
        return wwopt.Conditions(seed=0, epochs=self.epochs, fraction=self.fraction)


_SGD = {"lr": 0.01, "dropout": 0.2, "momentum": 0.9}
_ADAM = {"lr": 1e-3, "dropout": 0.1, "momentum": 0.9}

TASKS = {
    "mlp": LoopTask("mnist_mlp", 8, 0.75, _SGD),
    "mlp-noise": LoopTask("NOISY_MLP", 8, 0.75, _SGD),
    "cnn": LoopTask("CNN", 8, 0.5, _ADAM),
    "cnn-noise": LoopTask("NOISY_CNN", 8, 0.5, _ADAM),
    # Less than one pass over the text.
    "gpt": LoopTask("char_gpt", 4, 1.0, _ADAM, memorising=math.inf),
    "gpt-long": LoopTask("char_gpt", 12, 1.0, _ADAM, memorising=math.inf),
}


def run_trial(
    name: str,
    hp: wwopt.LayerHyperparameters,
    *,
    seed: int,
    folder: Path,
    known: dict[str, Any],
    evidence: bool = False,
) -> dict[str, Any]:
    """Train a network and measure it, or return its record if there is one.

    Args:
        name: of the task.
        hp: its hyperparameters.
        seed: of initialisation, data order and shuffles.
        folder: of the records.
        known: key → record; the new one is added.
        evidence: compute that too.
    """
    task = TASKS[name]
    kind = type(hp).__name__
    setting = json.dumps([name, task.epochs, task.fraction, seed, hp.to_dict(), kind])
    key = hashlib.sha256(setting.encode()).hexdigest()[:16]
    if key in known:
        return known[key]
    record: dict[str, Any] = {"key": key, "seed": seed, "hp": hp.to_dict(), "seconds": {}}
    last = _Losses()
    torch.manual_seed(seed)
    with _timed(record, "train"):
        try:
            task.module.train(hp, replace(task.conditions, seed=seed), last)
        except optuna.TrialPruned:
            record["status"] = "diverged"
    if "status" not in record:
        assert last.model is not None
        record["status"] = "ok"
        record["train_loss"] = last.numbers.get("train_loss", math.nan)
        record["losses"] = last.losses
        with _timed(record, "spectra"):
            metrics = wwopt.analyze(last.model, seed=seed)
        _store_spectra(metrics, folder / "spectra" / f"{key}.npz")
        _evaluate(name, last.model, record)
        if evidence:
            x, y = _data(name)[0]
            used = round(task.fraction * len(x))
            with _timed(record, EVIDENCE):
                record[EVIDENCE] = laplace_evidence(last.model, x[:used], y[:used])
    known[key] = record
    return record


class _Losses(LastNetwork):
    """Keeps the training loss of every step too."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def step(self, model: nn.Module, **numbers: Any) -> wwopt.Advice:
        self.losses.append(float(numbers["train_loss"]))
        return super().step(model, **numbers)


def load_metrics(record: dict[str, Any], folder: Path) -> wwopt.ModelMetrics:
    """Spectral metrics of a trial, from its stored spectra."""
    with np.load(folder / "spectra" / f"{record['key']}.npz") as arrays:
        layers = json.loads(str(arrays["layers"]))
        spectra = [
            wwopt.LayerSpectrum(
                **layer, **{what: arrays[f"{index}/{what}"] for what in SPECTRUM_ARRAYS}
            )
            for index, layer in enumerate(layers)
        ]
    return wwopt.metrics_from_spectra(spectra)


@torch.no_grad()
def _evaluate(name: str, model: nn.Module, record: dict[str, Any]) -> None:
    """Loss and error on validation and test data, without dropout."""
    model.eval()
    _, validation, test = _data(name)
    if "noise" in name:
        wrong = TASKS[name].module.wrong_labels(validation[1])
        record[NOISY] = _measure(model, validation[0][:1000], wrong[:1000])
    for count in EXAMPLES:
        with _timed(record, f"validation {count}"):
            part = [tensor[:count] for tensor in validation]
            record[f"validation {count}"] = _measure(model, *part)
    record["test"] = _measure(model, *test)


def _measure(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    logits = torch.cat([model(part) for part in x.split(500)]).flatten(0, -2)
    wrong = (logits.argmax(1) != y.flatten()).double().mean()
    return {"loss": float(cross_entropy(logits, y.flatten())), "error": float(wrong)}


@cache
def _data(name: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(TASKS[name].module.load_data())


def _store_spectra(metrics: wwopt.ModelMetrics, path: Path) -> None:
    layers, arrays = [], {}
    for index, layer in enumerate(metrics.layers):
        spectrum = layer.spectrum
        assert spectrum is not None
        plain = {n: getattr(spectrum, n) for n in ("name", "shape", "num_slices", "kind")}
        layers.append(plain | {n: getattr(spectrum, n) for n in SPECTRUM_NUMBERS})
        for what in SPECTRUM_ARRAYS:
            value = getattr(spectrum, what)
            arrays[f"{index}/{what}"] = np.zeros((1, 1)) if value is None else value
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, layers=json.dumps(layers), **arrays)


class _timed:  # noqa: N801 - reads as a verb in `with _timed(...)`
    """Add the CPU seconds of a block to a record."""

    def __init__(self, record: dict[str, Any], what: str) -> None:
        self._record, self._what = record, what

    def __enter__(self) -> None:
        self._start = time.process_time()

    def __exit__(self, *_: object) -> None:
        self._record["seconds"][self._what] = time.process_time() - self._start
