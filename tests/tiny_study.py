"""A study that trains in milliseconds, as a file of the kind that people write."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

TINY_STUDY = """
import torch
from torch import nn
import wwopt

def make():
    return nn.Sequential(nn.Linear(64, 80), nn.ReLU(), nn.Dropout(), nn.Linear(80, 10))

def train(hp, conditions, recorder):
    model = hp.apply_dropout(make())
    optimizer = hp.optimizer(model, torch.optim.SGD)
    for _ in range(conditions.epochs):
        x = torch.randn(32, 64)
        loss = (model(x) - x[:, :10]).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        recorder.step(model, train_loss=loss.item())

study = wwopt.StudySpec(
    "tiny", train,
    wwopt.LayerSpace.from_model(make(), lr=(.01, 1.), dropout=(0., .5), momentum=(0., .9)),
    conditions=wwopt.Conditions(seed=0, epochs=4),
)
"""
UNCHANGED: Mapping[str, str] = MappingProxyType({})


def write_tiny_study(folder: Path, changes: Mapping[str, str] = UNCHANGED) -> str:
    """Write `tiny.py`, each key of `changes` replaced by its value; its path, as commands take."""
    text = TINY_STUDY
    for before, after in changes.items():
        assert before in text, f"the tiny study has no {before!r} to change"
        text = text.replace(before, after)
    path = folder / "tiny.py"
    path.write_text(text)
    return str(path)
