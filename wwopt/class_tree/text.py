"""A tree of classes for a reader: its summary in words, and the tree itself for a terminal."""

from wwopt.class_tree.correction import NodeChange
from wwopt.class_tree.hierarchy import Hierarchy
from wwopt.class_tree.judgement import TreeJudgement
from wwopt.class_tree.trees import ClassTree
from wwopt.wording import UNKNOWN, count, number, shorten, write_names

NAMED = 4  # classes of a node that are named; the rest is counted
NAME = 28  # characters of a class's name
DECIDERS = {  # of the accuracies, in the order of a table
    "network": "the network",
    "tree": "the tree, over all paths (soft)",
    "hard": "the tree, one node after another (hard)",
    "look-up": "the nearest training examples (look-up)",
    "mean": "mean of the network and the look-up",
}


def summarize_tree(tree: ClassTree) -> str:
    """What the tree is made of, in one sentence."""
    rows, width = tree.head.weight.shape
    inner = count(len(tree.hierarchy.children), "node")
    return (
        f"{rows} classes, the rows of layer {tree.head.layer} ({rows} × {width}), merged by Ward's "
        f"linkage to {inner}."
    )


def format_tree(tree: ClassTree, judgement: TreeJudgement | None = None) -> str:
    """The tree, a line a node, and with a judgement what each node is worth."""
    lines = [summarize_tree(tree)]
    if judgement is not None:
        lines += [format_accuracies(judgement.accuracies, len(judgement.labels))]
        if judgement.missing:
            lines += [describe_missing(judgement.missing)]
    return "\n".join([*lines, "", *_draw(tree.hierarchy, judgement)])


def format_accuracies(accuracies: dict[str, float], examples: int) -> str:
    """As "Right of 360 examples: the network 94.4 %, …"."""
    said = [f"{DECIDERS[name]} {share(value)}" for name, value in accuracies.items()]
    return f"Right of {count(examples, 'example')}: {'; '.join(said)}."


def describe_missing(missing: tuple[str, ...]) -> str:
    """What a class without an example means for what is told."""
    return (
        f"Without an example: {write_names([shorten(name, NAME) for name in missing])}. Nothing is "
        f"known of decisions for {'it' if len(missing) == 1 else 'them'}."
    )


def describe_node(hierarchy: Hierarchy, node: int) -> str:
    """The classes below a node: a class's name, or those of a few and how many more."""
    names = [shorten(hierarchy.names[c], NAME) for c in hierarchy.classes[node]]
    return write_names(names, NAMED)


def share(value: float) -> str:
    """As "94.4 %"; a dash where it is not known."""
    said = number(100.0 * value, ".1f")
    return said if said == UNKNOWN else f"{said} %"


def summarize_changes(
    changes: list[NodeChange], before: TreeJudgement, after: TreeJudgement
) -> str:
    """What a correction changed over all, in one sentence."""
    sides = [(j.accuracies["tree"], len(j.mistakes)) for j in (before, after)]
    changed = sum(change.changed for change in changes)
    return (
        f"The tree is right in {share(sides[1][0])} of {len(after.labels)} examples, before in "
        f"{share(sides[0][0])}: {sides[1][1]} wrong decisions, before {sides[0][1]}. "
        f"{changed} of {count(len(changes), 'node')} changed."
    )


def _draw(hierarchy: Hierarchy, judgement: TreeJudgement | None) -> list[str]:
    lines = []
    waiting = [(hierarchy.root, "", "")]  # node, what stands before it, and before what is below
    while waiting:
        node, lead, below = waiting.pop()
        lines.append(lead + _say_node(hierarchy, node, judgement))
        for child in reversed(hierarchy.children.get(node, ())):
            last = child == hierarchy.children[node][-1]
            marks = ("└─ ", "   ") if last else ("├─ ", "│  ")
            waiting.append((child, below + marks[0], below + marks[1]))
    return lines


def _say_node(hierarchy: Hierarchy, node: int, judgement: TreeJudgement | None) -> str:
    if node not in hierarchy.children:
        return hierarchy.names[node]
    if judgement is None:
        return f"node {node}"
    judged = judgement[node]
    fell = f", {count(judged.fallen, 'wrong decision')} fell here" if judged.fallen else ""
    return f"node {node}: {share(judged.accuracy)} of {judged.examples}{fell}"
