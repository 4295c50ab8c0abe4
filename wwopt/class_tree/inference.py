"""How a tree decides: softly, over all paths at once, or hard, one node after another.

Every node softmaxes the inner products of an input with its children's vectors. The probability of
a class is the product of those along its path, and the soft decision the most probable class; the
hard one follows the best child from the root on (Wan et al. 2021, section 3.1).
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.class_tree.hierarchy import Hierarchy
from wwopt.class_tree.trees import ClassTree

AT_ONCE = 4096  # inputs
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One node on the path of an input."""

    node: int
    children: tuple[int, ...]
    probabilities: tuple[float, ...]  # of the children, adding up to 1
    taken: int  # the child that the path goes on to


@dataclass(frozen=True)
class Paths:
    """A hierarchy as tensors, for many inputs at once."""

    hierarchy: Hierarchy

    @cached_property
    def groups(self) -> torch.Tensor:
        """Children of every inner node, (nodes, most children); `size` where a node has fewer."""
        size, some = self.hierarchy.size, list(self.hierarchy.children.values())
        most = max(map(len, some))
        return torch.tensor([[*c, *[size] * (most - len(c))] for c in some])

    @cached_property
    def steps(self) -> torch.Tensor:
        """1 where a node lies on the path to a class, the root left out: (size, C)."""
        names = self.hierarchy.names
        steps = torch.zeros(self.hierarchy.size, len(names))
        for number in range(len(names)):
            steps[list(self.hierarchy.path(number)[1:]), number] = 1.0
        return steps

    def log_shares(self, scores: torch.Tensor) -> torch.Tensor:
        """Log-probability of every node given its parent, (n, size); 0 at the root.

        Args:
            scores: what its parent says of each node, (n, size).
        """
        groups = self.groups.to(scores.device)
        beyond = scores.new_full((len(scores), 1), -torch.inf)
        shares = torch.cat([scores, beyond], 1)[:, groups].log_softmax(2)
        there = groups < self.hierarchy.size
        return scores.new_zeros(scores.shape).index_copy(1, groups[there], shares[:, there])

    def log_probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Log-probability of every class: the sum along its path, (n, C)."""
        return self.log_shares(scores) @ self.steps.to(scores)


def score_nodes(tree: ClassTree, inputs: NDArray[np.floating]) -> Floats:
    """Inner products of inputs, (n, d), with the vector of every node, (n, size)."""
    scores: Floats = np.asarray(inputs, np.float64) @ tree.vectors.weight.T + tree.vectors.bias
    return scores


def predict_probabilities(tree: ClassTree, inputs: NDArray[np.floating]) -> Floats:
    """The tree's probability of every class, (n, d) → (n, C), rows adding up to 1."""
    paths = Paths(tree.hierarchy)
    found = np.empty((len(inputs), len(tree.hierarchy.names)))
    for part in _cut(len(inputs)):
        scores = torch.from_numpy(score_nodes(tree, inputs[part]))
        found[part] = paths.log_probabilities(scores).exp().numpy()
    return found


def _cut(count: int) -> list[slice]:
    """Parts of the inputs: a thousand classes of 50,000 inputs at once would take gigabytes."""
    return [slice(start, start + AT_ONCE) for start in range(0, count, AT_ONCE)]


def decide_softly(tree: ClassTree, inputs: NDArray[np.floating]) -> Integers:
    """The class of the most probable path, (n, d) → (n,)."""
    found: Integers = predict_probabilities(tree, inputs).argmax(1)
    return found


def decide_hard(tree: ClassTree, inputs: NDArray[np.floating]) -> Integers:
    """The class that the best child of each node leads to, (n, d) → (n,)."""
    best = choose_children(tree, inputs)
    at = np.full(len(best), tree.hierarchy.root)
    while (inner := at >= len(tree.hierarchy.names)).any():
        at[inner] = best[inner, at[inner]]
    return at


def choose_children(tree: ClassTree, inputs: NDArray[np.floating]) -> Integers:
    """The best child of every inner node, by its number, (n, d) → (n, size); -1 elsewhere."""
    best = np.full((len(inputs), tree.hierarchy.size), -1)
    for part in _cut(len(inputs)):
        scores = score_nodes(tree, inputs[part])
        for node, children in tree.hierarchy.children.items():
            best[part, node] = np.array(children)[scores[:, list(children)].argmax(1)]
    return best


def follow(tree: ClassTree, example: NDArray[np.floating], to: int) -> tuple[Step, ...]:
    """The path to a class, from the root on, as one input of shape (d,) sees it.

    Args:
        tree: that decides.
        example: an input of the network's last layer.
        to: number of the class, such as the one that was decided for.
    """
    hierarchy = tree.hierarchy
    scores = torch.from_numpy(score_nodes(tree, np.asarray(example)[None]))
    shares = Paths(hierarchy).log_shares(scores)[0].exp()
    path = hierarchy.path(to)
    return tuple(
        Step(
            node,
            hierarchy.children[node],
            tuple(float(shares[child]) for child in hierarchy.children[node]),
            taken,
        )
        for node, taken in pairwise(path)
    )
