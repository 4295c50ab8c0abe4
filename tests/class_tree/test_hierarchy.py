"""The shape of a tree: linked as scipy links, walked by hand, and changed by moving a class."""

import numpy as np
import pytest
from fixtures.networks.class_trees import NAMES, ROWS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage, to_tree

from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.hierarchy import Hierarchy, link_classes, regraft

PAIRS = link_classes(ROWS, NAMES)  # node 4 is cat and dog, 5 car and bus, 6 all


def test_four_classes_by_hand() -> None:
    assert PAIRS.children == {4: (0, 1), 5: (2, 3), 6: (4, 5)}
    assert PAIRS.heights[4] == pytest.approx(2.0) and PAIRS.heights[5] == pytest.approx(3.0)
    # Ward: the root of twice the rise of the sum of squares, 2·(2·2 / 4)·8² here.
    assert PAIRS.heights[6] == pytest.approx(np.sqrt(2.0 * (2 * 2 / 4) * 64.0))
    assert PAIRS.root == 6 and PAIRS.size == 7
    assert PAIRS.classes[6] == (0, 1, 2, 3)
    assert PAIRS.path(3) == (6, 5, 3)
    assert PAIRS.meet(0, 1) == 4 and PAIRS.meet(1, 2) == 6 and PAIRS.meet(2, 2) == 2


def test_nodes_are_those_of_scipy() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 8))
    ours = link_classes(rows, [str(i) for i in range(30)])
    _, theirs = to_tree(linkage(rows, "ward"), rd=True)
    for node in theirs:
        assert set(ours.classes[node.id]) == set(node.pre_order())
        assert ours.heights.get(node.id, 0.0) == node.dist


def test_order_of_the_classes_changes_numbers_alone() -> None:
    rng = np.random.default_rng(1)
    rows, order = rng.normal(size=(12, 5)), rng.permutation(12)
    names = [f"c{i}" for i in range(12)]
    one = link_classes(rows, names)
    other = link_classes(rows[order], [names[i] for i in order])
    assert named_sets(one) == named_sets(other)


def named_sets(tree: Hierarchy) -> set[frozenset[str]]:
    return {frozenset(tree.names[c] for c in tree.classes[node]) for node in tree.children}


def test_beside_a_class_both_get_a_node_of_their_own() -> None:
    moved = regraft(PAIRS, "dog", "car")
    assert moved.children == {5: (7, 3), 6: (0, 5), 7: (2, 1)}  # node 4 gave way to cat
    assert moved.classes[moved.root] == (0, 2, 1, 3)
    assert 0.0 < moved.heights[7] < moved.heights[5]


def test_under_a_node_it_is_one_child_more() -> None:
    moved = regraft(PAIRS, "dog", 5)
    assert moved.children == {5: (2, 3, 1), 6: (0, 5)}
    back = regraft(moved, "dog", "cat")
    assert named_sets(back) == named_sets(PAIRS)


def test_a_root_that_is_left_with_one_child_gives_way() -> None:
    tree = Hierarchy(("a", "b", "c"), {3: (0, 1), 4: (3, 2)}, {3: 1.0, 4: 2.0})
    moved = regraft(tree, "c", 3)
    assert moved.children == {3: (0, 1, 2)} and moved.root == 3


@given(st.integers(3, 9), st.integers(0, 10**6), st.data())
@settings(max_examples=60, deadline=None)
def test_however_classes_are_moved_the_tree_holds_each_once(n: int, seed: int, data: st.DataObject):
    tree = link_classes(np.random.default_rng(seed).normal(size=(n, 3)), list(map(str, range(n))))
    for _ in range(4):
        moved = data.draw(st.integers(0, n - 1))
        under = data.draw(st.sampled_from(sorted(tree.downwards())))
        try:
            tree = regraft(tree, moved, under)
        except ClassTreeError as error:
            assert "already" in str(error)
        assert sorted(tree.classes[tree.root]) == list(range(n))
        assert len(tree.downwards()) == n + len(tree.children)
        assert all(len(children) >= 2 for children in tree.children.values())
        assert tree.heights.keys() == tree.children.keys()


@pytest.mark.parametrize(
    ("moved", "under", "message"),
    [
        ("cow", 5, "no class 'cow'; they are cat, dog, car, bus"),
        ("cat", 9, "no node 9; inner nodes are 4, 5, 6"),
        (4, 5, "node 4 is no class"),
        ("cat", "dog", "class 'cat' is under 'dog' already"),
        ("cat", 4, "class 'cat' is under 4 already"),
        ("cat", "cat", "nothing to move"),
    ],
)
def test_what_cannot_be_moved_is_said(moved: str, under: str, message: str) -> None:
    with pytest.raises(ClassTreeError, match=message):
        regraft(PAIRS, moved, under)


def test_a_name_that_two_classes_have_is_told_by_number() -> None:
    tree = link_classes(ROWS, ["crane", "dog", "crane", "bus"])
    with pytest.raises(ClassTreeError, match="classes 0, 2 are all called 'crane'"):
        regraft(tree, "crane", "bus")
    assert regraft(tree, 2, "dog").meet(1, 2) == 7


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        (ROWS[:1], ["one"], "needs two classes, the layer has 1 row"),
        (ROWS, ["a", "b"], "2 names for 4 rows"),
        (np.where(ROWS == 1.5, np.nan, ROWS), NAMES, "the rows of car are not finite"),
    ],
)
def test_rows_that_make_no_tree_are_said(rows: np.ndarray, names: list, message: str) -> None:
    with pytest.raises(ClassTreeError, match=message):
        link_classes(rows, names)
