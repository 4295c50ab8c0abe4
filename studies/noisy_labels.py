"""Do networks that were given wrong labels show it, and do clean ones not?

    python studies/noisy_labels.py zoos/*                   # 20 s

The arguments are folders of `objective_vs_test_error.py make`; MLPs and CNNs on MNIST images count,
those that get more than half of the validation images right at the end of training. The question is
that of `wwopt recommend`, which compares the training loss with the validation error. Tables
(Markdown): how many look noisy, by zoo and loss; how well the loss and the spectral sign of
memorised labels, the cutoff of the first layer's tail, separate noisy zoos from clean ones; and
what becomes of the limit where it was chosen on the other kind of network.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import click
import numpy as np
import pandas as pd
from markdown_tables import format_markdown
from scipy import stats
from score_statistics import Array, Interval
from sklearn.metrics import roc_auc_score
from zoo_records import read_zoo
from zoo_tasks import TASKS, Task

from wwopt.recommendation.layer_findings import allow_loss

MADE_ELSEWHERE = {"mnist-mlp": "mnist-mlp-seeds"}  # the same recipe with other seeds
LOSSES = {"trl": "measured without dropout", "ema": "running mean, as training prints it"}
SHOWN_BY = "noisy ones, clean ones that show it"
SLOPES = np.arange(0.5, 3.01, 0.25)
OFFSETS = np.arange(0.0, 1.01, 0.05)


@dataclass(frozen=True)
class Networks:
    """What counts of a zoo's networks."""

    name: str
    kind: str  # "mlp" or "cnn"
    task: Task
    error: Array  # share of the validation images, whose labels are right
    losses: dict[str, Array]  # by the keys of LOSSES
    cutoff: Array  # of the first layer's tail

    @property
    def wrong(self) -> float:
        """Share of wrong labels: a random one is right in one of ten cases."""
        return 0.9 * self.task.noise

    def differs_in_noise_alone(self, other: "Networks") -> bool:
        """Whether the labels are all that is different about the tasks."""
        recipes = [replace(n.task, name="", noise=0.0, unique=0) for n in (self, other)]
        return recipes[0] == recipes[1]


def read_networks(folder: Path) -> Networks | None:
    """The networks of a zoo that learned more than half; None for another kind of task."""
    zoo = read_zoo(folder)
    name = zoo[0].task
    if not name.startswith(("mnist-mlp", "mnist-cnn")):
        return None
    known = MADE_ELSEWHERE.get(name, name)
    if known not in TASKS:
        raise click.ClickException(
            f"{folder} is of the task {name!r}, whose label noise is not known; "
            f"pass zoos of {', '.join(task for task in TASKS if task.startswith('mnist'))}"
        )
    kept = [n for n in zoo if not n.diverged and n.outcome("vaa") > 0.5]
    return Networks(
        name=name,
        kind=name.split("-")[1],
        task=TASKS[known],
        error=np.array([1.0 - n.outcome("vaa") for n in kept]),
        losses={key: np.array([n.outcome(key) for n in kept]) for key in LOSSES},
        cutoff=np.array([n.metrics("1.0").layers[0].tail_cutoff for n in kept]),
    )


