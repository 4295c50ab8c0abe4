"""`wwopt tree`: a classifier as a tree of its classes, on one HTML page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from wwopt.class_tree.features import Features

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("model")
@click.option(
    "--classes",
    metavar="FILE",
    type=FILE,
    show_default="their numbers",
    help="Names of the classes, one a line, in the order of the outputs (UTF-8).",
)
@click.option("--layer", show_default="the last linear one", help="Layer whose rows are classes.")
@click.option("--key", metavar="NAME", help="Model in a training checkpoint that holds several.")
@click.option(
    "--shape-of",
    metavar="MODEL",
    show_default="MODEL itself",
    help="Checkpoint whose rows make the tree's shape, as before MODEL was fine-tuned along it.",
)
@click.option(
    "--features",
    metavar="FILE",
    type=FILE,
    help="Training examples as that layer reads them: a .npz of inputs and labels.",
)
@click.option(
    "--held-out",
    metavar="FILE",
    type=FILE,
    help="The same of examples that the network has not seen, to judge it by.",
)
@click.option(
    "--move",
    nargs=2,
    metavar="CLASS TARGET",
    help="Move a class under a node (its number) or beside a class; fit that node to --features.",
)
@click.option("-o", "--output", default="tree.html", type=FILE, help="File to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the tree as JSON.")
def tree(
    model: str,
    classes: Path | None,
    layer: str | None,
    key: str | None,
    shape_of: str | None,
    features: Path | None,
    held_out: Path | None,
    move: tuple[str, str] | None,
    output: Path,
    as_json: bool,
) -> None:
    """Read MODEL's classes as a tree of decisions, and write it as one HTML page.

    MODEL is a checkpoint as of `wwopt analyze`. The tree needs no data; with --features the page
    tells where wrong decisions fall and which training examples lie behind them. Exit status: 0
    fine, 2 it could not be read or written.
    """
    if move and features is None:
        raise click.UsageError("--move fits a node to examples: give them with --features")
    if not output.parent.is_dir():
        raise click.UsageError(f"-o {output}: there is no folder {output.parent}")
    names = None if classes is None else read_names(classes)
    from wwopt.class_tree.correction import move_class, refit_node
    from wwopt.class_tree.features import check_features, load_features
    from wwopt.class_tree.judgement import judge_tree
    from wwopt.class_tree.page import write_page
    from wwopt.class_tree.text import format_tree
    from wwopt.class_tree.trees import class_tree

    shape = None if shape_of is None else class_tree(shape_of, names, layer=layer).hierarchy
    found = class_tree(model, names, layer=layer, key=key, hierarchy=shape)

    def load(path: Path | None) -> "Features | None":
        if path is None:
            return None
        loaded = load_features(path)
        check_features(loaded, found.head, found.hierarchy.names)
        return loaded

    training, unseen = load(features), load(held_out)
    before = None
    if move:
        before = found
        hierarchy = found.hierarchy
        moved, target = (_node(given, hierarchy.names) for given in move)
        found = move_class(found, moved, target)
        assert training is not None
        found = refit_node(found, found.hierarchy.parents[found.hierarchy.find(moved)], training)
    judged = unseen if unseen is not None else training
    judgement = None if judged is None else judge_tree(found, judged)
    write_page(
        found, output, title=Path(model).name, training=training, held_out=unseen, before=before
    )
    if as_json:
        document = found.to_dict()
        if judgement is not None:
            document["judgement"] = judgement.to_dict()
        click.echo(json.dumps(document, indent=2, allow_nan=False))
        return
    click.echo(format_tree(found, judgement))
    click.echo(f"\n{output}: {output.stat().st_size / 1e3:.0f} kB")


def read_names(path: Path) -> list[str]:
    """Names of classes from a text file, one a line; empty lines at its end do not count.

    Raises:
        ValueError: if the file is no UTF-8, is empty, or has an empty line between names.
        OSError: if it cannot be read.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text, at byte {error.start}") from error
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if not lines:
        raise ValueError(f"{path} is empty; it needs the name of a class on each line")
    if "" in lines:
        raise ValueError(f"{path} has no name on line {lines.index('') + 1}")
    return lines


def _node(given: str, names: tuple[str, ...]) -> str | int:
    """A class of that name, or else the node of that number."""
    return int(given) if given.isdecimal() and given not in names else given
