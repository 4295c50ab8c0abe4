"""Kendall's rank correlation of trials, its interval, and what chance alone would bring."""

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.95  # of intervals, and of what counts as chance

Floats = NDArray[np.float64]


def kendall(x: Floats, y: Floats) -> float:
    """Kendall's tau-b; NaN where one of them does not vary."""
    from scipy import stats

    if x.size < 2 or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return math.nan
    return float(stats.kendalltau(x, y).statistic)


def bootstrap_interval(x: Floats, y: Floats, *, resamples: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap of tau-b over trials.

    Args:
        x: shape (n,).
        y: shape (n,).
        resamples: of the trials.
        seed: of them; the same one draws the same trials for every pair of n.

    Returns:
        The middle 95 % of the resamples' tau-b; NaN where none of them varies.
    """
    from scipy import stats

    if x.size < 2:
        return math.nan, math.nan
    with warnings.catch_warnings():
        # Of a resample in which a column is constant: its tau is NaN, and left out below.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (x, y), _tau, paired=True, n_resamples=resamples, method="percentile", rng=seed
        )
    taus = found.bootstrap_distribution
    taus = taus[np.isfinite(taus)]
    if taus.size == 0:
        return math.nan, math.nan
    tail = 100.0 * (1.0 - COVERAGE) / 2.0
    low, high = np.percentile(taus, [tail, 100.0 - tail])
    return float(low), float(high)


def _tau(x: Floats, y: Floats, axis: int) -> Any:
    from scipy import stats

    return stats.kendalltau(x, y, axis=axis).statistic


def chance_level(trials: int, count: int) -> float:
    """|tau| that the largest of `count` unrelated hyperparameters stays below in 95 % of studies.

    Kendall's tau of n unrelated pairs is normal with variance 2(2n + 5)/(9n(n - 1)) (Kendall 1938),
    good from about 10 trials on; Bonferroni's bound for several.
    """
    if trials < 2 or count < 1:
        return math.nan
    from scipy import stats  # takes longer to import than a study to read

    deviation = math.sqrt(2 * (2 * trials + 5) / (9 * trials * (trials - 1)))
    quantile = float(stats.norm.isf((1.0 - COVERAGE) / (2 * count)))
    return min(1.0, quantile * deviation)
