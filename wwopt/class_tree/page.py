"""One self-contained HTML page of a tree of classes: it opens from disk and asks no network.

Made as the report of a study is, from a template. The tree is drawn in SVG and runs no script, so
that the page is small and its words can be found, printed and read aloud.
"""

import base64
import io
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.image import imsave
from numpy.typing import NDArray

from wwopt.class_tree.correction import NodeChange, compare_nodes
from wwopt.class_tree.drawing import place_nodes
from wwopt.class_tree.features import Features, check_features
from wwopt.class_tree.inference import Step, follow
from wwopt.class_tree.judgement import TreeJudgement, judge_tree
from wwopt.class_tree.neighbours import NearestExamples, Neighbour, vote
from wwopt.class_tree.text import (
    DECIDERS,
    NAME,
    NAMED,
    describe_missing,
    describe_node,
    share,
    summarize_changes,
    summarize_tree,
)
from wwopt.class_tree.trees import ClassTree
from wwopt.wording import shorten

SHOWN = 12  # wrong decisions that are shown
OF_A_NODE = 3  # of them at one node
NEIGHBOURS = 5
MANY = 30  # classes from which on rows are low
PAIRS = 3  # pairs of classes in a row of the table of nodes


@dataclass(frozen=True)
class Example:
    """One decision with what lies behind it."""

    name: str
    image: str | None  # as data of a URL
    label: int
    decided: int
    network: int  # what the network decides
    fell: int  # the node where it left the path to its class, or was least sure
    steps: tuple[Step, ...]
    nearest: tuple[tuple[Neighbour, str, str | None], ...]  # with its name and image


def write_page(
    tree: ClassTree,
    path: str | Path,
    *,
    title: str,
    training: Features | None = None,
    held_out: Features | None = None,
    before: ClassTree | None = None,
) -> Path:
    """Write the page of a tree.

    Args:
        tree: to show.
        path: of the HTML file; replaced where it exists.
        title: what the tree is of, such as the name of the checkpoint.
        training: examples that the network was trained on: they are what decisions are linked
            to, and without `held_out` the ones that are judged, each without itself.
        held_out: examples that the network has not seen, which are judged.
        before: the tree as it was before a correction; what changed is told node by node.

    Returns:
        The file.

    Raises:
        ClassTreeError: if features do not fit the tree.
        OSError: if it cannot be written.
    """
    path = Path(path)
    text = render_page(tree, title=title, training=training, held_out=held_out, before=before)
    path.write_text(text, "utf-8")
    return path


