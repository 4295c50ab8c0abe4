"""The page tells what is known of a tree, needs no network and runs no code; see also `errors`."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.networks.class_trees import NAMES, ROWS, draw_features, make_tree
from fixtures.readers.pages import Page

from wwopt.class_tree.correction import move_class
from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.features import Features
from wwopt.class_tree.judgement import judge_tree
from wwopt.class_tree.page import measure_accuracies, render_page, write_page

TRAINING, UNSEEN = draw_features(), draw_features(seed=1, spread=2.5)


def words_of(**given: object) -> str:
    tree = given.pop("tree", make_tree())
    text = render_page(tree, title="model.pt", **given)
    return re.sub(r"\s+", " ", Page(text).words)


def test_without_data_it_tells_the_tree() -> None:
    text = render_page(make_tree(), title="model.pt")
    page = Page(text)
    assert {"tree", "nodes", "node4", "node5", "node6"} <= set(page.ids)
    assert not {"accuracies", "examples", "correction"} & set(page.ids)
    assert "4 classes, the rows of layer head" in page.words
    assert all(name in page.words for name in NAMES)
    assert page.tags.count("path") == 6 and len(text) < 20_000


def test_it_asks_no_network_and_runs_no_script() -> None:
    images = np.arange(80 * 4, dtype=float).reshape(80, 2, 2)
    training = replace(TRAINING, images=images, ids=np.array([f"http://x/{i}" for i in range(80)]))
    text = render_page(make_tree(), title="http://x/m.pt", training=training, held_out=UNSEEN)
    page = Page(text)
    assert page.links and all(link.startswith(("#", "data:")) for link in page.links)
    assert "default-src 'none'" in text and "script" not in page.tags
    assert set(link[1:] for link in page.links if link[0] == "#") <= set(page.ids)
    assert "data:image/png;base64," in text


def test_with_examples_it_tells_what_each_node_is_worth() -> None:
    judged = judge_tree(make_tree(), UNSEEN)
    assert len(judged.mistakes) > 12
    said = words_of(training=TRAINING, held_out=UNSEEN)
    accuracies = measure_accuracies(judged, UNSEEN, TRAINING)
    for value in accuracies.values():
        assert f"{100 * value:.1f} %" in said
    assert accuracies.keys() == {"network", "tree", "hard", "look-up", "mean"}
    first = int(judged.mistakes[0])
    names = [NAMES[int(n[first])] for n in (judged.labels, judged.decided)]
    assert f"#{first}: {names[0]}, decided {names[1]}" in said
    assert f"here it left {names[0]}" in said and " away" in said
    assert f"of {len(judged.mistakes)} wrong decisions, the surest first" in said


def test_an_example_that_is_among_the_training_ones_is_not_its_own_neighbour() -> None:
    said = words_of(training=TRAINING)
    assert "These are examples of --features themselves" in said
    assert ", 0 away" not in said and " away" in said


def test_without_training_examples_nothing_is_linked() -> None:
    said = words_of(held_out=UNSEEN)
    assert "Without training examples no decision is linked to any." in said
    assert " away" not in said and "look-up" not in said


def test_where_nothing_is_wrong_the_least_sure_are_shown() -> None:
    right = Features(np.vstack([ROWS, 3 * ROWS]), np.tile(np.arange(4), 2))
    said = words_of(training=right, held_out=right)
    assert "No decision is wrong; these are the least sure ones." in said


def test_one_example_and_classes_without_any_are_enough() -> None:
    said = words_of(training=TRAINING[:1], held_out=UNSEEN[:1])
    assert "Without an example: dog, car, bus. Nothing is known" in said
    assert "look-up" not in said  # one example cannot vote


def test_a_correction_is_told_node_by_node() -> None:
    moved = move_class(make_tree(), "dog", "car")
    said = words_of(tree=moved, training=TRAINING, held_out=UNSEEN, before=make_tree())
    assert "What the correction changed" in said and "of 4 nodes changed" in said
    assert "of 40 → –" in said  # node 4 is gone


@pytest.mark.parametrize(
    "name", ["</title><script>alert(1)</script>", "猫 – 家猫", "كلب\u202e", "x" * 300, "a\tb"]
)
def test_names_are_text_in_any_script(name: str) -> None:
    tree = make_tree(names=(name, "dog", "car", "bus"))
    features = replace(TRAINING, ids=np.array([name] * 80))
    text = render_page(tree, title=name, training=features)
    assert "<script" not in text
    assert name in Page(text).words


def test_features_of_another_network_are_refused(tmp_path: Path) -> None:
    other = Features(np.ones((3, 5)), np.arange(3))
    with pytest.raises(ClassTreeError, match="5 numbers an example"):
        write_page(make_tree(), tmp_path / "t.html", title="m", training=other)
    with pytest.raises(ClassTreeError, match="5 numbers an example"):
        write_page(make_tree(), tmp_path / "t.html", title="m", training=other, held_out=UNSEEN)
    assert not (tmp_path / "t.html").exists()


@pytest.mark.parametrize("shape", [(3, 3), (3, 3, 3)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_images_of_any_kind_are_shown(shape: tuple[int, ...], kind: type) -> None:
    images = (200 * np.random.default_rng(0).random((80, *shape))).astype(kind)
    text = render_page(make_tree(), title="m", training=replace(TRAINING, images=images))
    assert Page(text).tags.count("img") > 12
