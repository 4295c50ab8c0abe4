"""A correction changes what it should: the moved class's place, and one node's vectors."""

import numpy as np
import pytest
from fixtures.networks.class_trees import ROWS, draw_features, make_tree
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from wwopt.class_tree.correction import compare_nodes, move_class, refit_node
from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.inference import follow
from wwopt.class_tree.judgement import judge_tree

FEATURES = draw_features()
SWAPPED = make_tree(ROWS[[1, 0, 2, 3]])  # a network that takes cats for dogs


def test_a_refit_mends_the_node_and_leaves_all_others() -> None:
    fitted = refit_node(SWAPPED, 4, FEATURES)
    before, after = judge_tree(SWAPPED, FEATURES), judge_tree(fitted, FEATURES)
    assert before[4].accuracy < 0.3 and after[4].accuracy > 0.7
    for node in (5, 6):
        assert after[node].right == before[node].right
    others = [n for n in range(7) if n not in (0, 1)]
    np.testing.assert_array_equal(fitted.vectors.weight[others], SWAPPED.vectors.weight[others])
    changed = {c.node for c in compare_nodes(SWAPPED, fitted, FEATURES) if c.changed}
    assert 4 in changed and 5 not in changed


def test_two_children_are_weighed_as_scikit_learn_weighs_them() -> None:
    fitted = refit_node(SWAPPED, 4, FEATURES)
    rows = FEATURES.labels < 2
    witness = LogisticRegression().fit(FEATURES.inputs[rows], FEATURES.labels[rows])
    x = np.array([1.0, -0.5])
    dog = follow(fitted, x, 0)[-1].probabilities[1]
    assert dog == pytest.approx(expit(witness.decision_function(x[None])[0]), rel=1e-6)


def test_three_children_are_fitted_together() -> None:
    moved = move_class(SWAPPED, "bus", 4)
    fitted = refit_node(moved, 4, FEATURES)
    assert fitted.fitted[4].weight.shape == (3, 2)
    assert judge_tree(fitted, FEATURES)[4].accuracy > 0.7


def test_a_moved_class_is_told_node_by_node() -> None:
    moved = move_class(make_tree(), "dog", "car")
    changes = {c.node: c for c in compare_nodes(make_tree(), moved, FEATURES)}
    assert changes[5].came == (1,) and changes[5].went == ()
    assert changes[7].before is None and changes[7].came == (1, 2)
    assert changes[4].after is None and changes[4].went == (0, 1)
    assert changes[6].came == changes[6].went == ()


def test_a_fit_is_kept_where_its_sides_hold_the_same_classes() -> None:
    fitted = refit_node(refit_node(make_tree(), 4, FEATURES), 5, FEATURES)
    assert move_class(fitted, "dog", 5).fitted.keys() == set()
    rows = np.vstack([ROWS, [[0.0, 9.0], [0.0, 9.5]]])
    six = make_tree(rows, ("cat", "dog", "car", "bus", "owl", "emu"))
    pair = six.hierarchy.parents[0]
    kept = move_class(refit_node(six, pair, FEATURES), "owl", "car")
    assert kept.fitted.keys() == {pair}


@pytest.mark.parametrize(
    ("node", "rows", "message"),
    [
        (2, slice(None), "2 is no inner node; they are 4, 5, 6"),
        (5, [0, 1, 2], "node 5 cannot be fitted: no example of bus"),
        (6, [0, 1], "node 6 cannot be fitted: no example of car, bus"),
    ],
)
def test_what_cannot_be_fitted_is_said(node: int, rows: object, message: str) -> None:
    with pytest.raises(ClassTreeError, match=message):
        refit_node(make_tree(), node, FEATURES[rows])
