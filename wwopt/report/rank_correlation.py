"""Kendall's rank correlation of trials, its interval, and what chance alone would bring."""

import math

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


def bootstrap_interval(x: Floats, y: Floats, draws: NDArray[np.int64]) -> tuple[float, float]:
    """Percentile bootstrap over trials; all resamples at once, from the signs of all pairs.

    A resample's pairs are those of the trials, counted as often as both were drawn; a trial makes
    no pair with itself.

    Args:
        x: shape (n,).
        y: shape (n,).
        draws: trials of every resample, shape (resamples, n).

    Returns:
        The middle 95 % of the resamples' tau-b; NaN where none of them varies.
    """
    n = x.size
    with np.errstate(invalid="ignore"):
        signs_x, signs_y = (np.nan_to_num(np.sign(v[:, None] - v[None, :])) for v in (x, y))
    counts = np.zeros((len(draws), n))
    np.add.at(counts, (np.arange(len(draws))[:, None], draws), 1.0)
    together, both_x, both_y = (
        np.einsum("ri,ri->r", counts @ signs, counts)
        for signs in (signs_x * signs_y, signs_x**2, signs_y**2)
    )
    scale = np.sqrt(both_x * both_y)
    taus = together[scale > 0.0] / scale[scale > 0.0]
    if taus.size == 0:
        return math.nan, math.nan
    tail = 100.0 * (1.0 - COVERAGE) / 2.0
    low, high = np.percentile(taus, [tail, 100.0 - tail])
    return float(low), float(high)


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
