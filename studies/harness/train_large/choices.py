"""Choose each size's learning rate and batch size, at equal CPU time, by validation data.

For each size and batch size short trainings walk along a grid of learning rates until the best one
has a worse one on either side. Then each batch size trains for the whole time with its rate, on a
seed that no table shows, and the best of them is the size's. So no size is judged with a rate or a
batch size that suits another one.
"""

import math
from collections.abc import Callable
from pathlib import Path

from harness.train_large.tasks import Parts, Size, Task
from harness.train_large.training import Recipe, Trained, train_or_read

SEARCH_SEED = 100
RATE_STEP = 2.5  # between two learning rates of the grid
FARTHEST = 6  # steps from the middle


def choose_recipes(task: Task, parts: Parts, folder: Path) -> dict[Size, dict[int, Trained]]:
    """Size → batch size → the network of the whole budget, at that batch size's best rate."""

    def run(size: Size, batch: int, rate: float, budget: float) -> Trained:
        recipe = Recipe(size, batch, rate, SEARCH_SEED, budget)
        return train_or_read(task, parts, recipe, folder)

    found: dict[Size, dict[int, Trained]] = {size: {} for size in task.sizes}
    middle = task.batches[len(task.batches) // 2]
    for batch in task.batches:
        for size in task.sizes:
            # Adam's rate goes with the root of the batch size (Malladi et al. 2022,
            # arXiv:2205.10287).
            start = task.middle_rate * math.sqrt(batch / middle)

            def try_rate(step: int, size=size, batch=batch, start=start) -> float:
                return run(size, batch, start * RATE_STEP**step, task.short).validation

            rate = start * RATE_STEP ** walk_to_minimum(try_rate)
            found[size][batch] = run(size, batch, rate, task.budget)
    return found


def best_recipe(by_batch: dict[int, Trained]) -> Recipe:
    """Of one size: that of the batch size whose network does best on validation data."""
    return min(by_batch.values(), key=lambda trained: trained.validation).recipe


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
