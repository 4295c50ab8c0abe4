"""Networks on scikit-learn's digits for `select_model.py`, where MNIST's images are not at hand.

Two architectures, an MLP and a small CNN, with random learning rate, dropout and momentum for each
layer, reaching into the region where training collapses. All follows from a network's index.
"""

from pathlib import Path

import torch
from safetensors.torch import save_model
from torch import nn
from torch.nn.functional import cross_entropy

from harness.data import Data, load_digits, shuffle_and_cut
from harness.zoos.tasks import Task, draw_config
from networks import mlp

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 600, 500, 697


def digits_cnn() -> nn.Sequential:
    """Two convolutions and two dense layers, 8×8 → 10."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(64 * 16, 128),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(128, 10),
    )


DIGITS = {
    task.name: task
    for task in (
        Task("digits-mlp", "digits", lambda: mlp(64, 256, 256, 10), NUM_TRAIN, 20, batch=32),
        Task("digits-cnn", "digits", digits_cnn, NUM_TRAIN, 15, batch=32, lr=(1e-3, 1.5)),
    )
}


def load_digits_data() -> Data:
    """Training, validation and test images, (n, 64) in [0, 1], and labels; always the same."""
    return Data(*shuffle_and_cut(load_digits(), (NUM_TRAIN, NUM_VALIDATION, NUM_TEST)))


def train_digits(name: str, index: int, path: Path) -> None:
    """Train one network and write its weights; none where its loss became non-finite."""
    torch.set_num_threads(1)
    task = DIGITS[name]
    config = draw_config(task, index)
    x, y = load_digits_data().train
    torch.manual_seed(task.stream + index)
    model = task.make_model()
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for module, rate in zip(dropouts, config["drop"], strict=True):
        module.p = rate
    layers = [module for module in model if isinstance(module, nn.Linear | nn.Conv2d)]
    groups = [
        {"params": list(layer.parameters()), "lr": lr, "momentum": momentum}
        for layer, lr, momentum in zip(layers, config["lr"], config["mom"], strict=True)
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    for _ in range(task.epochs):
        for rows in torch.randperm(len(x)).split(task.batch):
            loss = cross_entropy(model(x[rows]), y[rows])
            if not loss.isfinite():
                return
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    save_model(model, str(path))
