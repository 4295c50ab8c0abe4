"""How well does a score order networks? Rank correlations, regrets, matched pairs, permutations.

A score is an array with one value a network, lower is better; so are errors and losses.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95 % bootstrap interval, over networks or over seeds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]".replace("+", "")

    def __format__(self, spec: str) -> str:
        """All three numbers in the given format, as in f"{interval:+.2f}"."""
        if not spec:
            return str(self)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap_interval(
    samples: Sequence[Array],
    statistic: Callable[..., ArrayLike],
    *,
    resamples: int,
    seed: int,
    paired: bool = False,
) -> Interval:
    """A statistic with its percentile bootstrap interval; NaN of a resample are left out.

    Args:
        samples: its arguments, whose observations are drawn again, with replacement.
        statistic: one number of a resample, NaN where it has none; see `resample`.
        resamples: how many.
        seed: of the draws.
        paired: the samples are columns of one table, whose rows are drawn.

    Returns:
        An interval without width where a sample has a single observation: nothing can be drawn.
    """
    value = float(statistic(*samples))
    if min(map(len, samples)) < 2:
        return Interval(value, value, value)
    found = resample(samples, statistic, resamples=resamples, seed=seed, paired=paired)
    return Interval(value, *find_bounds(found))


def resample(
    samples: Sequence[Array],
    statistic: Callable[..., ArrayLike],
    *,
    resamples: int,
    seed: int,
    paired: bool = False,
) -> Array:
    """The bootstrap distribution of a statistic, of one number or several, shape (..., resamples).

    Args:
        samples: its arguments, of two observations or more each.
        statistic: of a resample; one that has an `axis` is asked once, for all of them.
        resamples: how many.
        seed: of the draws.
        paired: the samples are columns of one table, whose rows are drawn.
    """
    with warnings.catch_warnings():
        # A statistic that is NaN for some resample has no interval of scipy's, which is not used.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            samples,
            statistic,
            n_resamples=resamples,
            paired=paired,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return found.bootstrap_distribution


def find_bounds(found: Array) -> tuple[float, float]:
    """The middle 95 % of a bootstrap distribution, shape (resamples,); NaN are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample may hold one value only
        low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


def mean_interval(values: Array, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean over seeds with its percentile bootstrap interval; paired, if of paired differences."""
    return bootstrap_interval((values,), np.mean, resamples=resamples, seed=seed)


def tau(score: Array, truth: Array) -> float:
    """Kendall's tau-b; NaN where either has fewer than two different values."""
    known = np.isfinite(score) & np.isfinite(truth)
    if known.sum() < 3 or np.ptp(score[known]) == 0.0 or np.ptp(truth[known]) == 0.0:
        return float("nan")
    return float(stats.kendalltau(score[known], truth[known]).statistic)


def tau_interval(score: Array, truth: Array, *, resamples: int = 400, seed: int = 0) -> Interval:
    """Tau with its percentile bootstrap interval, networks drawn with replacement."""
    return bootstrap_interval((score, truth), tau, resamples=resamples, seed=seed, paired=True)


def paired_difference(
    first: Array, second: Array, truth: Array, *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Tau of the first score minus tau of the second, by a paired bootstrap over networks."""
    return bootstrap_interval(
        (first, second, truth), _difference, resamples=resamples, seed=seed, paired=True
    )


def pooled_difference(
    zoos: Sequence[tuple[Array, Array, Array]], *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Mean over zoos of a paired difference; networks are drawn again inside each zoo.

    Args:
        zoos: (first score, second score, truth) of each.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    zoos = [zoo for zoo in zoos if len(zoo[-1]) > 1]  # one network has no tau: nothing to draw
    if not zoos:
        return Interval(math.nan, math.nan, math.nan)

    def mean(*rows: NDArray[np.int64]) -> float:
        pairs = zip(zoos, rows, strict=True)
        return float(np.nanmean([_difference(a[i], b[i], t[i]) for (a, b, t), i in pairs]))

    # Rows are drawn, not values: those of a zoo's three arrays go together.
    every = [np.arange(len(truth)) for *_, truth in zoos]
    return bootstrap_interval(every, mean, resamples=resamples, seed=seed)


def _difference(first: Array, second: Array, truth: Array) -> float:
    return tau(first, truth) - tau(second, truth)


def regret(score: Array, error: Array, *, top: int = 1) -> float:
    """Points of error lost by taking the best `top` networks by score, not by error (their mean).

    Ties, and scores that are not finite, count as the networks come.
    """
    order = np.argsort(np.where(np.isfinite(score), score, np.inf), kind="stable")
    return float(100.0 * (error[order[:top]].mean() - np.sort(error)[:top].mean()))


def matched_pairs(score: Array, loss: Array, test_loss: Array) -> tuple[float, int]:
    """Among pairs of (nearly) equal training loss, how often has the better score the lower one?

    Pairs are neighbours in the order of the training loss that differ by less than a tenth.

    Returns:
        The share of pairs told right, and how many pairs there were.
    """
    order = np.argsort(loss)
    pairs = [
        (a, b)
        for a, b in pairwise(order)
        if loss[b] - loss[a] <= 0.1 * loss[b] and np.isfinite(score[[a, b]]).all()
    ]
    right = [(score[a] < score[b]) == (test_loss[a] < test_loss[b]) for a, b in pairs]
    return (float(np.mean(right)) if right else float("nan"), len(right))


def permutation_threshold(
    scores: Mapping[str, Array], truth: Array, *, permutations: int = 200, seed: int = 0
) -> float:
    """The tau that the best of all candidates reaches by luck in one of twenty permutations."""
    rng = np.random.default_rng(seed)
    best = []
    for _ in range(permutations):
        shuffled = rng.permutation(truth)
        taus = [tau(score, shuffled) for score in scores.values()]
        best.append(np.nanmax(taus))
    return float(np.quantile(best, 0.95))
