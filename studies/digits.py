"""Which learning rates, dropouts and momenta, layer by layer, train a small MLP on digits best?

    wwopt tune studies/digits.py        # about 1 minute on 2 cores

Real data, scikit-learn's 1,797 handwritten digits of 8×8 pixels. The hidden layers are 256 wide, so
that their spectra have enough eigenvalues for alpha to mean something. A fifth of the data is held
out to show what the choice is worth; the objective never sees it.
"""

from collections import OrderedDict

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy

import wwopt

BATCH = 32

# Layers this small gain nothing from a second thread, and lose tenfold when its core is taken.
torch.set_num_threads(1)


def make_model(width: float = 1.0) -> nn.Sequential:
    """Return the untrained MLP, with a dropout after every hidden layer; width scales those."""
    layers: dict[str, nn.Module] = {}
    wide = round(256 * width)
    for index, (fan_in, fan_out) in enumerate([(64, wide), (wide, wide), (wide, wide)], start=1):
        layers[f"hidden{index}"] = nn.Linear(fan_in, fan_out)
        layers[f"relu{index}"] = nn.ReLU()
        layers[f"dropout{index}"] = nn.Dropout()
    return nn.Sequential(OrderedDict(layers, output=nn.Linear(wide, 10)))


def load_data() -> list[torch.Tensor]:
    """Return training and held-out images, (n, 64) in [0, 1], and their labels, (n,)."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16, labels, test_size=0.2, random_state=0, stratify=labels)
    x_train, x_held_out, y_train, y_held_out = split
    return [
        torch.as_tensor(x_train, dtype=torch.float32),
        torch.as_tensor(x_held_out, dtype=torch.float32),
        torch.as_tensor(y_train),
        torch.as_tensor(y_held_out),
    ]


def train(
    hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
) -> None:
    """Train one network and hand it to the recorder after every epoch."""
    x_train, x_held_out, y_train, y_held_out = load_data()
    used = round(conditions.fraction * len(x_train))
    if used < len(x_train):  # a part of the data, another for each seed
        part = torch.randperm(len(x_train))[:used]
        x_train, y_train = x_train[part], y_train[part]
    model = hp.apply_dropout(make_model(conditions.width))
    optimizer = hp.optimizer(model, torch.optim.SGD)
    for _ in range(conditions.epochs):
        model.train()
        losses = []
        for batch in torch.randperm(used).split(BATCH):
            loss = cross_entropy(model(x_train[batch]), y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        model.eval()
        with torch.no_grad():
            accuracy = (model(x_held_out).argmax(1) == y_held_out).double().mean()
        recorder.step(
            model, train_loss=torch.stack(losses).mean().item(), held_out_accuracy=accuracy.item()
        )


study = wwopt.StudySpec(
    name="digits",
    train=train,
    space=lambda conditions: wwopt.LayerSpace.from_model(
        make_model(conditions.width), lr=(0.003, 1.0), dropout=(0.0, 0.5), momentum=(0.0, 0.95)
    ),
    conditions=wwopt.Conditions(seed=0, epochs=20),
    metric="held_out_accuracy",
)
