"""The image tasks of the closed loops: MNIST with and without wrong labels, an MLP and a CNN.

The images and their order are those of `mnist_mlp.py`; a wrong label is drawn at random among the
ten, always the same ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import wwopt
from harness.data import Tensors
from networks import cnn, mlp

LABEL_SEED = 20  # of the labels that are drawn


@dataclass(frozen=True)
class ImageTask:
    """What a study's file offers, for a network and a share of labels drawn at random."""

    make_model: Callable[[wwopt.Conditions], nn.Sequential]
    ranges: dict[str, tuple[float, float]]
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
    noise: float = 0.0  # share of the training and validation labels drawn at random
    batch: int = 64  # images

    def load_data(self) -> Iterator[Tensors]:
        """Yield training, validation and test data; the test labels are the true ones.

        The validation labels are the true ones too; `wrong_labels` gives those as noisy as the
        training's.
        """
        # A study's file looks for its data when it is imported.
        (x, y), validation, test = import_module("mnist_mlp").load_data()
        yield x, draw_labels(y, self.noise, LABEL_SEED)
        yield validation
        yield test

    def wrong_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Validation labels as noisy as the training's, (n,)."""
        return draw_labels(labels, self.noise, LABEL_SEED + 1)

    def make_space(self, conditions: wwopt.Conditions, **options: object) -> wwopt.LayerSpace:
        """Return the search space; it reaches into the region where training collapses."""
        model = self.make_model(conditions)
        return wwopt.LayerSpace.from_model(model, **(self.ranges | options))

    def train(
        self,
        hp: wwopt.LayerHyperparameters,
        conditions: wwopt.Conditions,
        recorder: wwopt.StepRecorder,
    ) -> None:
        """Train one network and hand it to the recorder after every epoch."""
        x, y = next(self.load_data())
        used = round(conditions.fraction * len(x))
        model = hp.apply_dropout(self.make_model(conditions))
        optimizer = hp.optimizer(model, self.optimizer)
        for _ in range(conditions.epochs):
            model.train()
            losses = []
            for batch in torch.randperm(used).split(self.batch):
                loss = cross_entropy(model(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            model.eval()
            recorder.step(model, train_loss=torch.stack(losses).mean().item())


def draw_labels(labels: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """The labels, of which about that share is drawn anew at random from the ten."""
    rng = np.random.default_rng(seed)
    drawn = torch.as_tensor(rng.random(len(labels)) < share)
    random = torch.as_tensor(rng.integers(0, 10, len(labels)))
    return torch.where(drawn, random, labels)


def make_mlp(_: wwopt.Conditions) -> nn.Sequential:
    """The MLP of `mnist_mlp.py`; its size stays the same."""
    return mlp(784, 512, 512, 256, 10)


def make_cnn(_: wwopt.Conditions) -> nn.Sequential:
    """The CNN; its size stays the same."""
    return cnn()


MLP_RANGES = {"lr": (0.001, 1.0), "dropout": (0.0, 0.5), "momentum": (0.0, 0.95)}
CNN_RANGES = {"lr": (1e-4, 3e-2), "dropout": (0.0, 0.5), "momentum": (0.5, 0.98)}

NOISY_MLP = ImageTask(make_mlp, MLP_RANGES, noise=0.2)
CNN = ImageTask(make_cnn, CNN_RANGES, torch.optim.AdamW)
NOISY_CNN = ImageTask(make_cnn, CNN_RANGES, torch.optim.AdamW, noise=0.2)