def tabulate_shares(zoos: Sequence[Networks]) -> pd.DataFrame:
    """How many look noisy, by zoo, and together; with 95 % intervals of the shares together."""
    rows = {}
    for zoo in zoos:
        counts = {words: f"{some} of {zoo.error.size}" for words, some in _count([zoo]).items()}
        rows[f"{zoo.name}, {zoo.wrong:.0%} wrong"] = counts
    for name, members in (("noisy", _noisy(zoos)), ("clean", _clean(zoos))):
        networks = sum(zoo.error.size for zoo in members)
        rows[f"**all {name}**"] = {
            words: f"{some} of {networks}: {_share_interval(some, networks)}"
            for words, some in _count(members).items()
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _count(zoos: Sequence[Networks]) -> dict[str, int]:
    return {
        f"look noisy, loss {words}": sum(
            int((zoo.losses[key] > allow_loss(zoo.error)).sum()) for zoo in zoos
        )
        for key, words in LOSSES.items()
    }


def _share_interval(some: int, networks: int) -> str:
    """Jeffreys' interval (Brown, Cai & DasGupta 2001, Statistical Science 16:101)."""
    low, high = stats.beta.ppf([0.025, 0.975], some + 0.5, networks - some + 0.5)
    return f"{some / networks:.0%} [{low:.0%}, {high:.0%}]"


def tabulate_separation(zoos: Sequence[Networks]) -> pd.DataFrame:
    """Area under the curve where zoos differ in their labels alone, with bootstrap intervals."""
    rows = {}
    for noisy in _noisy(zoos):
        for clean in filter(noisy.differs_in_noise_alone, _clean(zoos)):
            areas = {
                f"loss {words}": measure_area(noisy.losses[key], clean.losses[key])
                for key, words in LOSSES.items()
            }
            areas["tail's cutoff"] = measure_area(noisy.cutoff, clean.cutoff)
            rows[f"{noisy.name} against {clean.name}"] = areas
    return pd.DataFrame.from_dict(rows, orient="index")


def measure_area(noisy: Array, clean: Array, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Chance that a noisy network has the larger value, with its 95 % bootstrap interval."""
    noisy, clean = noisy[np.isfinite(noisy)], clean[np.isfinite(clean)]
    if not (noisy.size and clean.size):
        return Interval(math.nan, math.nan, math.nan)

    def area(positive: Array, negative: Array) -> float:
        truth = np.repeat([1, 0], [positive.size, negative.size])
        return float(roc_auc_score(truth, np.concatenate([positive, negative])))

    rng = np.random.default_rng(seed)
    drawn = [
        area(rng.choice(noisy, noisy.size), rng.choice(clean, clean.size)) for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(area(noisy, clean), float(low), float(high))


def tabulate_transfer(zoos: Sequence[Networks]) -> pd.DataFrame:
    """Slope and offset of the limit, chosen on one kind of network and judged on the other.

    Chosen where the share of noisy networks that show it exceeds that of clean ones most; of such
    limits, the one nearest to their middle.
    """
    rows = {}
    for kind, other in (("mlp", "cnn"), ("cnn", "mlp")):
        chosen_on = [zoo for zoo in zoos if zoo.kind == kind]
        judged_on = [zoo for zoo in zoos if zoo.kind == other]
        for key, words in LOSSES.items():
            slope, offset = choose_limit(chosen_on, key)
            rows[f"{kind} → {other}, loss {words}"] = {
                "limit": f"{offset:.2f} - {slope:.2f} ln(1 - error)",
                f"where chosen: {SHOWN_BY}": _tell(_shares(chosen_on, key, slope, offset)),
                f"where judged: {SHOWN_BY}": _tell(_shares(judged_on, key, slope, offset)),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def choose_limit(zoos: Sequence[Networks], key: str) -> tuple[float, float]:
    """Slope and offset that tell most noisy networks for the fewest clean ones."""
    grid = np.array(list(product(SLOPES, OFFSETS)))
    gaps = [float(np.subtract(*_shares(zoos, key, *limit))) for limit in grid]
    best = grid[np.isclose(gaps, max(gaps))]
    slope, offset = best[np.square(best - best.mean(axis=0)).sum(axis=1).argmin()]
    return float(slope), float(offset)


def _tell(shares: tuple[float, float]) -> str:
    return f"{shares[0]:.0%}, {shares[1]:.0%}"


def _shares(zoos: Sequence[Networks], key: str, slope: float, offset: float) -> tuple[float, float]:
    def share(members: Sequence[Networks]) -> float:
        looks = [z.losses[key] > offset - slope * np.log(1.0 - z.error) for z in members]
        return float(np.concatenate(looks).mean())

    return share(_noisy(zoos)), share(_clean(zoos))


def _noisy(zoos: Sequence[Networks]) -> list[Networks]:
    return [zoo for zoo in zoos if zoo.task.noise > 0.0]


def _clean(zoos: Sequence[Networks]) -> list[Networks]:
    return [zoo for zoo in zoos if zoo.task.noise == 0.0]


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def main(folders: Sequence[Path]) -> None:
    """Judge `wwopt recommend`'s word on labels on the zoos in FOLDERS."""
    zoos = [zoo for folder in folders if (zoo := read_networks(folder)) is not None]
    kinds = {(zoo.kind, zoo.task.noise > 0.0) for zoo in zoos}
    if len(kinds) < 4:
        raise click.ClickException(
            "noisy and clean zoos of MLPs and of CNNs are needed, got "
            f"{', '.join(zoo.name for zoo in zoos) or 'none'}; "
            "make mnist-mlp-noise, mnist-mlp-seeds, mnist-cnn-noise and mnist-cnn first"
        )
    for table in (tabulate_shares(zoos), tabulate_separation(zoos), tabulate_transfer(zoos)):
        click.echo(format_markdown(table) + "\n")


if __name__ == "__main__":
    main()
