"""The tree's loss is that of the tree's own probabilities, and is added where it should be."""

import numpy as np
import pytest
import torch
from fixtures.networks.class_trees import draw_features, make_tree
from torch import nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

from wwopt.class_tree.inference import predict_probabilities
from wwopt.class_tree.tree_loss import TreeLoss

TREE = make_tree(np.random.default_rng(0).normal(size=(7, 5)), tuple("abcdefg"))
FEATURES = draw_features(TREE.head.weight)
LOGITS = torch.tensor(TREE.head.logits(FEATURES.inputs), requires_grad=True)
LABELS = torch.tensor(FEATURES.labels)


def test_of_logits_it_is_what_the_tree_says_of_features() -> None:
    said = predict_probabilities(TREE, FEATURES.inputs)
    expected = -np.log(said[np.arange(len(said)), FEATURES.labels]).mean()
    loss = TreeLoss(TREE.hierarchy)
    assert loss.of_tree(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-6)
    whole = cross_entropy(LOGITS, LABELS).item() + expected
    assert loss(LOGITS, LABELS).item() == pytest.approx(whole, rel=1e-6)


def test_its_gradient_is_the_difference_quotient() -> None:
    logits = LOGITS.detach()[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: TreeLoss(TREE.hierarchy)(z, LABELS[:2]), (logits,))


def test_inside_every_cross_entropy_over_the_classes_has_it() -> None:
    plain = cross_entropy(LOGITS, LABELS)
    with TreeLoss(TREE.hierarchy, weight=0.5) as loss:
        inside = cross_entropy(LOGITS, LABELS)
        module = nn.CrossEntropyLoss()(LOGITS, target=LABELS)
        called = loss(LOGITS, LABELS)
    expected = plain + 0.5 * loss.of_tree(LOGITS, LABELS)
    assert inside.item() == module.item() == expected.item()
    assert called.item() == pytest.approx(expected.item())
    assert loss.added == 2
    assert cross_entropy(LOGITS, LABELS).item() == plain.item()


@pytest.mark.parametrize(
    "arguments",
    [
        (LOGITS[:, :6], LABELS % 6),
        (LOGITS.detach(), LABELS),
        (LOGITS, functional.one_hot(LABELS, 7).double()),
        (LOGITS, LABELS, torch.ones(7, dtype=torch.float64)),
    ],
    ids=["other classes", "no gradient", "probabilities", "weights"],
)
def test_other_losses_stay_as_they_are(arguments: tuple) -> None:
    plain = cross_entropy(*arguments)
    with TreeLoss(TREE.hierarchy) as loss:
        assert cross_entropy(*arguments).item() == plain.item()
        cross_entropy(LOGITS, LABELS, reduction="none")
    assert loss.added == 0
