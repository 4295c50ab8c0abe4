"""Networks that learned to confuse two classes, and what one correction of their tree mends.

Planted: of two classes, drawn at random, a share of the training labels is exchanged. A person then
looks at other examples, whose labels are right, as the page shows them: the two classes that the
tree confuses most, and the node where. One correction is one of

- refit: fit the node where the two part to the examples that were looked at;
- move: put one of the two beside the other, and fit the node of both to them;
- noisy: refit, but by the training labels as they are (nobody looked): the control.

Judged on test examples that nobody looked at. Mended: at least half of the wrong decisions between
the two are gone. Harm: the other wrong decisions grew by more than .5 % of the examples.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch

import wwopt
from harness.class_trees.accuracies import read, train_on_along
from harness.class_trees.tasks import Task, train_on
from harness.data import Tensors
from wwopt.class_tree import ClassTree, Features, judge_tree, move_class, refit_node
from wwopt.study import derive_seed

SHARE = 0.4  # of the labels of either class
HARM = 0.005  # of the test examples
CORRECTIONS = ("refit", "move", "noisy", "better of refit and move")


@dataclass(frozen=True)
class Outcome:
    """One correction of one network, on the test examples."""

    between: tuple[int, int]  # wrong decisions between the two classes, before and after
    others: tuple[int, int]  # all other wrong decisions
    examples: int

    @property
    def mended(self) -> bool:
        """At least half of the confusion is gone."""
        return self.between[1] <= self.between[0] / 2

    @property
    def harmed(self) -> bool:
        """More than a trifle was lost elsewhere."""
        return self.others[1] - self.others[0] > HARM * self.examples


@dataclass(frozen=True)
class Case:
    """A planted confusion and what came of it."""

    pair: tuple[int, int]
    found: bool  # whether the two that are confused most are the two that were planted
    siblings: bool  # whether the tree had the two beside each other
    accuracies: tuple[float, float]  # network and tree before, in % of the test examples
    outcomes: dict[str, Outcome]


def plant(data: Tensors, pair: tuple[int, int], rng: np.random.Generator) -> Tensors:
    """Exchange a share of the labels of two classes."""
    x, y = data
    y = y.clone()
    rows = [np.flatnonzero(data[1].numpy() == label) for label in pair]
    for some, other in zip(rows, pair[::-1], strict=True):
        y[torch.as_tensor(rng.choice(some, round(SHARE * len(some)), replace=False))] = other
    return x, y


def run_case(task: Task, seed: int, *, tuned: bool = False) -> Case:
    """Plant a confusion, train, correct once in each way, and judge.

    Args:
        task: whose training labels are changed.
        seed: of the pair, the exchanged labels and the training.
        tuned: fine-tune the network along its tree first, on the same labels.
    """
    rng = np.random.default_rng(derive_seed(2, seed))
    first, second = (int(label) for label in rng.choice(10, 2, replace=False))
    wrong = plant(task.training, (first, second), rng)
    task = replace(task, train=train_on(task.make, wrong))
    model = task.fit(derive_seed(3, seed))
    tree = wwopt.class_tree(model)
    if tuned:
        model = train_on_along(task, model, tree.hierarchy, 1.0, seed)
        tree = wwopt.class_tree(model, hierarchy=tree.hierarchy)
    training, seen, test = (read(model, data) for data in (wrong, task.looked_at, task.test))
    pair = confused_most(tree, seen)
    node = tree.hierarchy.meet(*pair)
    corrected = {
        "refit": refit_node(tree, node, seen),
        "move": move_beside(tree, pair, seen),
        "noisy": refit_node(tree, node, training),
    }
    right = {
        name: judge_tree(corrected[name], seen).accuracies["tree"] for name in ("refit", "move")
    }
    corrected[CORRECTIONS[3]] = corrected[max(right, key=lambda name: right[name])]
    before = count_wrong(tree, test, (first, second))
    outcomes = {
        name: Outcome(*zip(before, count_wrong(one, test, (first, second)), strict=True), len(test))
        for name, one in corrected.items()
    }
    judged = judge_tree(tree, test).accuracies
    meet = tree.hierarchy.meet(first, second)
    return Case(
        pair=(first, second),
        found=set(pair) == {first, second},
        siblings=set(tree.hierarchy.children[meet]) == {first, second},
        accuracies=(100.0 * judged["network"], 100.0 * judged["tree"]),
        outcomes=outcomes,
    )


def confused_most(tree: ClassTree, seen: Features) -> tuple[int, int]:
    """The two classes with the most wrong decisions between them, as the page lists them."""
    counts: Counter[tuple[int, int]] = Counter()
    for node in judge_tree(tree, seen).nodes:
        for (true, taken), many in node.wrong.items():
            counts[min(true, taken), max(true, taken)] += many
    return counts.most_common(1)[0][0]


def move_beside(tree: ClassTree, pair: tuple[int, int], seen: Features) -> ClassTree:
    """Put the class of the two that is decided worse beside the other, and fit their node."""
    hierarchy = tree.hierarchy
    if set(hierarchy.children[hierarchy.meet(*pair)]) != set(pair):
        judged = judge_tree(tree, seen)
        right = [(judged.decided[seen.labels == label] == label).mean() for label in pair]
        moved, other = pair if right[0] < right[1] else pair[::-1]
        tree = move_class(tree, moved, other)
    return refit_node(tree, tree.hierarchy.meet(*pair), seen)


def count_wrong(tree: ClassTree, test: Features, pair: tuple[int, int]) -> tuple[int, int]:
    """Wrong decisions between the two classes, and all others."""
    between = others = 0
    for node in judge_tree(tree, test).nodes:
        for decision, many in node.wrong.items():
            if set(decision) == set(pair):
                between += many
            else:
                others += many
    return between, others
