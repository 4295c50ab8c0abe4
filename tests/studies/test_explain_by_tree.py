"""How the study of trees plants, corrects and judges; and that it runs from end to end."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.networks.class_trees import ROWS, draw_features, make_tree
from fixtures.paths import STUDIES
from fixtures.readers.pages import Page

from harness.class_trees.corrections import (
    SHARE,
    Outcome,
    confused_most,
    count_wrong,
    move_beside,
    plant,
)
from harness.class_trees.tasks import load_task
from wwopt.class_tree import decide_softly, judge_tree

SWAPPED = make_tree(ROWS[[1, 0, 2, 3]])  # takes cats for dogs
FEATURES = draw_features()


def test_a_share_of_two_classes_labels_is_exchanged_and_no_other() -> None:
    y = torch.arange(4).repeat(50)
    x, wrong = plant((torch.zeros(200, 1), y), (1, 3), np.random.default_rng(0))
    changed = wrong != y
    assert len(x) == 200 and changed.sum() == 2 * round(SHARE * 50)
    assert set(zip(y[changed].tolist(), wrong[changed].tolist(), strict=True)) == {(1, 3), (3, 1)}
    assert (wrong.bincount() == 50).all()


def test_the_confused_pair_is_found_and_mended_by_a_move() -> None:
    assert confused_most(SWAPPED, FEATURES) == (0, 1)
    between, others = count_wrong(SWAPPED, FEATURES, (0, 1))
    wrong = (decide_softly(SWAPPED, FEATURES.inputs) != FEATURES.labels).sum()
    assert between + others == wrong > 20
    apart = make_tree(ROWS[[0, 2, 1, 3]])  # cat and car are far from each other
    moved = move_beside(apart, (0, 1), FEATURES)
    assert set(moved.hierarchy.children[moved.hierarchy.meet(0, 1)]) == {0, 1}
    assert judge_tree(move_beside(SWAPPED, (0, 1), FEATURES), FEATURES)[4].accuracy > 0.7


@pytest.mark.parametrize(
    ("between", "others", "mended", "harmed"),
    [
        ((10, 5), (7, 7), True, False),
        ((10, 6), (7, 7), False, False),
        ((10, 0), (7, 8), True, False),
        ((10, 0), (7, 9), True, True),
        ((0, 0), (7, 7), True, False),
    ],
)
def test_what_counts_as_mended_and_as_harm(
    between: tuple[int, int], others: tuple[int, int], mended: bool, harmed: bool
) -> None:
    outcome = Outcome(between, others, examples=200)
    assert (outcome.mended, outcome.harmed) == (mended, harmed)


def test_the_task_is_the_studys_own_training() -> None:
    task = load_task("digits-mlp", None)
    assert list(task.hp.lr.values()) == pytest.approx([0.01] * 4)
    assert [len(y) for _, y in (task.training, task.looked_at, task.test)] == [1437, 160, 200]


@pytest.mark.slow
def test_the_study_runs_on_digits() -> None:
    command = [sys.executable, STUDIES / "explain_by_tree.py", "--seeds", "1", "--confusions", "1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = dict(line.strip("| ").split(" | ") for line in said.splitlines()[2:14])
    before, after = (float(rows[f"tree, soft{arm}"]) for arm in ("", ", fine-tuned"))
    assert after > before > 50.0
    assert "1 of 1 planted pairs" in said and "| refit | " in said


@pytest.mark.slow
def test_the_study_writes_the_page_of_a_network(tmp_path: Path) -> None:
    command = [sys.executable, STUDIES / "explain_by_tree.py", "--page", tmp_path / "t.html"]
    subprocess.run(command, check=True)
    page = Page((tmp_path / "t.html").read_text("utf-8"))
    assert page.tags.count("img") > 5 and "Who decides how well" in page.words
