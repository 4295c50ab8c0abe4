"""Choose depth, batch size and learning rate of each width, at equal CPU time, by validation data.

For a size and a batch size short trainings walk along a grid of learning rates until the best one
has a worse one on either side; then the size trains for the whole time with it. That is done with
the first batch size for all sizes. Of each width the better depth goes on to the other batch sizes,
but for those with which it would take too few steps. The best width, those below it and the next
above it are the finalists: what is worse than a smaller network as it was trained does not win by
compression. Since short trainings favour large rates, each finalist is trained once more, at its
batch size, with the next smaller one. All on a seed that judges nothing. So no size is judged with
a depth, a rate or a batch size that suits another one.
"""

import math
from collections.abc import Callable
from pathlib import Path

from harness.train_large.tasks import Parts, Size, Task
from harness.train_large.training import Recipe, Trained, train_or_read

SEARCH_SEED = 100
RATE_STEP = 2.5  # between two learning rates of the grid
FARTHEST = 6  # steps from the middle
FEWEST = 100  # steps of a training; with fewer, no schedule has room
Networks = dict[Size, dict[int, Trained]]  # size → batch size → network of the whole budget


def train_candidates(task: Task, parts: Parts, folder: Path) -> Networks:
    """Every size with the first batch size, the finalists with all: each at its best rate."""

    def run(size: Size, batch: int, rate: float, budget: float) -> Trained:
        recipe = Recipe(size, batch, rate, SEARCH_SEED, budget)
        return train_or_read(task, parts, recipe, folder)

    def start_rate(batch: int) -> float:
        # Adam's rate goes with the root of the batch size (Malladi et al. 2022, arXiv:2205.10287).
        return task.middle_rate * math.sqrt(batch / task.batches[1])

    def has_steps(size: Size, batch: int) -> bool:
        first = run(size, batch, start_rate(batch), task.short)
        return first.steps / task.short * task.budget >= FEWEST

    def run_at_best_rate(size: Size, batch: int) -> Trained:
        start = start_rate(batch)

        def try_rate(step: int) -> float:
            return run(size, batch, start * RATE_STEP**step, task.short).validation

        return run(size, batch, start * RATE_STEP ** walk_to_minimum(try_rate), task.budget)

    first, *others = task.batches
    found: Networks = {size: {first: run_at_best_rate(size, first)} for size in task.sizes}
    for batch in others:
        for size in find_better_depths(found):
            if has_steps(size, batch):
                found[size][batch] = run_at_best_rate(size, batch)
    for size in find_finalists(found):
        best = best_of(found[size])
        recipe = best.recipe
        lower = run(size, recipe.batch, recipe.rate / RATE_STEP, task.budget)
        found[size][recipe.batch] = min(best, lower, key=lambda trained: trained.validation)
    return found


def find_finalists(found: Networks) -> tuple[Size, ...]:
    """The better depths of the best width, of those below it, and of the next above it."""
    sizes = find_better_depths(found)
    best = min(sizes, key=lambda size: best_of(found[size]).validation)
    return sizes[: sizes.index(best) + 2]


def find_better_depths(found: Networks) -> tuple[Size, ...]:
    """Of each width the better depth, both with the first batch size; in the order of widths."""
    best: dict[int, Trained] = {}
    for by_batch in found.values():
        trained = next(iter(by_batch.values()))
        width = trained.recipe.size[0]
        best[width] = min(best.get(width, trained), trained, key=lambda each: each.validation)
    return tuple(trained.recipe.size for trained in best.values())


def best_of(by_batch: dict[int, Trained]) -> Trained:
    """Of one size: the network of the batch size with which it does best on validation data."""
    return min(by_batch.values(), key=lambda trained: trained.validation)


def walk_to_minimum(value: Callable[[int], float]) -> int:
    """From 0, downhill in steps of one, to where both neighbours are no better.

    Raises:
        ValueError: if the lowest value is further away than `FARTHEST` steps.
    """
    seen: dict[int, float] = {}

    def at(step: int) -> float:
        if step not in seen:
            found = value(step)
            seen[step] = found if math.isfinite(found) else math.inf
        return seen[step]

    step = 0
    while abs(step) < FARTHEST:
        best = min((step, step - 1, step + 1), key=at)
        if best == step:
            return step
        step = best
    raise ValueError(f"no lowest value within {FARTHEST} steps: {seen}")
