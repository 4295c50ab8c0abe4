"""Every example counts where it should, node by node."""

import json
import math

import numpy as np
import pytest
from fixtures.networks.class_trees import ROWS, draw_features, make_tree

from wwopt.class_tree.features import Features
from wwopt.class_tree.inference import choose_children, decide_softly
from wwopt.class_tree.judgement import judge_tree

# Two cats on the dogs' side, a bus among the cats, three that are right.
INPUTS = np.array([[4.0, -1.0], [4.0, -1.0], [4.0, 1.0], [4.0, 1.0], [4.0, -1.0], [-4.0, 1.5]])
LABELS = np.array([0, 0, 3, 0, 1, 2])


def test_six_examples_by_hand() -> None:
    judged = judge_tree(make_tree(), Features(INPUTS, LABELS))
    np.testing.assert_array_equal(judged.decided, [1, 1, 0, 0, 1, 2])
    assert judged.accuracies == {"network": 0.5, "tree": 0.5, "hard": 0.5}
    root, animals, cars = judged[6], judged[4], judged[5]
    assert (root.examples, root.right, root.fallen) == (6, 5, 1)
    assert root.wrong == {(3, 0): 1}
    assert (animals.examples, animals.right, animals.wrong) == (4, 2, {(0, 1): 2})
    # The bus lies below node 5, where it would be taken for a car; its decision fell at the root.
    assert (cars.examples, cars.right, cars.fallen) == (2, 1, 0)
    assert set(judged.mistakes) == {0, 1, 2}
    with pytest.raises(KeyError, match="no inner node 2"):
        judged[2]


def test_all_wrong_decisions_fall_somewhere_and_once() -> None:
    rows = np.random.default_rng(0).normal(size=(8, 5))
    tree, features = make_tree(rows, tuple("abcdefgh")), draw_features(rows)
    judged = judge_tree(tree, features)
    wrong = decide_softly(tree, features.inputs) != features.labels
    assert sum(node.fallen for node in judged.nodes) == wrong.sum() > 0
    best = choose_children(tree, features.inputs)
    for node in judged.nodes:
        below = [i for i, y in enumerate(features.labels) if y in tree.hierarchy.classes[node.node]]
        right = [
            int(features.labels[i]) in tree.hierarchy.classes[int(best[i, node.node])]
            for i in below
        ]
        assert (node.examples, node.right) == (len(below), sum(right))
    sure = judged.probabilities[judged.mistakes].max(1)
    assert (np.diff(sure) <= 0).all()


def test_a_class_without_examples_is_told_and_unknown() -> None:
    features = draw_features()
    judged = judge_tree(make_tree(), features[features.labels < 2])
    assert judged.missing == ("car", "bus")
    assert math.isnan(judged[5].accuracy) and judged[5].examples == 0
    document = json.loads(json.dumps(judged.to_dict(), allow_nan=False))
    assert [n["accuracy"] for n in document["nodes"] if n["node"] == 5] == [None]


def test_the_network_beside_it_is_its_softmax() -> None:
    judged = judge_tree(make_tree(), Features(ROWS, np.arange(4)))
    powers = np.exp(ROWS @ ROWS.T)
    np.testing.assert_allclose(judged.network, powers / powers.sum(1, keepdims=True))
