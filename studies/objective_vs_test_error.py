"""Which score of a network's weights orders networks by what they do on test data, and where not?

    python studies/objective_vs_test_error.py make mnist-cnn --networks 70 --data FOLDER
    python studies/objective_vs_test_error.py judge zoos/*            # about 1 minute a zoo

`make` trains the networks of a task (see `zoo_tasks.py`; 2 to 20 seconds each) into a zoo folder;
interrupted, it goes on where it stopped. FOLDER holds MNIST's 10,000 test images
(`t10k-images-idx3-ubyte.gz` and its labels, with or without `mnist-` before) and
`tinyshakespeare.txt`. `judge` takes any folders in that format and writes one table (Markdown) and
one picture. Networks whose loss became non-finite are counted apart; those that learned less than
half of what the median network did are "collapsed", counted, and left in.
"""

from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from numpy.typing import NDArray
from score_statistics import (
    matched_pairs,
    paired_difference,
    permutation_threshold,
    regret,
    tau,
    tau_interval,
)
from zoo_records import Network, read_zoo
from zoo_scores import fitted_models, reads_labels, reads_training, transferred, weights_only
from zoo_tasks import TASKS, load_data
from zoo_training import make_zoo

Array = NDArray[np.float64]
SHOWN = ("wwopt, weights only", "wwopt, validation-free", "training loss", "fitted: moments")
SPLIT = ("1.0", "0.5")  # checkpoints judged: the end, and half-way, against the final test error


def judge_zoo(folder: Path) -> dict[str, pd.DataFrame]:
    """Tables of one zoo: every score, the axes of a sweep, and facts about the zoo itself."""
    every = read_zoo(folder)
    networks = [network for network in every if not network.diverged]
    end = {
        key: np.array([n.outcome(key) for n in networks]) for key in ("tea", "tel", "trl", "tra")
    }
    error, loss, gap = 1.0 - end["tea"], end["tel"], end["tel"] - end["trl"]
    fitted = end["trl"] <= np.median(end["trl"])
    learned = end["tra"] - end["tra"].min()
    collapsed = learned < np.median(learned) / 2.0
    scores = {c: _all_scores(networks, c, error) for c in SPLIT}
    rows = []
    for name, score in scores["1.0"].items():
        half = scores["0.5"].get(name)
        rows.append(
            {
                "score": name,
                "tau error": str(tau_interval(score, error)),
                "tau loss": tau(score, loss),
                "tau gap": tau(score, gap),
                "tau not collapsed": tau(score[~collapsed], error[~collapsed]),
                "tau fitted half": str(tau_interval(score[fitted], error[fitted])),
                "regret": regret(score, error),
                "regret of 5": regret(score, error, top=5),
                "matched pairs": matched_pairs(score, end["trl"], loss)[0],
                "half-way: tau": np.nan if half is None else tau(half, error),
                "fitted": np.nan if half is None else tau(half[fitted], error[fitted]),
                "regret half": np.nan if half is None else regret(half, error),
                "chose collapsed": _chose(scores, name, collapsed),
            }
        )
    real = {k: s for k, s in scores["1.0"].items() if not k.startswith("fitted")}
    free, plain = (scores["1.0"][k][fitted] for k in SHOWN[1:3])
    facts = {
        "networks": len(every),
        "diverged": len(every) - len(networks),
        "collapsed": int(collapsed.sum()),
        "best error": 100.0 * error.min(),
        "noise of the test set": 100.0 * float(np.sqrt(error.min() * (1 - error.min()) / 4000)),
        "regret at random": 100.0 * (error.mean() - error.min()),
        "two seeds of one configuration": _twins(networks, error),
        "best of all by luck": permutation_threshold(real, error),
        "validation-free - training loss, fitted half": str(
            paired_difference(free, plain, error[fitted])
        ),
        "pairs matched": matched_pairs(plain, end["trl"][fitted], loss[fitted])[1],
    }
    return {
        "scores": pd.DataFrame(rows).set_index("score"),
        "facts": pd.DataFrame({folder.name: facts}).T,
        "axes": _axes(networks, {k: real[k] for k in (*SHOWN[:3], "mean alpha")}, error),
    }


def _all_scores(networks: list[Network], checkpoint: str, error: Array) -> dict[str, Array]:
    scores = weights_only(networks, checkpoint) | reads_training(networks, checkpoint)
    return scores | reads_labels(networks, checkpoint) | fitted_models(networks, checkpoint, error)


def _chose(scores: dict[str, dict[str, Array]], name: str, collapsed: NDArray[np.bool_]) -> str:
    found = [c for c in SPLIT if name in scores[c] and collapsed[np.nanargmin(scores[c][name])]]
    return ", ".join({"1.0": "end", "0.5": "half"}[c] for c in found) or "no"


def _twins(networks: list[Network], error: Array) -> float:
    """The noise ceiling: tau between the errors of the same configurations under two seeds."""
    seen: dict[int, list[float]] = {}
    for network, value in zip(networks, error, strict=True):
        seen.setdefault(network.config.get("config", -network.index - 1), []).append(value)
    pairs = np.array([errors[:2] for errors in seen.values() if len(errors) > 1])
    return tau(pairs[:, 0], pairs[:, 1]) if len(pairs) >= 10 else float("nan")


def _axes(networks: list[Network], scores: dict[str, Array], error: Array) -> pd.DataFrame:
    """Tau along each axis of a zoo that varies one hyperparameter at a time."""
    axes = np.array([network.config.get("axis", "") for network in networks])
    rows = {
        axis: {
            name: tau(score[axes == axis], error[axes == axis]) for name, score in scores.items()
        }
        for axis in sorted(set(axes) - {""})
    }
    return pd.DataFrame(rows).T


def judge_transfer(folders: Iterable[Path]) -> pd.DataFrame:
    """Tau of trees fitted to all zoos but the one they are judged on, at the end of training."""
    zoos = {f.name: [n for n in read_zoo(f) if not n.diverged] for f in folders}
    rows = {}
    for name, networks in zoos.items():
        error = np.array([1.0 - network.outcome("tea") for network in networks])
        own = {SHOWN[0]: weights_only(networks, "1.0")[SHOWN[0]]}
        found = own | transferred(zoos, name, "1.0")
        rows[name] = {key: str(tau_interval(score, error)) for key, score in found.items()}
    return pd.DataFrame(rows).T


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
    text = []
    for name, table in tables.items():
        text += [f"## {name}", "", *_markdown(table["facts"]), "", *_markdown(table["scores"]), ""]
        if len(table["axes"]):
            text += ["Tau along one axis:", "", *_markdown(table["axes"]), ""]
    if len(folders) > 1:
        text += ["## Trees fitted to the other zoos", "", *_markdown(judge_transfer(folders)), ""]
    (out / "table.md").write_text("\n".join(text))
    draw(tables, out / "table.png")
    click.echo("\n".join(text))


def _markdown(frame: pd.DataFrame) -> list[str]:
    """A Markdown table."""
    shown = frame.map(lambda v: f"{v:.2f}" if isinstance(v, float) else str(v)).reset_index(
        names=frame.index.name or ""
    )
    lines = [" | ".join(map(str, shown.columns)), " | ".join("---" for _ in shown.columns)]
    lines += [" | ".join(row) for row in shown.itertuples(index=False)]
    return [f"| {line} |" for line in lines]


if __name__ == "__main__":
    main()
