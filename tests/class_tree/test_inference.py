"""Decisions by a hand-made tree, by an independent walk, and what holds of any."""

import numpy as np
import pytest
from fixtures.networks.class_trees import ROWS, make_tree
from scipy.special import softmax

from wwopt.class_tree import inference
from wwopt.class_tree.correction import move_class
from wwopt.class_tree.inference import (
    decide_hard,
    decide_softly,
    follow,
    predict_probabilities,
)
from wwopt.class_tree.trees import ClassTree

RNG = np.random.default_rng
ROWS_9 = RNG(3).normal(size=(9, 4))
TREE_9 = make_tree(ROWS_9, tuple("abcdefghi"))
WIDE = move_class(TREE_9, "a", TREE_9.hierarchy.root)  # a node of three children


def walk(tree: ClassTree, x: np.ndarray) -> np.ndarray:
    """The probability of each class, from the leaf up, as slowly as it is defined."""
    found = np.ones(len(tree.hierarchy.names))
    for number in range(len(found)):
        below = number
        while below in tree.hierarchy.parents:
            node = tree.hierarchy.parents[below]
            children = tree.hierarchy.children[node]
            means = [tree.head.weight[list(tree.hierarchy.classes[c])].mean(0) for c in children]
            found[number] *= softmax([mean @ x for mean in means])[children.index(below)]
            below = node
    return found


def test_two_nodes_by_hand() -> None:
    x = np.array([[0.5, 0.25]])
    first = 1.0 / (1.0 + np.exp(-4.0))  # (4, 0)·x against (-4, 0)·x
    then = 1.0 / (1.0 + np.exp(-0.5))  # (4, 1)·x against (4, -1)·x
    cat = predict_probabilities(make_tree(), x)[0, 0]
    assert cat == pytest.approx(first * then)


@pytest.mark.parametrize("tree", [make_tree(), TREE_9, WIDE], ids=["pairs", "nine", "wide"])
def test_probabilities_are_products_along_paths(tree: ClassTree) -> None:
    inputs = RNG(0).normal(size=(6, tree.head.weight.shape[1]))
    found = predict_probabilities(tree, inputs)
    np.testing.assert_allclose(found, [walk(tree, x) for x in inputs], rtol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-6)


def test_two_classes_decide_as_their_network() -> None:
    tree = make_tree(ROWS[:2], ("cat", "dog"))
    inputs = RNG(1).normal(size=(20, 2))
    expected = softmax(tree.head.logits(inputs), axis=1)
    np.testing.assert_allclose(predict_probabilities(tree, inputs), expected, rtol=1e-6)


def test_hard_decisions_follow_the_best_child() -> None:
    inputs = RNG(2).normal(size=(40, 4))
    for x, decided in zip(inputs, decide_hard(WIDE, inputs), strict=True):
        node = WIDE.hierarchy.root
        while node in WIDE.hierarchy.children:
            scores = {c: WIDE.vectors.weight[c] @ x for c in WIDE.hierarchy.children[node]}
            node = max(scores, key=lambda child: scores[child])
        assert decided == node


def test_soft_and_hard_may_differ_and_agree_where_all_is_clear() -> None:
    inputs = RNG(2).normal(size=(400, 4))
    assert (decide_hard(TREE_9, inputs) != decide_softly(TREE_9, inputs)).any()
    np.testing.assert_array_equal(decide_hard(make_tree(), ROWS), np.arange(4))
    np.testing.assert_array_equal(decide_softly(make_tree(), ROWS), np.arange(4))


def test_a_path_is_followed_step_by_step() -> None:
    x = RNG(4).normal(size=4)
    steps = follow(WIDE, x, 3)
    assert [step.node for step in steps] == list(WIDE.hierarchy.path(3))[:-1]
    assert steps[-1].taken == 3 and len(steps[0].probabilities) == 3
    product = np.prod([s.probabilities[s.children.index(s.taken)] for s in steps])
    assert product == pytest.approx(predict_probabilities(WIDE, x[None])[0, 3])


def test_inputs_are_decided_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = RNG(5).normal(size=(10, 4))
    whole = predict_probabilities(WIDE, inputs), decide_hard(WIDE, inputs)
    monkeypatch.setattr(inference, "AT_ONCE", 3)
    np.testing.assert_allclose(predict_probabilities(WIDE, inputs), whole[0], rtol=1e-12)
    np.testing.assert_array_equal(decide_hard(WIDE, inputs), whole[1])


def test_huge_inputs_do_not_overflow() -> None:
    found = predict_probabilities(TREE_9, 1e6 * RNG(0).normal(size=(3, 4)))
    assert np.isfinite(found).all()
