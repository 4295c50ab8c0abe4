"""A tree read from a model: means of rows, names that fit, and a function beside a wing's name."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.networks.class_trees import NAMES, ROWS, make_classifier, make_tree

import wwopt
from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.trees import ClassTree, class_tree


def test_vectors_are_the_means_of_the_rows_below() -> None:
    vectors = make_tree().vectors
    np.testing.assert_allclose(vectors.weight[:4], ROWS)
    np.testing.assert_allclose(vectors.weight[4:], [[4.0, 0.0], [-4.0, 0.0], [0.0, 0.0]])


def test_what_a_node_says_of_a_child_is_the_mean_of_the_networks_logits() -> None:
    model = make_classifier(classes=5)
    tree = class_tree(model)
    x = torch.randn(7, 3)
    logits = model(x).detach().numpy()
    inputs = model[:2](x).detach().numpy()
    said = inputs @ tree.vectors.weight.T + tree.vectors.bias
    for node, classes in tree.hierarchy.classes.items():
        np.testing.assert_allclose(said[:, node], logits[:, list(classes)].mean(1), atol=1e-6)


def test_a_module_its_state_and_its_file_are_the_same_tree(tmp_path: Path) -> None:
    model = make_classifier()
    torch.save(model.state_dict(), tmp_path / "m.pt")
    trees = [class_tree(s, NAMES) for s in (model, model.state_dict(), tmp_path / "m.pt")]
    assert trees[0].to_dict() == trees[1].to_dict() == trees[2].to_dict()


def test_another_networks_hierarchy_can_be_kept() -> None:
    tree = class_tree(make_classifier(), NAMES)
    other = make_classifier()
    with torch.no_grad():
        other[2].weight.copy_(other[2].weight.flip(0))
    kept = class_tree(other, hierarchy=tree.hierarchy)
    assert kept.hierarchy is tree.hierarchy
    np.testing.assert_allclose(kept.head.weight, tree.head.weight[::-1])


@pytest.mark.parametrize("names", [("a", "b", "c", "d", "e"), ("a",)])
def test_names_and_rows_must_be_as_many(names: tuple[str, ...]) -> None:
    message = f"{len(names)} names of classes, but layer '2' has 4 rows"
    with pytest.raises(ClassTreeError, match=message):
        class_tree(make_classifier(), names)


def test_it_is_plain_data() -> None:
    document = json.loads(json.dumps(make_tree().to_dict()))
    assert document["classes"] == list(NAMES) and document["root"] == 6
    assert [node["node"] for node in document["nodes"]] == [6, 4, 5]
    assert document["nodes"][1] == {
        "node": 4, "children": [0, 1], "classes": [0, 1], "height": 2.0, "fitted": False,
    }  # fmt: skip


def test_the_function_is_found_beside_the_wing_of_its_name() -> None:
    """`wwopt.class_tree` is the function, whatever was imported before it; the wing is imported."""
    wing = importlib.import_module("wwopt.class_tree")
    assert wwopt.class_tree is class_tree
    assert isinstance(wwopt.class_tree(make_classifier()), ClassTree)
    assert wing.ClassTree is ClassTree and wing.class_tree is class_tree
