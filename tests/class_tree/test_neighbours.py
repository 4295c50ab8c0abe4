"""Neighbours are the nearest ones, of a node's classes alone, and none is its own."""

import numpy as np
import pytest
from fixtures.networks.class_trees import draw_features, make_tree
from sklearn.neighbors import KNeighborsClassifier

from wwopt.class_tree.features import Features
from wwopt.class_tree.neighbours import NearestExamples, vote

TRAINING, UNSEEN = draw_features(), draw_features(seed=1)
INDEX = NearestExamples(TRAINING, make_tree().hierarchy)


@pytest.mark.parametrize("node", [4, 5, 6])
def test_they_are_those_that_a_search_through_all_finds(node: int) -> None:
    x = UNSEEN.inputs[0]
    allowed = np.flatnonzero(np.isin(TRAINING.labels, INDEX.hierarchy.classes[node]))
    distances = np.linalg.norm(TRAINING.inputs[allowed] - x, axis=1)
    order = np.argsort(distances)[:3]
    found = INDEX.near(x, node, most=3)
    assert [n.number for n in found] == list(allowed[order])
    assert [n.label for n in found] == list(TRAINING.labels[allowed[order]])
    np.testing.assert_allclose([n.distance for n in found], distances[order])


def test_an_example_is_not_its_own_neighbour() -> None:
    with_itself = INDEX.near(TRAINING.inputs[7], 6)
    without = INDEX.near(TRAINING.inputs[7], 6, leave_out=7)
    assert with_itself[0].number == 7 and with_itself[0].distance == 0.0
    assert without[:4] == with_itself[1:] and len(without) == 5


def test_fewer_are_found_where_there_are_fewer() -> None:
    few = NearestExamples(TRAINING[:3], make_tree().hierarchy)  # cat, dog, car
    assert len(few.near(UNSEEN.inputs[0], 5)) == 1
    assert few.near(UNSEEN.inputs[0], 5, leave_out=2) == ()
    none = NearestExamples(TRAINING[:2], make_tree().hierarchy)
    assert none.near(UNSEEN.inputs[0], 5) == ()


def test_votes_are_scikit_learns() -> None:
    witness = KNeighborsClassifier(7).fit(TRAINING.inputs, TRAINING.labels)
    found = vote(TRAINING, UNSEEN, 4, voters=7)
    np.testing.assert_allclose(found, witness.predict_proba(UNSEEN.inputs))


def test_nobody_votes_for_itself() -> None:
    lone = Features(np.array([[0.0], [0.1], [5.0]]), np.array([0, 0, 1]))
    np.testing.assert_array_equal(vote(lone, lone, 2, voters=1), [[1, 0], [1, 0], [1, 0]])
    np.testing.assert_array_equal(vote(lone, lone, 2).sum(1), 1.0)
