"""Learning curves: a metric with more data, a larger model or longer training, from below.

Along each of the three the metric is measured at fractions of today's and forecast beyond them. In
logarithms (log-odds of an error, plain units where values are not positive) every doubling brings

    r times what the one before it brought,    r = .75 ± .4 unless more is known (see `gains`)

which is a local trend that is damped (Gardner & McKenzie 1985, "Forecasting trends in time series",
Management Science 31). A power law has r = 1, one with a floor r < 1, a curve that
has only begun to fall r > 1. No family is assumed, as none fits all (Viering & Loog 2021). Tails
are those of Student's t with `DEGREES` degrees of freedom, for the some 15 % of
curves that do not behave (LCDB 1.1).

All is Gaussian and linear once the curve's own scale is known, so the posterior has a closed form.
Forecasts reach at most four times what was measured: what is further away is a guess.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Scale = Literal["log", "odds", "plain"]  # in which a doubling brings what the one before brought

MAX_FACTOR = 4.0  # of what was measured; extrapolating further is a guess
DEGREES = 4.0
USUAL_SPREAD = 0.5  # of the usual fall from curve to curve, relative
RISE = 2.0  # standard errors that a curve must rise by to be called ill-behaved
LEAST = 1e-4  # error that log-odds are taken of at least


@dataclass(frozen=True)
class Trend:
    """How the falls of a curve follow each other, doubling by doubling, on its scale."""

    damping: float = 0.75  # share of a fall, above the usual one, that the next doubling keeps
    spread: float = 0.4  # of that share
    usual: float = 0.0  # fall that doublings come back to, on most curves


@dataclass(frozen=True)
class LearningCurve:
    """A metric, lower is better, by the share of today's, and draws of its true course."""

    shares: Array  # (k,), ascending, of today's data, width or epochs
    means: Array  # (k,)
    errors: Array  # (k,), standard errors of the means
    nodes: Array  # (n,), ascending: the shares, and doublings beyond them
    levels: Array  # (draws, n), of the metric on its scale
    scale: Scale
    unit: float  # that the scale is of: the most that an error can be, else 1
    ill_behaved: str  # why the curve is not to be extrapolated; "" where it may be

    def predict(self, share: float | Sequence[float] | Array) -> Array:
        """Draws of the metric at shares of today's: shape (draws, shares).

        Raises:
            ValueError: beyond four times the largest share that was measured.
        """
        x = np.atleast_1d(np.asarray(share, dtype=np.float64))
        if x.max() > self.nodes[-1] * (1 + 1e-9):
            raise ValueError(
                f"{x.max():g} times today's is beyond {MAX_FACTOR:g} times what was measured"
            )
        place = np.interp(np.log2(x), np.log2(self.nodes), np.arange(self.nodes.size))
        left = np.minimum(place.astype(int), self.nodes.size - 2)
        part = place - left
        found = (1.0 - part) * self.levels[:, left] + part * self.levels[:, left + 1]
        return self.unit * _to_metric(found, self.scale)

    def gain(self, factor: float) -> Array:
        """Draws of how much the metric falls from today to `factor` times as much."""
        at = self.predict([1.0, factor])
        return np.asarray(at[:, 0] - at[:, 1])

    def enough(self, worth_it: float) -> float | None:
        """Multiple of today's whose next doubling brings less than `worth_it` at the median.

        None if that is beyond what can be forecast. Below 1: a part of today's was enough.
        """
        # The next doubling must itself stay within the forecast.
        shares = np.geomspace(self.shares.min(), 0.5 * self.nodes[-1], 49)
        gains = np.median(self.predict(shares) - self.predict(2.0 * shares), axis=0)
        less = np.flatnonzero(gains < worth_it)
        return float(shares[less[0]]) if less.size else None


