"""Which learning rates, dropouts and momenta, layer by layer, suit an MLP on MNIST images?

    wwopt tune studies/mnist_mlp.py --data FOLDER        # about 2 minutes on 2 cores

An MLP 784-512-512-256-10 on 4,000 of MNIST's 10,000 test images; 1,000 others show what the choice
is worth, and the objective never sees them. FOLDER holds `t10k-images-idx3-ubyte.gz` and
`t10k-labels-idx1-ubyte.gz` (the variable WWOPT_DATA does the same).
"""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import wwopt
from networks import mlp

BATCH = 64
TRAINING, VALIDATION, TEST = 4000, 1000, 4000  # images

# Layers this small gain little from a second thread, and lose much when its core is taken.
torch.set_num_threads(1)


def make_model(conditions: wwopt.Conditions) -> nn.Sequential:
    """Return the untrained MLP; width scales its layers, depth the number of the 512 wide ones."""
    wide = [round(512 * conditions.width)] * max(1, round(2 * conditions.depth))
    return mlp(784, *wide, round(256 * conditions.width), 10)


def find_data() -> dict[str, Path]:
    """Return the files of images and labels.

    Raises:
        StudyError: if the folder is not given or lacks them; the message says what to do.
    """
    folder = os.environ.get("WWOPT_DATA")
    found = {}
    for what, name in (("images", "t10k-images-idx3-ubyte"), ("labels", "t10k-labels-idx1-ubyte")):
        paths = [] if folder is None else sorted(Path(folder).glob(f"*{name}*"))
        if not paths:
            where = "no folder is given for" if folder is None else f"{folder} lacks"
            raise wwopt.StudyError(
                f"{where} MNIST's test images; download t10k-images-idx3-ubyte.gz and "
                f"t10k-labels-idx1-ubyte.gz and pass their folder with --data FOLDER"
            )
        found[what] = paths[0]
    return found


def load_data() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield training, validation and test images, (n, 784) normalised, and their labels, (n,)."""
    images, labels = (
        np.frombuffer(
            gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes(),
            np.uint8,
            offset=16 if what == "images" else 8,
        )
        for what, path in find_data().items()
    )
    x = torch.as_tensor((images.reshape(-1, 784) / 255.0 - 0.1307) / 0.3081, dtype=torch.float32)
    y = torch.as_tensor(labels.astype(np.int64))
    order = torch.as_tensor(np.random.default_rng(0).permutation(len(x)))
    for rows in order[: TRAINING + VALIDATION + TEST].split([TRAINING, VALIDATION, TEST]):
        yield x[rows], y[rows]


def train(
    hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
) -> None:
    """Train one network and hand it to the recorder after every epoch."""
    (x, y), (x_validation, y_validation), _ = load_data()
    used = round(conditions.fraction * len(x))
    model = hp.apply_dropout(make_model(conditions))
    optimizer = hp.optimizer(model, torch.optim.SGD)
    for _ in range(conditions.epochs):
        model.train()
        losses = []
        for batch in torch.randperm(used).split(hp.batch_size or BATCH):
            loss = cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        model.eval()
        with torch.no_grad():
            right = (model(x_validation).argmax(1) == y_validation).double().mean()
        train_loss = torch.stack(losses).mean().item()
        recorder.step(model, train_loss=train_loss, validation_accuracy=right.item())


def make_space(conditions: wwopt.Conditions, **options: object) -> wwopt.LayerSpace:
    """Return the search space; it reaches into the region where training collapses."""
    ranges = {"lr": (0.001, 1.0), "dropout": (0.0, 0.5), "momentum": (0.0, 0.95)}
    return wwopt.LayerSpace.from_model(make_model(conditions), **(ranges | options))


find_data()  # a missing folder is said before the first trial
study = wwopt.StudySpec(
    name="mnist-mlp",
    train=train,
    space=make_space,
    conditions=wwopt.Conditions(seed=0, epochs=10),
    metric="validation_accuracy",
    textbook={"lr": 0.01, "dropout": 0.2, "momentum": 0.9},
)
