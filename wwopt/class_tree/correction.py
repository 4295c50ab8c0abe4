"""Correcting a tree: put a class where it belongs, and fit that one node to examples again.

Nothing else is fitted. The nodes above, between the old and the new place, hold other classes than
before; theirs is the mean of their rows, as ever. So a correction can be looked at node by node.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import LogisticRegression

from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.features import Features, check_features
from wwopt.class_tree.hierarchy import Hierarchy, regraft
from wwopt.class_tree.judgement import NodeJudgement, judge_tree
from wwopt.class_tree.trees import ClassTree, NodeVectors
from wwopt.wording import write_names

PENALTY = 1.0  # C of scikit-learn's logistic regression, its default


@dataclass(frozen=True)
class NodeChange:
    """One inner node before and after a correction; None on the side that has no such node."""

    node: int
    before: NodeJudgement | None
    after: NodeJudgement | None
    came: tuple[int, ...]  # classes that are below it only after
    went: tuple[int, ...]  # classes that were below it only before

    @property
    def changed(self) -> bool:
        """Whether it holds other classes, decides other examples rightly, or is new or gone."""
        return self.before != self.after or bool(self.came or self.went)


def move_class(tree: ClassTree, moved: str | int, under: str | int) -> ClassTree:
    """Move a class under another node; nodes whose classes changed decide by means again.

    Args:
        tree: stays as it is.
        moved: name or number of the class.
        under: an inner node, whose child it becomes, or another class, beside which it is put.

    Raises:
        ClassTreeError: if there is no such class or node, or it is there already.
    """
    hierarchy = regraft(tree.hierarchy, moved, under)
    kept = {n: own for n, own in tree.fitted.items() if _same(n, tree.hierarchy, hierarchy)}
    return replace(tree, hierarchy=hierarchy, fitted=kept)


def _same(node: int, before: Hierarchy, after: Hierarchy) -> bool:
    sides = [
        [set(tree.classes[child]) for child in tree.children.get(node, ())]
        for tree in (before, after)
    ]
    return sides[0] == sides[1]


def refit_node(
    tree: ClassTree, node: int, features: Features, *, penalty: float = PENALTY
) -> ClassTree:
    """Fit one node's vectors to the examples below it, by logistic regression over its children.

    Args:
        tree: stays as it is.
        node: an inner one.
        features: examples whose labels are trusted.
        penalty: C of scikit-learn's `LogisticRegression`: the larger, the closer to the examples.

    Raises:
        ClassTreeError: if there is no such inner node, a child of it has no example, or the
            features do not fit.
    """
    hierarchy = tree.hierarchy
    if node not in hierarchy.children:
        inner = write_names(list(map(str, sorted(hierarchy.children))))
        raise ClassTreeError(f"{node} is no inner node; they are {inner}")
    check_features(features, tree.head, hierarchy.names)
    children = hierarchy.children[node]
    place = np.full(len(hierarchy.names), -1)
    for number, child in enumerate(children):
        place[list(hierarchy.classes[child])] = number
    sides = place[features.labels]
    counts = np.bincount(sides[sides >= 0], minlength=len(children))
    if (counts == 0).any():
        lost = [hierarchy.names[c] for c in hierarchy.classes[children[int(counts.argmin())]]]
        raise ClassTreeError(
            f"node {node} cannot be fitted: no example of {write_names(lost)}; add some"
        )
    fit = LogisticRegression(C=penalty, max_iter=1000)
    fit.fit(np.asarray(features.inputs[sides >= 0], np.float64), sides[sides >= 0])
    weight, bias = fit.coef_, fit.intercept_
    if len(children) == 2:  # one row, of the second child against the first
        weight, bias = np.stack([-weight[0], weight[0]]) / 2.0, np.array([-bias[0], bias[0]]) / 2.0
    return replace(tree, fitted={**tree.fitted, node: NodeVectors(weight, bias)})


def compare_nodes(before: ClassTree, after: ClassTree, features: Features) -> Sequence[NodeChange]:
    """Every inner node of two trees of the same classes, judged by the same examples.

    Returns:
        The nodes of after from the root downwards, then those that only before has.

    Raises:
        ClassTreeError: if the features do not fit.
    """
    old = {judged.node: judged for judged in judge_tree(before, features).nodes}
    new = {judged.node: judged for judged in judge_tree(after, features).nodes}
    rows = []
    for node in [*new, *(node for node in old if node not in new)]:
        sides = [
            set(tree.hierarchy.classes[node]) if node in tree.hierarchy.children else set()
            for tree in (before, after)
        ]
        rows.append(
            NodeChange(
                node,
                old.get(node),
                new.get(node),
                tuple(sorted(sides[1] - sides[0])),
                tuple(sorted(sides[0] - sides[1])),
            )
        )
    return rows