def fit_learning_curve(
    points: Mapping[float, Sequence[float]],
    *,
    noise: float,
    relative: bool | None = None,
    most: float = math.inf,
    draws: int = 2000,
    trend: Trend = Trend(),
    validation: float | None = None,
    seed: int = 0,
) -> LearningCurve:
    """Filter the trend of a curve and forecast it.

    Args:
        points: share of today's → the metric of each training there, lower is better.
        noise: standard deviation between trainings that differ by their seed, relative to the
            metric (of an error in log-odds) or absolute.
        relative: whether the noise is; None where all values are positive.
        most: value that the metric ends at, 1 for a share of mistakes; infinity for a loss.
        draws: of the curve.
        trend: of the doublings.
        validation: examples behind the metric, where it is an error: their choice adds noise.
        seed: of the draws.

    Raises:
        ValueError: on fewer than two shares, shares that are not positive, and values or noise
            that are not finite.
    """
    if len(points) < 2:
        raise ValueError(f"a learning curve needs at least 2 shares, got {len(points)}: run probes")
    if not 0.0 < min(points) <= max(points) < math.inf:
        raise ValueError(f"shares must be positive, got {min(points):g}")
    empty = [share for share, values in points.items() if len(values) == 0]
    if empty:
        raise ValueError(f"the learning curve has no values at {empty[0]:g} of today's")
    if not 0.0 <= noise < math.inf:
        raise ValueError(f"the noise must be finite and not negative, got {noise}")
    shares = np.array(sorted(points), dtype=np.float64)
    means = np.array([np.mean(points[share]) for share in shares])
    if not np.isfinite(means).all():
        raise ValueError(f"values of the learning curve are not finite: {means.tolist()}")
    positive = bool((means > 0.0).all()) and relative is not False
    counts = np.array([len(points[share]) for share in shares])
    scale: Scale = "plain" if not positive else "odds" if means.max() < most < math.inf else "log"
    unit = most if scale == "odds" else 1.0
    deviations = unit * noise / _slope(means / unit, scale) / np.sqrt(counts)
    if validation is not None:
        # Of two networks' errors on the same examples about half of the mistakes are shared.
        deviations = np.hypot(deviations, np.sqrt(0.25 * np.maximum(means, 0.0) / validation))
    seen = _to_scale(means / unit, scale)
    sizes = deviations / unit * _slope(means / unit, scale)
    nodes = np.concatenate([shares, shares[-1] * np.array([2.0, MAX_FACTOR])])
    levels = _draw_levels(
        nodes,
        seen,
        sizes,
        trend=trend,
        draws=draws,
        rng=np.random.default_rng(seed),
    )
    return LearningCurve(
        shares, means, deviations, nodes, levels, scale, unit, _find_ill(shares, means, deviations)
    )


def _draw_levels(
    nodes: Array,
    seen: Array,
    errors: Array,
    *,
    trend: Trend,
    draws: int,
    rng: np.random.Generator,
) -> Array:
    """Draws of the curve's course at all nodes, the first of which were seen: (draws, nodes).

    Linear in a first level, a first fall, what is new in each further fall and this curve's own
    usual fall, which are independent and Gaussian before anything is seen.
    """
    size, steps = nodes.size, np.diff(np.log2(nodes))  # doublings
    falls = -np.diff(seen) / steps[: seen.size - 1]
    unit = math.sqrt(float(np.mean(falls**2))) + 1e-12  # how much a doubling moves this curve
    rates = np.zeros((size - 1, size + 1))  # fall of each doubling, by what it is made of
    rates[0, 1] = 1.0
    drift = np.zeros(size - 1)
    for i in range(1, size - 1):
        apart = 0.5 * (steps[i - 1] + steps[i])
        kept = trend.damping**apart
        rates[i] = kept * rates[i - 1]
        rates[i, i + 1] = trend.spread * unit * math.sqrt(apart)
        rates[i, size] += (1.0 - kept) * USUAL_SPREAD * trend.usual
        drift[i] = kept * drift[i - 1] + (1.0 - kept) * trend.usual
    course = np.zeros((size, size + 1))
    course[:, 0] = 1.0
    course[1:] -= np.cumsum(steps[:, None] * rates, axis=0)
    given = np.concatenate([[0.0], -np.cumsum(steps * drift)])
    centre = np.zeros(size + 1)
    centre[:2] = seen[0], unit
    widths = np.ones(size + 1)
    widths[:2] = 10.0 * (unit + errors[0]), 1.5 * unit
    view = course[: seen.size]
    spreads = np.maximum(errors, 1e-6 * (unit + 1e-6))
    whitened = view / spreads[:, None]
    covariance = np.linalg.inv(np.diag(widths**-2.0) + whitened.T @ whitened)
    mean = centre + covariance @ (
        whitened.T @ ((seen - given[: seen.size] - view @ centre) / spreads)
    )
    values, vectors = np.linalg.eigh(course @ covariance @ course.T)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    tails = np.sqrt(DEGREES / rng.chisquare(DEGREES, size=(draws, 1)))
    drawn: Array = given + course @ mean + tails * (rng.standard_normal((draws, size)) @ root.T)
    return drawn


def _to_scale(values: Array, scale: Scale) -> Array:
    if scale == "plain":
        return values
    if scale == "log":
        return np.asarray(np.log(values))
    kept = np.maximum(values, LEAST)
    return np.asarray(np.log(kept / (1.0 - kept)))


def _to_metric(levels: Array, scale: Scale) -> Array:
    if scale == "plain":
        return levels
    if scale == "log":
        return np.asarray(np.exp(levels))
    return np.asarray(1.0 / (1.0 + np.exp(-levels)))


def _slope(values: Array, scale: Scale) -> Array:
    """Of the scale by the metric."""
    if scale == "plain":
        return np.ones_like(values)
    kept = np.maximum(values, LEAST)
    return np.asarray(1.0 / kept if scale == "log" else 1.0 / (kept * (1.0 - kept)))


def _find_ill(shares: Array, means: Array, errors: Array) -> str:
    rises = np.diff(means) - RISE * np.hypot(errors[1:], errors[:-1])
    worst = int(np.argmax(rises))
    if rises[worst] > 0.0:
        return (
            f"it rises from {means[worst]:.4g} to {means[worst + 1]:.4g} between "
            f"{shares[worst]:g} and {shares[worst + 1]:g}"
        )
    return ""
