"""A tree of classes that decides: a hierarchy, and a vector for every child of every node.

A node's vector is the mean of the rows of the classes below it (Wan et al. 2021, section 3.2), and
its bias the mean of theirs: what a node says of a child is the mean of the network's own logits
over that child's classes. A node that was fitted to examples has vectors of its own instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.heads import Head, find_head
from wwopt.class_tree.hierarchy import Hierarchy, link_classes
from wwopt.plain_data import make_plain
from wwopt.weights.matrices import Source


@dataclass(frozen=True)
class NodeVectors:
    """What one node weighs its k children by."""

    weight: NDArray[np.float64]  # (k, d), in the order of the children
    bias: NDArray[np.float64]  # (k,)


@dataclass(frozen=True)
class ClassTree:
    """A tree of classes over the inputs of a network's last layer."""

    hierarchy: Hierarchy
    head: Head  # whose rows the nodes' vectors are means of
    fitted: Mapping[int, NodeVectors] = field(default_factory=dict)  # nodes fitted to examples

    @cached_property
    def vectors(self) -> NodeVectors:
        """One row a node's number, (size, d) and (size,): how its parent weighs it; unused: 0."""
        size = self.hierarchy.size
        weight, bias = np.zeros((size, self.head.weight.shape[1])), np.zeros(size)
        for node, classes in self.hierarchy.classes.items():
            weight[node] = self.head.weight[list(classes)].mean(0)
            bias[node] = self.head.bias[list(classes)].mean()
        for node, own in self.fitted.items():
            children = list(self.hierarchy.children[node])
            weight[children], bias[children] = own.weight, own.bias
        return NodeVectors(weight, bias)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the classes, and a row for each inner node, the root first."""
        tree = self.hierarchy
        nodes = [
            {
                "node": node,
                "children": tree.children[node],
                "classes": tree.classes[node],
                "height": tree.heights[node],
                "fitted": node in self.fitted,
            }
            for node in tree.downwards()
            if node in tree.children
        ]
        plain: dict[str, Any] = make_plain(
            {"layer": self.head.layer, "classes": tree.names, "root": tree.root, "nodes": nodes}
        )
        return plain


def class_tree(
    source: Source,
    names: Sequence[str] | None = None,
    *,
    layer: str | None = None,
    key: str | None = None,
    hierarchy: Hierarchy | None = None,
) -> ClassTree:
    """Read a classifier as a tree of its classes; no data is needed.

    Args:
        source: a module, a state dict, or the path of a checkpoint, as of `wwopt.analyze`.
        names: of the classes, in the order of the network's outputs; None for their numbers.
        layer: name of the layer whose rows are the classes; None for the last linear one.
        key: dotted path of the model in a checkpoint that holds several, such as "ema".
        hierarchy: keep this one, as of the network before it was fine-tuned, and take only the
            vectors from the source; None to link the rows.

    Raises:
        ClassTreeError: if no layer or several may be the last one, its rows and the names are not
            as many, or a value is not finite.
        WeightsError: if the source cannot be read, or has no such layer or key.
    """
    known = names if hierarchy is None else hierarchy.names
    head = find_head(source, layer=layer, classes=None if known is None else len(known), key=key)
    rows = len(head.weight)
    if known is not None and len(known) != rows:
        raise ClassTreeError(
            f"there are {len(known)} names of classes, but layer {head.layer!r} has {rows} rows; "
            f"give one name a row, in the order of the network's outputs"
        )
    if hierarchy is None:
        hierarchy = link_classes(head.weight, names or list(map(str, range(rows))))
    return ClassTree(hierarchy, head)
