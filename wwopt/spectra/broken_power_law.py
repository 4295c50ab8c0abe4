"""Broken power law: a spectrum with two slopes, one below a break and another beyond it.

Model: density proportional to λ^-alpha_low from xmin to the break and to λ^-alpha_high beyond it,
continuous at the break. Fitted by maximum likelihood; the break is searched over quantiles. In
u = ln(λ/xmin) the law is two exponentials, so that three sums hold all that a break needs to know.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

MIN_SEGMENT = 10  # eigenvalues on either side of the break, and a tenth of all: fewer fit noise
_BREAKS = 16  # candidates; the likelihood is flat on the scale of their distance
_BOUNDS = [(-5.0, 60.0), (1.01, 60.0)]  # slopes; the last must be above 1 to have a norm


@dataclass(frozen=True, slots=True)
class BrokenPowerLawFit:
    """Two slopes on a given range of eigenvalues, and what they gain over one."""

    alpha_low: float  # exponent below the break, dimensionless
    alpha_high: float  # exponent beyond it
    xmin: float  # start of the range, units of the eigenvalues
    break_at: float  # the same units
    gain: float  # twice the log likelihood gained over the pure power law
    D: float  # two-sided KS distance between the range and the fit, in [0, 1]
    num_evals: int  # eigenvalues in the range


def fit_broken_power_law(tail: NDArray[np.float64]) -> BrokenPowerLawFit | None:
    """Fit two slopes and the break between them.

    Args:
        tail: eigenvalues from xmin on, all positive, in any order; xmin is the smallest.

    Returns:
        The fit, or None where a side of every break would be shorter than `MIN_SEGMENT` or the
        eigenvalues do not spread.
    """
    n = tail.size
    shortest = max(MIN_SEGMENT, math.ceil(n / 10))
    if n <= 2 * shortest:
        return None
    ordered = np.sort(tail)
    logs = np.log(ordered / ordered[0])
    if not logs.sum() > n * 1e-9:
        return None
    pure = 1.0 + n / float(logs.sum())
    pure_log_likelihood = n * math.log(pure - 1.0) - pure * float(logs.sum())
    best: tuple[float, int, float, float] | None = None
    for index in np.unique(np.linspace(shortest, n - shortest, _BREAKS).astype(int)):
        at = float(logs[index])
        if not at > 0.0:
            continue
        found = optimize.minimize(
            _cost,
            np.clip([pure, pure], 1.5, 50.0),
            args=(at, float(np.minimum(logs, at).mean()), float(np.maximum(logs - at, 0).mean())),
            method="L-BFGS-B",
            bounds=_BOUNDS,
        )
        if best is None or found.fun < best[0]:
            best = float(found.fun), int(index), float(found.x[0]), float(found.x[1])
    if best is None:
        return None
    cost, index, low, high = best
    below, beyond = _masses(low, high, float(logs[index]))
    partial = np.array([_masses(low, high, u)[0] for u in logs[: index + 1]])
    rest = beyond * np.exp((1.0 - high) * (logs[index + 1 :] - logs[index]))
    cdf = np.concatenate([partial, below + beyond - rest]) / (below + beyond)
    steps = np.arange(n) / n
    return BrokenPowerLawFit(
        alpha_low=low,
        alpha_high=high,
        xmin=float(ordered[0]),
        break_at=float(ordered[index]),
        gain=2.0 * (-n * cost - pure_log_likelihood),
        D=float(np.maximum(np.abs(cdf - steps), np.abs(cdf - steps - 1.0 / n)).max()),
        num_evals=n,
    )


def broken_density(fit: BrokenPowerLawFit, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Density of the fitted law, whose integral from xmin on is 1; `at` has its shape."""
    logs = np.log(at / fit.xmin)
    turn = math.log(fit.break_at / fit.xmin)
    total = sum(_masses(fit.alpha_low, fit.alpha_high, turn)) * fit.xmin
    slopes = fit.alpha_low * np.minimum(logs, turn) + fit.alpha_high * np.maximum(logs - turn, 0.0)
    return np.asarray(np.exp(-slopes) / total)


def _cost(slopes: NDArray[np.float64], at: float, below: float, beyond: float) -> float:
    """-log likelihood per eigenvalue; `below` and `beyond` are the mean logs up to the break."""
    low, high = float(slopes[0]), float(slopes[1])
    return low * below + high * beyond + math.log(sum(_masses(low, high, at)))


def _masses(low: float, high: float, at: float) -> tuple[float, float]:
    """∫ t^-low dt from 1 to e^at, and of the continuous t^-high beyond it."""
    rate = 1.0 - low
    below = at if abs(rate) < 1e-9 else math.expm1(rate * at) / rate
    return below, math.exp(rate * at) / (high - 1.0)
