"""Where a drawn tree's nodes lie: the root on the left, a row for each class on the right."""

from dataclasses import dataclass

from wwopt.class_tree.hierarchy import Hierarchy

WIDTH = 100.0  # of the drawing, in which x is per cent of the room it gets


@dataclass(frozen=True)
class Place:
    """One node of a drawing."""

    node: int
    x: float  # 0 at the root, WIDTH at the classes
    y: float  # in rows of classes, from the top


@dataclass(frozen=True)
class Drawing:
    """A tree in the plane."""

    places: dict[int, Place]  # of all nodes
    lines: tuple[str, ...]  # from parents to children, as paths of SVG
    rows: int  # classes


def place_nodes(hierarchy: Hierarchy) -> Drawing:
    """Place nodes by how many merges lie between them and the farthest of their classes.

    By Ward's distance they would crowd: most merges have nearly the same.
    """
    order = hierarchy.downwards()
    row = {node: i for i, node in enumerate(n for n in order if n not in hierarchy.children)}
    level: dict[int, int] = {}
    y: dict[int, float] = {}
    for node in reversed(order):
        children = hierarchy.children.get(node)
        if children is None:
            level[node], y[node] = 0, row[node] + 0.5
        else:
            level[node] = 1 + max(level[child] for child in children)
            y[node] = (y[children[0]] + y[children[-1]]) / 2.0
    top = level[hierarchy.root]
    places = {node: Place(node, WIDTH * (1.0 - level[node] / top), y[node]) for node in order}
    lines = tuple(
        f"M{places[parent].x:.2f} {y[parent]:.2f}V{y[child]:.2f}H{places[child].x:.2f}"
        for child, parent in hierarchy.parents.items()
    )
    return Drawing(places, lines, len(row))
