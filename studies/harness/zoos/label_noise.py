"""What a zoo's networks show of wrong labels: in their losses, and in the tail of the first layer.

MLPs and CNNs on MNIST images count, those that get more than half of the validation images right at
the end of training. What `noisy_labels.py` asks, it asks of these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from harness.score_statistics import Array, Interval, bootstrap_interval
from harness.zoos.records import read_zoo
from harness.zoos.tasks import TASKS, Task
from wwopt.recommendation.label_noise import allow_loss

MADE_ELSEWHERE = {"mnist-mlp": "mnist-mlp-seeds"}  # the same recipe with other seeds
LOSSES = {"trl": "measured without dropout", "ema": "running mean, as training prints it"}
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


class UnknownTaskError(Exception):
    """A zoo's task has no known share of wrong labels."""


def read_networks(folder: Path) -> Networks | None:
    """The networks of a zoo that learned more than half; None for another kind of task.

    Raises:
        UnknownTaskError: if the zoo is of a task whose share of wrong labels is not known.
    """
    zoo = read_zoo(folder)
    name = zoo[0].task
    if not name.startswith(("mnist-mlp", "mnist-cnn")):
        return None
    known = MADE_ELSEWHERE.get(name, name)
    if known not in TASKS:
        raise UnknownTaskError(
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


def noisy_ones(zoos: Sequence[Networks]) -> list[Networks]:
    return [zoo for zoo in zoos if zoo.task.noise > 0.0]


def clean_ones(zoos: Sequence[Networks]) -> list[Networks]:
    return [zoo for zoo in zoos if zoo.task.noise == 0.0]


def count_noisy(zoos: Sequence[Networks]) -> dict[str, int]:
    """How many look noisy to `wwopt recommend`, by the kind of loss."""
    return {
        f"look noisy, loss {words}": sum(
            int((zoo.losses[key] > allow_loss(zoo.error)).sum()) for zoo in zoos
        )
        for key, words in LOSSES.items()
    }


def measure_area(noisy: Array, clean: Array, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Chance that a noisy network has the larger value, with its 95 % bootstrap interval.

    Of a single network nothing can be drawn: the bounds are NaN.
    """
    noisy, clean = noisy[np.isfinite(noisy)], clean[np.isfinite(clean)]
    if not (noisy.size and clean.size):
        return Interval(math.nan, math.nan, math.nan)

    def area(positive: Array, negative: Array) -> float:
        truth = np.repeat([1, 0], [positive.size, negative.size])
        return float(roc_auc_score(truth, np.concatenate([positive, negative])))

    if min(noisy.size, clean.size) < 2:
        return Interval(area(noisy, clean), math.nan, math.nan)
    return bootstrap_interval((noisy, clean), area, resamples=resamples, seed=seed)


def choose_limit(zoos: Sequence[Networks], key: str) -> tuple[float, float]:
    """Slope and offset that tell most noisy networks for the fewest clean ones."""
    grid = np.array(list(product(SLOPES, OFFSETS)))
    gaps = [float(np.subtract(*share_shown(zoos, key, *limit))) for limit in grid]
    best = grid[np.isclose(gaps, max(gaps))]
    slope, offset = best[np.square(best - best.mean(axis=0)).sum(axis=1).argmin()]
    return float(slope), float(offset)


def share_shown(
    zoos: Sequence[Networks], key: str, slope: float, offset: float
) -> tuple[float, float]:
    """Shares of the noisy networks, and of the clean ones, whose loss is above a limit."""

    def share(members: Sequence[Networks]) -> float:
        looks = [z.losses[key] > offset - slope * np.log(1.0 - z.error) for z in members]
        return float(np.concatenate(looks).mean())

    return share(noisy_ones(zoos)), share(clean_ones(zoos))
