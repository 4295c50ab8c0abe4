"""A study's training called without a study: the last network is there, the loss is watched.

It is a `step_recorder`, which is all that a study's training asks for.
"""

import math

import optuna
import pytest
from torch import nn

from wwopt import StepRecorder
from wwopt.study import Advice, LastNetwork


def test_it_keeps_the_last_network_and_the_last_value_of_each_number() -> None:
    last = LastNetwork()
    assert last.model is None
    recorder: StepRecorder = last  # what a study's `train` asks for
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    recorder.step(first, train_loss=0.5, val_accuracy=0.8)
    assert recorder.step(second, train_loss=0.25, step=7) == Advice()
    assert last.model is second
    assert last.numbers == {"train_loss": 0.25, "val_accuracy": 0.8}


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_stops_training_as_in_a_study(loss: float) -> None:
    with pytest.raises(optuna.TrialPruned, match=f"training loss is {loss}"):
        LastNetwork().step(nn.Linear(2, 2), train_loss=loss)
