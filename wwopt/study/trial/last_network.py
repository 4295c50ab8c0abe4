"""A recorder that records nothing: what a `train` is handed where there is no study."""

import math

import optuna
from torch import nn

from wwopt.study.advice import Advice


class LastNetwork:
    """Keeps the network of the last step, and the last value of each number; a `StepRecorder`."""

    def __init__(self) -> None:
        self.model: nn.Module | None = None  # None before the first step
        self.numbers: dict[str, float] = {}  # "train_loss" and what else was logged

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
        self.numbers |= {name: float(value) for name, value in metrics.items()}
        if train_loss is not None:
            self.numbers["train_loss"] = float(train_loss)
            if not math.isfinite(train_loss):
                raise optuna.TrialPruned(f"training loss is {float(train_loss)}")
        return Advice()
