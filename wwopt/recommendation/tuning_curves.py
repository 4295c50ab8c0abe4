"""Tuning curves: how much further the best trial would fall with more trials.

The lower half of the trials' values, in logarithms where all are positive, is taken as a bounded
tail: around a smooth optimum of d hyperparameters that matter, the share of random trials within y
of it grows as y^(d/2), so that a trial below the tail's start s lies at s - b·(1 - U^(2/d)) with U
uniform and b the distance to the bound (a generalised Pareto tail). What a trial shows is partly
luck of its seed, and the best of many is the luckiest: draws are made of the true values, the luck
of each is drawn anew, and what was chosen for its luck gains nothing.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wwopt.recommendation.probes import MIN_TRIALS

Array = NDArray[np.float64]

TAIL = 0.5  # share of the trials that are its tail
PRIOR_SCALE = 0.07  # mean excess of the tail, in units of what there is to gain
PRIOR_TRIALS = 3.0  # that the prior counts as
BOUND = 0.7  # 2/d: three hyperparameters that matter
# The bound lies beyond the best trial: from just there to twice as far from the tail's start. That,
# the prior and `KEPT` were chosen on all waves of studies/data_or_tune.py.
BEYOND = (1.0, 2.0)
# Share of the improvement that a search finds, from none of it to all.
KEPT = (0.0, 1.0)


def draw_tuning_gain(
    values: Sequence[float],
    more: int,
    *,
    noise: float,
    now: Array,
    reached: Array,
    relative: bool | None = None,
    span: float = 1.0,
    draws: int = 2000,
    seed: int = 0,
) -> Array:
    """Draws of how much the best configuration improves with more trials: shape (draws,).

    Args:
        values: of the finished trials, lower is better.
        more: further trials.
        noise: standard deviation between trainings that differ by their seed, relative to the
            metric or absolute.
        now: draws of what the best configuration is worth as it is, (draws,).
        reached: draws of the lowest that was reached beside the trials, (draws,); at most `now`.
        relative: whether the noise is; None where all values are positive.
        span: what there is to gain, in units of `now`; read where the noise is relative.
        draws: how many.
        seed: of the draws.

    Raises:
        ValueError: on fewer than three finite values, or no further trials.
    """
    if more < 1:
        raise ValueError(f"more trials must be at least 1, got {more}")
    finite = np.array([v for v in values if math.isfinite(v)])
    if finite.size < MIN_TRIALS:
        raise ValueError(
            f"a tuning curve needs {MIN_TRIALS} finished trials, there are {finite.size}"
        )
    positive = bool((finite > 0.0).all() and np.median(now) > 0.0) and relative is not False
    seen = np.sort(np.log(finite) if positive else finite)
    rng = np.random.default_rng(seed)
    tail = max(2, math.ceil(TAIL * seen.size))
    start = seen[min(tail, seen.size - 1)]
    excess = start - seen[:tail]
    # Luck widens the tail: of an exponential with noise the mean excess grows in quadrature.
    prior = PRIOR_SCALE * span if positive else float(np.std(seen)) / 2.0
    total = float(excess.sum()) + PRIOR_TRIALS * prior
    scales = total / rng.gamma(tail + PRIOR_TRIALS, 1.0, size=draws)
    scales = np.sqrt(np.maximum(scales**2 - noise**2, (0.1 * scales) ** 2))
    luck = noise * math.sqrt(2.0 * math.log(seen.size))  # of the best of so many, about
    bound = (float(excess.max()) - luck) * rng.uniform(*BEYOND, size=draws)
    scales = np.maximum(scales, BOUND / (1.0 + BOUND) * bound)
    below = rng.binomial(max(1, more), tail / seen.size, size=draws)
    found = np.full(draws, np.inf)
    shown = np.full(draws, np.inf)
    for index in range(int(below.max())):
        here = index < below
        true = start - (1.0 + BOUND) / BOUND * scales * (1.0 - rng.random(draws) ** BOUND)
        lucky = true + noise * rng.standard_normal(draws)
        better = here & (lucky < shown)
        found, shown = np.where(better, true, found), np.where(better, lucky, shown)
    # The better of the two is kept, once the new one has been trained again.
    share = rng.uniform(*KEPT, size=draws)
    if positive:
        least = np.maximum(reached, 0.0)  # draws of what a small loss is worth may be below
        fall = np.maximum(np.log(np.where(least > 0.0, least, 1.0)) - found, 0.0)
        further = -np.expm1(-share * fall) * least
    else:
        further = share * (reached - np.minimum(found, reached))
    gain: Array = now - reached + further
    return gain
