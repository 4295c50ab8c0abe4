"""How well does a score order networks? Rank correlations, regrets, matched pairs, permutations.

A score is an array with one value a network, lower is better; so are errors and losses.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
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


def mean_interval(values: Array, *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean over seeds with its percentile bootstrap interval; paired, if of paired differences."""
    draws = np.random.default_rng(seed).choice(values, (resamples, values.size)).mean(axis=1)
    return _interval(float(values.mean()), draws)


def tau(score: Array, truth: Array) -> float:
    """Kendall's tau-b; NaN where either has fewer than two different values."""
    known = np.isfinite(score) & np.isfinite(truth)
    if known.sum() < 3 or np.ptp(score[known]) == 0.0 or np.ptp(truth[known]) == 0.0:
        return float("nan")
    return float(stats.kendalltau(score[known], truth[known]).statistic)


def tau_interval(score: Array, truth: Array, *, resamples: int = 400, seed: int = 0) -> Interval:
    """Tau with its percentile bootstrap interval, networks drawn with replacement."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(score), (resamples, len(score)))
    return _interval(tau(score, truth), np.array([tau(score[i], truth[i]) for i in draws]))


def paired_difference(
    first: Array, second: Array, truth: Array, *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Tau of the first score minus tau of the second, by a paired bootstrap over networks."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(truth), (resamples, len(truth)))
    found = [tau(first[i], truth[i]) - tau(second[i], truth[i]) for i in draws]
    return _interval(tau(first, truth) - tau(second, truth), np.array(found))


def pooled_difference(
    zoos: Sequence[tuple[Array, Array, Array]], *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Mean over zoos of a paired difference; networks are drawn again inside each zoo.

    Args:
        zoos: (first score, second score, truth) of each.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)

    def mean(draws: Sequence[NDArray[np.int64]]) -> float:
        pairs = zip(zoos, draws, strict=True)
        return float(np.nanmean([tau(a[i], t[i]) - tau(b[i], t[i]) for (a, b, t), i in pairs]))

    sizes = [len(truth) for *_, truth in zoos]
    value = mean([np.arange(n) for n in sizes])
    found = [mean([rng.integers(0, n, n) for n in sizes]) for _ in range(resamples)]
    return _interval(value, np.array(found))


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


def _interval(value: float, found: Array) -> Interval:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample may hold one value only
        low, high = np.nanquantile(found, [0.025, 0.975])
    return Interval(value, float(low), float(high))
