"""A network that is kept, and one that has changed."""

import math

import pytest
import torch
from fixtures.studies.recordings import model
from torch import nn

from wwopt.metrics.analysis import analyze
from wwopt.metrics.objective import SpectralObjective
from wwopt.study.trial.kept_networks import KeptNetwork, fingerprint


def test_any_change_of_a_weight_changes_the_fingerprint() -> None:
    net = model()
    before = fingerprint(net)
    assert before == fingerprint(model())
    for change in (lambda w: w[0, 0].add_(1e-4), lambda w: w.neg_(), lambda w: w.data.mul_(1.01)):
        with torch.no_grad():
            change(net[0].weight)
        assert fingerprint(net) != before
        net = model()


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_broken_network_is_equal_to_itself(broken: float) -> None:
    net = model()
    nn.init.constant_(net[0].weight, broken)
    assert fingerprint(net) == fingerprint(net) != fingerprint(model())


def test_numbers_of_other_types_are_summed_too() -> None:
    net = nn.Sequential(nn.Linear(4, 4)).to(torch.bfloat16)
    net.register_parameter("whole", nn.Parameter(torch.arange(3), requires_grad=False))
    assert len(fingerprint(net)) == 6 and fingerprint(net)[0] == 3.0


def test_what_is_kept_does_not_follow_the_model() -> None:
    net = model()
    metrics = analyze(net)
    kept = KeptNetwork.of(
        net, step=3, metrics=metrics, result=SpectralObjective()(metrics), train_loss=None
    )
    with torch.no_grad():
        net[0].weight.zero_()
    net.load_state_dict(kept.weights)
    assert fingerprint(net) == fingerprint(model())
