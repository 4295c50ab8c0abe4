"""A recorder that records nothing: what a `train` is handed where there is no study."""

import math

import optuna
from torch import nn

from wwopt.study.advice import Advice


class LastNetwork:
    """Keeps the network of the last step, and each number's course; a `StepRecorder`."""

    def __init__(self) -> None:
        self.model: nn.Module | None = None  # None before the first step
        self.numbers: dict[str, float] = {}  # "train_loss" and what else was logged, the last each
        self.course: dict[str, list[float]] = {}  # the same, every value in its order

    def step(
        self,
        model: nn.Module,
        *,
        train_loss: float | None = None,
        step: int | None = None,
        **metrics: float,
    ) -> Advice:
        """As `wwopt.Recorder.step`; gives no advice.

        Raises:
            optuna.TrialPruned: if the training loss is not finite.
        """
        self.model = model
        logged = metrics if train_loss is None else metrics | {"train_loss": train_loss}
        for name, value in logged.items():
            self.numbers[name] = float(value)
            self.course.setdefault(name, []).append(float(value))
        if train_loss is not None and not math.isfinite(train_loss):
            raise optuna.TrialPruned(f"training loss is {float(train_loss)}")
        return Advice()
