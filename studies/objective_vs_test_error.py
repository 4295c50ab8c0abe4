"""Which score of a network's weights orders networks by what they do on test data, and where not?

    python studies/objective_vs_test_error.py make mnist-cnn --networks 70 --data FOLDER
    python studies/objective_vs_test_error.py judge zoos/*            # about 1 minute a zoo

`make` trains the networks of a task (see `harness/zoos/tasks.py`; 2 to 20 seconds each) into a zoo
folder; interrupted, it goes on where it stopped. FOLDER holds MNIST's 10,000 test images
(`t10k-images-idx3-ubyte.gz` and its labels, with or without `mnist-` before) and
`tinyshakespeare.txt`. `judge` takes any folders in that format and writes one table (Markdown) and
one picture.
"""

from collections.abc import Iterable
from pathlib import Path

import click
import pandas as pd
from joblib import Parallel, delayed
from matplotlib.figure import Figure

from harness.markdown_tables import format_markdown
from harness.zoos.judgement import (
    SHOWN,
    ablate,
    compare_with_loss,
    judge_transfer,
    judge_zoo,
    summarize,
)
from harness.zoos.tasks import TASKS, load_data
from harness.zoos.training import make_zoo


def draw(tables: dict[str, dict[str, pd.DataFrame]], path: Path) -> None:
    """Tau with test error of the main scores, with intervals: one row a zoo."""
    colours = ("#0072B2", "#D55E00", "#000000", "#999999")  # Okabe and Ito's
    figure = Figure(figsize=(8, 1.2 + 0.55 * len(tables)), layout="constrained")
    axes = figure.add_subplot()
    for offset, (name, colour) in enumerate(zip(SHOWN, colours, strict=True)):
        for row, found in enumerate(tables.values()):
            text = found["scores"].loc[name, "tau error"]
            value, low, high = (float(part.strip("[],")) for part in str(text).split())
            y = row + 0.15 * offset - 0.22
            axes.plot([low, high], [y, y], color=colour, linewidth=1.5)
            axes.plot([value], [y], "o", color=colour, label=name if row == 0 else None)
    axes.axvline(0.0, color="0.6", linewidth=0.8)
    axes.set_yticks(range(len(tables)), list(tables))
    axes.invert_yaxis()
    axes.set_xlabel("Kendall's tau with the test error (95 % interval); 1 orders perfectly")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)


@click.group()
def main() -> None:
    """Make zoos of trained networks, and judge scores on them."""


@main.command()
@click.argument("tasks", nargs=-1, required=True, type=click.Choice(list(TASKS)))
@click.option("--networks", default=70, show_default=True)
@click.option("--out", default="zoos", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder of the images.")
@click.option("--jobs", default=2, show_default=True)
@click.option("--keep-weights", is_flag=True, help="About 10 MB a network.")
def make(
    tasks: Iterable[str], networks: int, out: Path, data: Path | None, jobs: int, keep_weights: bool
) -> None:
    """Train the networks of TASKS that OUT/TASK lacks."""
    for task in tasks:  # say what is missing before hours of work
        try:
            load_data(TASKS[task], data)
        except FileNotFoundError as error:
            raise click.UsageError(str(error)) from error
    for task in tasks:
        folder = out / task
        make_zoo(task, folder, networks=networks, data=data, jobs=jobs, keep=keep_weights)


@main.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", default="judged", type=click.Path(path_type=Path))
@click.option("--jobs", default=2, show_default=True)
def judge(folders: tuple[Path, ...], out: Path, jobs: int) -> None:
    """Judge every score on every zoo; writes OUT/table.md and OUT/table.png."""
    out.mkdir(parents=True, exist_ok=True)
    found = Parallel(n_jobs=jobs)(delayed(judge_zoo)(folder) for folder in folders)
    tables = {folder.name: table for folder, table in zip(folders, found, strict=True)}
    text = ["## All zoos", "", format_markdown(summarize(tables)), ""]
    text += ["Trees fitted to kinds of features:", "", format_markdown(ablate(tables)), ""]
    text += ["Validation-free minus loss:", "", format_markdown(compare_with_loss(tables)), ""]
    for name, table in tables.items():
        text += [
            f"## {name}",
            "",
            format_markdown(table["facts"]),
            "",
            format_markdown(table["scores"]),
            "",
        ]
        if len(table["axes"]):
            text += ["Tau along one axis:", "", format_markdown(table["axes"]), ""]
    if len(folders) > 1:
        text += [
            "Trees fitted to the other zoos:",
            "",
            format_markdown(judge_transfer(folders)),
            "",
        ]
    (out / "table.md").write_text("\n".join(text))
    draw(tables, out / "table.png")
    click.echo("\n".join(text))


if __name__ == "__main__":
    main()
