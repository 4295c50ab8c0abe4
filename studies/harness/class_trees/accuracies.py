"""How right a tree is beside its network and other deciders, before and after fine-tuning."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier

import wwopt
from harness.class_trees.tasks import Task
from wwopt.class_tree import (
    ClassTree,
    Features,
    Hierarchy,
    collect_features,
    fine_tune,
    judge_tree,
    vote,
    write_page,
)
from wwopt.study import LastNetwork, derive_seed

EPOCHS = 5  # of fine-tuning
ARMS = {1.0: "fine-tuned", 0.0: "trained on alike, without the tree's loss"}  # weight of the loss


def measure_accuracies(task: Task, seed: int) -> Iterator[tuple[str, float]]:
    """Who decides how well on the test examples of one network, in % right."""
    model = task.fit(derive_seed(0, seed))
    tree = wwopt.class_tree(model)
    training, test = (read(model, data) for data in (task.training, task.test))
    yield from _judge(tree, test, "")
    votes, judged = vote(training, test, 10), judge_tree(tree, test)
    mean = (votes + judged.network) / 2.0
    for name, shares in (("look-up", votes), ("mean of network and look-up", mean)):
        yield name, 100.0 * float((shares.argmax(1) == test.labels).mean())
    other = DecisionTreeClassifier(random_state=seed).fit(training.inputs, training.labels)
    yield "scikit-learn's decision tree", 100.0 * float(other.score(test.inputs, test.labels))
    for weight, arm in ARMS.items():
        later = train_on_along(task, model, tree.hierarchy, weight, seed)
        kept = wwopt.class_tree(later, hierarchy=tree.hierarchy)
        yield from _judge(kept, read(later, task.test), f", {arm}")


def write_example(task: Task, path: Path) -> None:
    """Write the page of one network, fine-tuned along its tree, with the images of its examples."""
    model = task.fit(derive_seed(0, 0))
    hierarchy = wwopt.class_tree(model).hierarchy
    tuned = train_on_along(task, model, hierarchy, 1.0, 0)
    training, test = (
        replace(read(tuned, data), images=show(data[0])) for data in (task.training, task.test)
    )
    tree = wwopt.class_tree(tuned, hierarchy=hierarchy)
    write_page(tree, path, title="one network", training=training, held_out=test)


def show(pixels: torch.Tensor) -> NDArray[np.float32]:
    """Square images of flat ones."""
    side = math.isqrt(pixels.shape[1])
    return pixels.reshape(-1, side, side).numpy()


def train_on_along(
    task: Task, model: torch.nn.Module, hierarchy: Hierarchy, weight: float, seed: int
) -> torch.nn.Module:
    """The network after some epochs more by the study's own training, at its textbook rate."""
    recorder = LastNetwork()
    torch.manual_seed(derive_seed(1, seed))
    fine_tune(
        task.train,
        hierarchy,
        weights=model.state_dict(),
        hp=task.hp,
        conditions=wwopt.Conditions(seed=seed, epochs=EPOCHS),
        recorder=recorder,
        loss_weight=weight,
    )
    assert recorder.model is not None
    return recorder.model.eval()


def read(model: torch.nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> Features:
    """What the network's last layer reads of labelled examples."""
    return collect_features(model, [data])


def _judge(tree: ClassTree, test: Features, arm: str) -> Iterator[tuple[str, float]]:
    found = judge_tree(tree, test).accuracies
    for key, words in (("network", "network"), ("tree", "tree, soft"), ("hard", "tree, hard")):
        yield f"{words}{arm}", 100.0 * found[key]