def render_page(
    tree: ClassTree,
    *,
    title: str,
    training: Features | None = None,
    held_out: Features | None = None,
    before: ClassTree | None = None,
) -> str:
    """The page of a tree as HTML; see `write_page`."""
    hierarchy = tree.hierarchy
    for features in (training, held_out):
        if features is not None:
            check_features(features, tree.head, hierarchy.names)
    environment = Environment(
        loader=PackageLoader("wwopt.class_tree", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = share
    environment.filters["shorten"] = lambda name: shorten(name, NAME)
    return environment.get_template("page.html.j2").render(
        title=title,
        tree=tree,
        hierarchy=hierarchy,
        drawing=place_nodes(hierarchy),
        inner=[node for node in hierarchy.downwards() if node in hierarchy.children],
        order=hierarchy.classes[hierarchy.root],
        summary=summarize_tree(tree),
        described={node: describe_node(hierarchy, node) for node in hierarchy.children},
        named=NAMED,
        deciders=DECIDERS,
        many=len(hierarchy.names) > MANY,
        pairs=PAIRS,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=version("wwopt"),
        **_tell_worth(tree, training, held_out),
        **_tell_changes(before, tree, held_out if held_out is not None else training),
    )


def _tell_worth(
    tree: ClassTree, training: Features | None, held_out: Features | None
) -> dict[str, Any]:
    """What the page says of a tree's decisions; nothing where there is no example."""
    judged = held_out if held_out is not None else training
    if judged is None:
        return {"judgement": None}
    judgement = judge_tree(tree, judged)
    return {
        "judgement": judgement,
        "by_node": {node.node: node for node in judgement.nodes},
        "recall": _recall(judgement),
        "examples": _choose_examples(judgement, judged, training),
        "accuracies": measure_accuracies(judgement, judged, training),
        "cautions": _find_cautions(judgement, held_out is None, training is None),
        "voted": training is not None,
    }


def _tell_changes(
    before: ClassTree | None, after: ClassTree, judged: Features | None
) -> dict[str, Any]:
    """What the page says of a correction; nothing where there was none or no example."""
    if before is None or judged is None:
        return {}
    changes = list(compare_nodes(before, after, judged))
    sides = [judge_tree(tree, judged) for tree in (before, after)]
    return {
        "changes": [change for change in changes if change.changed],
        "sides": {change.node: _say_sides(change) for change in changes},
        "told": summarize_changes(changes, *sides),
    }


def measure_accuracies(
    judgement: TreeJudgement, judged: Features, training: Features | None
) -> dict[str, float]:
    """Shares of right decisions, by who decides; look-up and mean need training examples."""
    found = dict(judgement.accuracies)
    if training is not None and len(training) > 1:
        votes = vote(training, judged, judgement.network.shape[1])
        mean = (votes + judgement.network) / 2.0
        for name, shares in (("look-up", votes), ("mean", mean)):
            found[name] = float((shares.argmax(1) == judgement.labels).mean())
    return found


def _choose_examples(
    judgement: TreeJudgement, judged: Features, training: Features | None
) -> list[Example]:
    """The surest wrong decisions, a few of each node; where none is wrong, the least sure ones."""
    hierarchy = judgement.tree.hierarchy
    chosen: list[int] = []
    of_node: Counter[int] = Counter()
    for number in judgement.mistakes:
        fell = hierarchy.meet(int(judgement.labels[number]), int(judgement.decided[number]))
        of_node[fell] += 1
        if of_node[fell] <= OF_A_NODE and len(chosen) < SHOWN:
            chosen.append(int(number))
    if not chosen:
        sure = judgement.probabilities.max(1)
        chosen = [int(number) for number in np.argsort(sure, kind="stable")[:OF_A_NODE]]
    index = None if training is None else NearestExamples(training, hierarchy)
    return [_explain(number, judgement, judged, index) for number in chosen]


def _explain(
    number: int, judgement: TreeJudgement, judged: Features, index: NearestExamples | None
) -> Example:
    tree = judgement.tree
    label, decided = int(judgement.labels[number]), int(judgement.decided[number])
    steps = follow(tree, judged.inputs[number], decided)
    if label != decided:
        fell = tree.hierarchy.meet(label, decided)
    else:
        fell = min(steps, key=lambda s: s.probabilities[s.children.index(s.taken)]).node
    nearest: tuple[tuple[Neighbour, str, str | None], ...] = ()
    if index is not None:
        training = index.training
        own = number if training is judged else None
        near = index.near(judged.inputs[number], fell, most=NEIGHBOURS, leave_out=own)
        nearest = tuple((n, training.name(n.number), _picture(training, n.number)) for n in near)
    return Example(
        judged.name(number),
        _picture(judged, number),
        label,
        decided,
        int(judgement.network[number].argmax()),
        fell,
        steps,
        nearest,
    )


def _picture(features: Features, number: int) -> str | None:
    """An example's image as a PNG in a URL."""
    if features.images is None:
        return None
    file, image = io.BytesIO(), np.asarray(features.images[number])
    if image.ndim == 3 and image.dtype != np.uint8:
        image = np.clip(image, 0.0, 1.0)
    imsave(file, image, format="png", cmap="gray")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _recall(judgement: TreeJudgement) -> NDArray[np.float64]:
    """Share of each class's examples that the tree decides rightly, (C,); NaN without one."""
    classes = judgement.probabilities.shape[1]
    counts = np.bincount(judgement.labels, minlength=classes)
    right = np.bincount(judgement.labels[judgement.decided == judgement.labels], minlength=classes)
    shares = np.full(classes, np.nan)
    np.divide(right, counts, out=shares, where=counts > 0)
    return shares


def _find_cautions(judgement: TreeJudgement, seen: bool, alone: bool) -> list[str]:
    said = []
    if seen:
        said.append(
            "These are examples of --features themselves. If the network was trained on them, its "
            "accuracy and the tree's are those of what it has seen; give others with --held-out."
        )
    if alone:
        said.append("Without training examples no decision is linked to any.")
    if judgement.missing:
        said.append(describe_missing(judgement.missing))
    return said


def _say_sides(change: NodeChange) -> dict[str, str]:
    """One node of a correction, before → after."""
    sides = (change.before, change.after)
    right = ("–" if s is None else f"{share(s.accuracy)} of {s.examples}" for s in sides)
    fallen = ("–" if s is None else str(s.fallen) for s in sides)
    return {"right": " → ".join(right), "fallen": " → ".join(fallen)}
