"""A study's own training goes on along the tree, and says where it cannot."""

from typing import Any

import pytest
import torch
from fixtures.networks.class_trees import make_classifier
from torch.nn.functional import cross_entropy

import wwopt
from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.fine_tuning import fine_tune
from wwopt.class_tree.tree_loss import TreeLoss
from wwopt.class_tree.trees import class_tree
from wwopt.study import LastNetwork

X, Y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4
HP = wwopt.LayerHyperparameters(lr={"0": 0.01, "2": 0.01})
MODEL = make_classifier()
TREE = class_tree(MODEL)


def train(hp: Any, conditions: wwopt.Conditions, recorder: Any) -> None:
    """A study's: it makes its network, and knows nothing of trees."""
    torch.manual_seed(7)
    model = make_classifier() if conditions.width == 1.0 else make_classifier(width=9)
    with torch.no_grad():
        model[2].weight.zero_()  # not what it starts from
    optimizer = hp.optimizer(model, torch.optim.SGD)
    for _ in range(conditions.epochs):
        loss = cross_entropy(model(X), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder.step(model, train_loss=loss.item())


def run(training: Any, **changed: Any) -> LastNetwork:
    recorder = LastNetwork()
    options: dict[str, Any] = {
        "weights": MODEL.state_dict(), "hp": HP, "recorder": recorder,
        "conditions": wwopt.Conditions(seed=0, epochs=1),
    }  # fmt: skip
    fine_tune(training, TREE.hierarchy, **options | changed)
    return recorder


def test_one_step_from_the_weights_along_both_losses() -> None:
    model = make_classifier()
    model.load_state_dict(MODEL.state_dict())
    loss = TreeLoss(TREE.hierarchy)(model(X), Y)
    loss.backward()
    expected = model[2].weight - 0.01 * model[2].weight.grad
    recorder = run(train)
    assert recorder.numbers["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert isinstance(recorder.model, torch.nn.Sequential)
    torch.testing.assert_close(recorder.model[2].weight, expected)


def test_a_training_without_an_optimizer_of_hp_is_told() -> None:
    with pytest.raises(ClassTreeError, match="train asked hp for no optimizer"):
        run(lambda hp, conditions, recorder: cross_entropy(MODEL(X), Y))


def test_a_training_without_cross_entropy_is_told() -> None:
    with pytest.raises(ClassTreeError, match="no cross-entropy over 4 classes"):
        run(lambda hp, conditions, recorder: hp.param_groups(make_classifier(), torch.optim.SGD))


def test_weights_of_another_network_are_told() -> None:
    with pytest.raises(ClassTreeError, match="does not take the weights"):
        run(train, conditions=wwopt.Conditions(seed=0, epochs=1, width=2.0))
