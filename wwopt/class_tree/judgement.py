"""How right a tree is, node by node, and where its wrong decisions fall.

Two things are told of a node. Its accuracy is its own: of the examples whose class lies below, how
many its best child holds. A wrong decision of the whole tree falls where the path to the class that
was decided for leaves the path to the true one: exactly one node.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from wwopt.class_tree.features import Features, check_features
from wwopt.class_tree.inference import choose_children, decide_hard, predict_probabilities
from wwopt.class_tree.trees import ClassTree
from wwopt.plain_data import make_plain

Pair = tuple[int, int]  # true class, class that was decided for


@dataclass(frozen=True)
class NodeJudgement:
    """One inner node."""

    node: int
    examples: int  # whose class lies below
    right: int  # of them, for how many the node's best child holds their class
    wrong: Mapping[Pair, int]  # the tree's wrong decisions that fell here, the most frequent first

    @property
    def accuracy(self) -> float:
        """Share of its examples that it sends the right way; NaN without one."""
        return self.right / self.examples if self.examples else math.nan

    @property
    def fallen(self) -> int:
        """Wrong decisions that fell here."""
        return sum(self.wrong.values())


@dataclass(frozen=True)
class TreeJudgement:
    """A tree's decisions for labelled examples, beside its network's."""

    tree: ClassTree
    labels: NDArray[np.integer]  # (n,)
    probabilities: NDArray[np.float64]  # (n, C), the tree's
    hard: NDArray[np.int64]  # (n,), decided node after node
    network: NDArray[np.float64]  # (n, C), the network's probabilities
    nodes: tuple[NodeJudgement, ...]  # the root first, then downwards
    missing: tuple[str, ...]  # classes without an example

    @cached_property
    def decided(self) -> NDArray[np.int64]:
        """The tree's soft decisions, (n,): the ones that are meant where nothing is said."""
        found: NDArray[np.int64] = self.probabilities.argmax(1)
        return found

    @cached_property
    def accuracies(self) -> dict[str, float]:
        """Share of right decisions: of the network, of the tree, and of its hard decisions."""
        decisions = {"network": self.network.argmax(1), "tree": self.decided, "hard": self.hard}
        return {name: float((d == self.labels).mean()) for name, d in decisions.items()}

    @cached_property
    def mistakes(self) -> NDArray[np.int64]:
        """Numbers of the examples that the tree decides wrongly, the surest first."""
        wrong = np.flatnonzero(self.decided != self.labels)
        sure = self.probabilities[wrong, self.decided[wrong]]
        found: NDArray[np.int64] = wrong[np.argsort(-sure, kind="stable")]
        return found

    def __getitem__(self, node: int) -> NodeJudgement:
        """The judgement of an inner node.

        Raises:
            KeyError: if there is no such inner node.
        """
        for judged in self.nodes:
            if judged.node == node:
                return judged
        raise KeyError(f"no inner node {node}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: accuracies, and of each inner node its own."""
        rows = [
            {
                "node": judged.node,
                "examples": judged.examples,
                "accuracy": judged.accuracy,
                "wrong": [[*pair, count] for pair, count in judged.wrong.items()],
            }
            for judged in self.nodes
        ]
        plain: dict[str, Any] = make_plain(
            {"accuracies": self.accuracies, "without_examples": self.missing, "nodes": rows}
        )
        return plain


def judge_tree(tree: ClassTree, features: Features) -> TreeJudgement:
    """Decide labelled examples by a tree and by its network, and say where which is wrong.

    Args:
        tree: to judge.
        features: examples that the network has not seen in training, or else the accuracies are
            those of what it has seen.

    Raises:
        ClassTreeError: if the features are of another width or have other labels.
    """
    missing = check_features(features, tree.head, tree.hierarchy.names)
    labels = np.asarray(features.labels, np.int64)
    probabilities = predict_probabilities(tree, features.inputs)
    decided = probabilities.argmax(1)
    best = choose_children(tree, features.inputs)
    hierarchy = tree.hierarchy
    wrong: dict[int, Counter[Pair]] = {}
    pairs = zip(labels.tolist(), decided.tolist(), strict=True)
    for (true, taken), many in Counter(pair for pair in pairs if pair[0] != pair[1]).items():
        wrong.setdefault(hierarchy.meet(true, taken), Counter())[true, taken] += many
    nodes = []
    for node in hierarchy.downwards():
        if node not in hierarchy.children:
            continue
        below = np.isin(labels, hierarchy.classes[node])
        sides = np.full(len(hierarchy.names), -1)
        for child in hierarchy.children[node]:
            sides[list(hierarchy.classes[child])] = child
        right = int((best[below, node] == sides[labels[below]]).sum())
        listed = dict(sorted(wrong.get(node, Counter()).items(), key=lambda item: -item[1]))
        nodes.append(NodeJudgement(node, int(below.sum()), right, listed))
    return TreeJudgement(
        tree=tree,
        labels=labels,
        probabilities=probabilities,
        hard=decide_hard(tree, features.inputs),
        network=softmax(tree.head.logits(features.inputs), axis=1),
        nodes=tuple(nodes),
        missing=tuple(missing),
    )
