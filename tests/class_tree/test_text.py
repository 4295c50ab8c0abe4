"""What is said of a tree in a terminal."""

import math

import numpy as np
from fixtures.networks.class_trees import draw_features, make_tree

from wwopt.class_tree.correction import compare_nodes, move_class
from wwopt.class_tree.features import Features
from wwopt.class_tree.judgement import judge_tree
from wwopt.class_tree.text import describe_node, format_tree, share, summarize_changes

TREE = """\
4 classes, the rows of layer head (4 × 2), merged by Ward's linkage to 3 nodes.

node 6
├─ node 4
│  ├─ cat
│  └─ dog
└─ node 5
   ├─ car
   └─ bus"""


def test_the_tree_without_data() -> None:
    assert format_tree(make_tree()) == TREE


def test_the_tree_with_examples() -> None:
    inputs = draw_features().inputs[:2] * 0.0 + [[4.0, 1.0], [-4.0, 0.5]]
    said = format_tree(make_tree(), judge_tree(make_tree(), Features(inputs, np.array([0, 1]))))
    assert "Right of 2 examples: the network 50.0 %; the tree" in said
    assert "Without an example: car, bus. Nothing is known of decisions for them." in said
    assert "node 6: 50.0 % of 2, 1 wrong decision fell here" in said
    assert "└─ node 5: – of 0" in said


def test_many_classes_are_named_by_some() -> None:
    tree = make_tree().hierarchy
    assert describe_node(tree, 0) == "cat"
    assert describe_node(tree, 6) == "cat, dog, car, bus"
    assert share(math.nan) == "–" and share(0.9444) == "94.4 %"


def test_a_correction_is_summed_up() -> None:
    before, after = make_tree(), move_class(make_tree(), "dog", "car")
    features = draw_features()
    changes = list(compare_nodes(before, after, features))
    sides = [judge_tree(tree, features) for tree in (before, after)]
    said = summarize_changes(changes, *sides)
    assert said.startswith("The tree is right in ")
    assert f"{len(sides[1].mistakes)} wrong decisions, before {len(sides[0].mistakes)}" in said
    assert said.endswith("of 4 nodes changed.")
