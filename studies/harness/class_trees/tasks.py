"""The networks whose classes are read as trees, and their trainings: two studies' own, and a CNN's.

All are trained by the textbook configuration of their study (`wwopt.study.textbook`), so that none
is tuned to be read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import wwopt
from harness.data import Tensors, load_mnist, shuffle_and_cut
from networks import cnn
from wwopt.study import LastNetwork
from wwopt.study.textbook import textbook_params

SIZES = (4000, 1000, 4000)  # of MNIST's test images, as studies/mnist_mlp.py cuts them
RANGES = {"lr": (0.001, 1.0), "dropout": (0.0, 0.5), "momentum": (0.0, 0.95)}
Train = Callable[..., Any]


@dataclass(frozen=True)
class Task:
    """A network and its data."""

    train: Train  # a study's: (hp, conditions, recorder)
    make: Callable[[], nn.Module]
    space: wwopt.LayerSpace
    textbook: dict[str, float] | None
    epochs: int
    training: Tensors
    looked_at: Tensors  # a person sees their labels; for corrections
    test: Tensors

    @property
    def hp(self) -> wwopt.LayerHyperparameters:
        """The textbook configuration: a learning rate of .01, as for fine-tuning trees."""
        params = textbook_params(self.space, self.textbook)
        return self.space.suggest(optuna.trial.FixedTrial(params))

    def fit(self, seed: int) -> nn.Module:
        """A trained network, in evaluation mode."""
        recorder, conditions = LastNetwork(), wwopt.Conditions(seed=seed, epochs=self.epochs)
        torch.manual_seed(seed)
        self.train(self.hp, conditions, recorder)
        assert recorder.model is not None
        return recorder.model.eval()


@cache
def load_task(name: str, data: Path | None) -> Task:
    """The task of a name: "digits-mlp", "mnist-mlp" or "mnist-cnn".

    Raises:
        FileNotFoundError: if MNIST's images are needed and not there.
        StudyError: likewise, from the study itself.
    """
    if name == "digits-mlp":
        digits = import_module("digits")
        x, x_held_out, y, y_held_out = digits.load_data()
        held_out = (x_held_out, y_held_out)
        space = digits.study.space_at(digits.study.conditions)
        looked_at, test = shuffle_and_cut(held_out, (160, 200))
        make = digits.make_model
        return Task(digits.study.train, make, space, None, 20, (x, y), looked_at, test)
    training, looked_at, test = shuffle_and_cut(load_mnist(data), SIZES)
    if name == "mnist-mlp":
        mnist = import_module("mnist_mlp")
        conditions = mnist.study.conditions
        space = mnist.study.space_at(conditions)
        textbook = dict(mnist.study.textbook)
        train: Train = mnist.train

        def make() -> nn.Module:
            return mnist.make_model(conditions)
    else:
        make, textbook = cnn, None
        space = wwopt.LayerSpace.from_model(cnn(), **RANGES)
        train = train_on(cnn, training)
    return Task(train, make, space, textbook, 10, training, looked_at, test)


def train_on(make: Callable[[], nn.Module], data: Tensors, *, batch: int = 64) -> Train:
    """A study's `train` on the given examples, which may be labelled wrongly."""
    x, y = data

    def train(
        hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
    ) -> None:
        model = hp.apply_dropout(make())
        optimizer = hp.optimizer(model, torch.optim.SGD)
        for _ in range(conditions.epochs):
            model.train()
            for rows in torch.randperm(len(x)).split(hp.batch_size or batch):
                loss = cross_entropy(model(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            recorder.step(model, train_loss=loss.item())

    return train
