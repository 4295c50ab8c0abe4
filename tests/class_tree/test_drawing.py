"""A drawn tree: every class has its row, children lie right of their parents, lines join them."""

import numpy as np
from fixtures.networks.class_trees import make_tree

from wwopt.class_tree.drawing import WIDTH, place_nodes
from wwopt.class_tree.hierarchy import Hierarchy


def test_four_classes_by_hand() -> None:
    drawing = place_nodes(make_tree().hierarchy)
    places = {n: (p.x, p.y) for n, p in drawing.places.items()}
    assert places == {
        0: (100, 0.5), 1: (100, 1.5), 2: (100, 2.5), 3: (100, 3.5),
        4: (50, 1.0), 5: (50, 3.0), 6: (0, 2.0),
    }  # fmt: skip
    assert "M0.00 2.00V1.00H50.00" in drawing.lines
    assert len(drawing.lines) == 6 and drawing.rows == 4


def test_a_hundred_classes_in_rows_of_their_own() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 8))
    tree = make_tree(rows, tuple(map(str, range(100)))).hierarchy
    drawing = place_nodes(tree)
    order = tree.classes[tree.root]
    assert [drawing.places[c].y for c in order] == [i + 0.5 for i in range(100)]
    for child, parent in tree.parents.items():
        assert drawing.places[parent].x < drawing.places[child].x <= WIDTH
    inner = [(drawing.places[n].x, drawing.places[n].y) for n in tree.children]
    assert len(set(inner)) == 99  # none hides another


def test_a_chain_is_drawn_a_step_a_class() -> None:
    names = tuple("abcde")
    children = {5: (0, 1), 6: (5, 2), 7: (6, 3), 8: (7, 4)}
    drawing = place_nodes(Hierarchy(names, children, dict.fromkeys(children, 1.0)))
    assert [drawing.places[n].x for n in (8, 7, 6, 5)] == [0.0, 25.0, 50.0, 75.0]
