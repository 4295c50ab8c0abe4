"""The shape of a tree of classes: which node has which children, and nothing of its decisions.

Nodes have numbers. The classes are 0 … C-1, in the order of the network's outputs; inner nodes
follow in the order in which Ward's linkage merged them, as scipy numbers them. A number stays with
its node when classes are moved, so that two trees can be compared node by node.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage

from wwopt.class_tree.errors import ClassTreeError
from wwopt.wording import write_names


@dataclass(frozen=True)
class Hierarchy:
    """A rooted tree whose leaves are the classes; inner nodes have two children or more."""

    names: tuple[str, ...]  # of the classes, which are the nodes 0 … C-1
    children: Mapping[int, tuple[int, ...]]  # inner node -> its children
    heights: Mapping[int, float]  # inner node -> Ward's distance of what it merges, units of a row

    @cached_property
    def parents(self) -> Mapping[int, int]:
        """Node → its parent; the root has none."""
        return {child: node for node, some in self.children.items() for child in some}

    @cached_property
    def root(self) -> int:
        """The node that holds all classes."""
        return next(node for node in self.children if node not in self.parents)

    @cached_property
    def classes(self) -> Mapping[int, tuple[int, ...]]:
        """Node → the classes below it, in the order in which they are drawn."""
        below: dict[int, tuple[int, ...]] = {}
        for node in reversed(self.downwards()):
            children = self.children.get(node)
            below[node] = (node,) if children is None else sum((below[c] for c in children), ())
        return below

    @property
    def size(self) -> int:
        """One more than the largest number of a node."""
        return max(max(self.children), len(self.names) - 1) + 1

    def downwards(self) -> list[int]:
        """All nodes, parents before their children, the first child's side first."""
        found, waiting = [], [self.root]
        while waiting:
            node = waiting.pop()
            found.append(node)
            waiting += reversed(self.children.get(node, ()))
        return found

    def path(self, node: int) -> tuple[int, ...]:
        """The nodes from the root to a node, both counted."""
        found = [node]
        while found[-1] in self.parents:
            found.append(self.parents[found[-1]])
        return tuple(reversed(found))

    def meet(self, one: int, other: int) -> int:
        """The lowest node that holds both: where a decision for one left the other."""
        shared = [a for a, b in zip(self.path(one), self.path(other), strict=False) if a == b]
        return shared[-1]

    def side(self, node: int, below: int) -> int:
        """The child of a node that holds another node, which lies below it."""
        path = self.path(below)
        return path[path.index(node) + 1]

    def find(self, given: str | int) -> int:
        """The node of a class's name or of a number.

        Raises:
            ClassTreeError: if there is none, or several classes have that name.
        """
        if not isinstance(given, str):
            if given in self.children or 0 <= given < len(self.names):
                return given
            inner = write_names(list(map(str, sorted(self.children))))
            raise ClassTreeError(f"no node {given}; inner nodes are {inner}")
        found = [number for number, name in enumerate(self.names) if name == given]
        if not found:
            raise ClassTreeError(f"no class {given!r}; they are {write_names(self.names)}")
        if len(found) > 1:
            raise ClassTreeError(
                f"classes {write_names(list(map(str, found)))} are all called {given!r}; name one "
                f"by its number"
            )
        return found[0]


def link_classes(rows: NDArray[np.float64], names: Sequence[str]) -> Hierarchy:
    """Merge classes by Ward's linkage of their rows, as neural-backed decision trees do.

    Args:
        rows: one vector a class, shape (C, d); not normalised, as in the paper's code.
        names: of the classes, C of them.

    Raises:
        ClassTreeError: if there are fewer than two rows, another number of names, or a value is
            not finite.
    """
    if len(rows) < 2:
        raise ClassTreeError(f"a tree needs two classes, the layer has {len(rows)} row")
    if len(names) != len(rows):
        raise ClassTreeError(f"there are {len(names)} names for {len(rows)} rows of the layer")
    lost = [names[i] for i in np.flatnonzero(~np.isfinite(rows).all(1)).tolist()]
    if lost:
        raise ClassTreeError(f"the rows of {write_names(lost)} are not finite; the network broke")
    merges = linkage(rows, "ward")
    numbered = enumerate(merges, start=len(rows))
    children = {node: (int(row[0]), int(row[1])) for node, row in numbered}
    heights = {node: float(row[2]) for node, row in enumerate(merges, start=len(rows))}
    return Hierarchy(tuple(names), children, heights)


def regraft(hierarchy: Hierarchy, moved: str | int, under: str | int) -> Hierarchy:
    """Move a class under another node.

    Under an inner node it becomes one more child of it; under another class both become children
    of a new node in that class's place. A node that is left with one child gives way to it.

    Args:
        hierarchy: stays as it is.
        moved: name or number of a class.
        under: name of a class or number of any node.

    Raises:
        ClassTreeError: if there is no such class or node, or the class is there already.
    """
    leaf, target = hierarchy.find(moved), hierarchy.find(under)
    if leaf >= len(hierarchy.names):
        raise ClassTreeError(f"node {leaf} is no class; classes alone are moved, one at a time")
    home = hierarchy.parents[leaf]
    together = target < len(hierarchy.names) and set(hierarchy.children[home]) == {leaf, target}
    if target in (leaf, home) or together:
        name = hierarchy.names[leaf]
        raise ClassTreeError(f"class {name!r} is under {under!r} already: nothing to move")
    children, heights = dict(hierarchy.children), dict(hierarchy.heights)
    rest = tuple(child for child in children[home] if child != leaf)
    if len(rest) > 1:
        children[home] = rest
    else:
        del children[home], heights[home]
        if home in hierarchy.parents:
            above = hierarchy.parents[home]
            children[above] = _exchange(children[above], home, rest[0])
    if target in children:
        children[target] = (*children[target], leaf)
    else:
        new = hierarchy.size
        above = next(node for node, some in children.items() if target in some)
        children[above] = _exchange(children[above], target, new)
        children[new] = (target, leaf)
        heights[new] = heights[above] / 2.0  # no linkage made it: drawn half-way
    return replace(hierarchy, children=children, heights=heights)


def _exchange(nodes: tuple[int, ...], old: int, new: int) -> tuple[int, ...]:
    return tuple(new if node == old else node for node in nodes)
