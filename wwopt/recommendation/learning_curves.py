"""Learning curves: what a metric would be with more data, from trainings on parts of today's.

No one family fits all curves (Viering & Loog 2021), so several are weighed by how well they explain
the points, and the forecast is drawn from all of them. Each family is linear but for one shape:

    power        a + b·x^-c            x: data in units of today's
    exponential  a + b·exp(-c·x)
    sigmoid      a + b/(1 + (c·x)²)    Morgan-Mercer-Flodin's, of exponent 2
    flat         a                     prior weight .15: more data may bring nothing

Given family and c, the posterior of (a, b) is Gaussian in closed form, and so is the weight of the
pair. Forecasts reach at most four times today's data: what is further away was not measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_FACTOR = 4.0  # of today's data; extrapolating further is a guess
FLAT_PRIOR = 0.15  # LCDB 1.1: 14 to 15 % of curves do not behave
DISCREPANCY = 0.06  # standard deviation of real curves around any family, relative
FLOOR = (0.25, 0.4)  # what is left with endless data, of today's metric: mean, standard deviation
POWERS = np.geomspace(0.1, 2.0, 16)  # exponents c; .3 to 1 are common
RATES = np.geomspace(0.3, 10.0, 12)  # of exponentials and sigmoids: c of 1 bends today
RISE = 2.0  # standard errors that a curve must rise by to be called ill-behaved
MISFIT = 3.0  # root mean square of standardised residuals from which no family fits


@dataclass(frozen=True)
class LearningCurve:
    """A metric, lower is better, by the share of today's data, and draws of its true course."""

    shares: Array  # (k,), ascending, of today's data
    means: Array  # (k,)
    errors: Array  # (k,), standard errors of the means
    shapes: Array  # (draws, 2), family's index and c
    weights: Array  # (draws, 2), a and b
    ill_behaved: str  # why the curve is not to be extrapolated; "" where it may be

    def predict(self, share: float | Sequence[float] | Array) -> Array:
        """Draws of the metric at shares of today's data: shape (draws, shares).

        Raises:
            ValueError: beyond four times the largest share that was measured.
        """
        x = np.atleast_1d(np.asarray(share, dtype=np.float64))
        if x.max() > MAX_FACTOR * self.shares.max() * (1 + 1e-9):
            raise ValueError(
                f"{x.max():g} times today's data is beyond {MAX_FACTOR:g} times what was measured"
            )
        families, c = self.shapes[:, :1].astype(int), self.shapes[:, 1:]
        basis = np.choose(families, [_basis(family, c, x[None, :]) for family in range(4)])
        curve: Array = self.weights[:, :1] + self.weights[:, 1:] * basis
        return curve

    def gain(self, factor: float) -> Array:
        """Draws of how much the metric falls from today's data to `factor` times as much."""
        at = self.predict([1.0, factor])
        return np.asarray(at[:, 0] - at[:, 1])

    def enough(self, worth_it: float) -> float | None:
        """Multiple of today's data whose next doubling brings less than `worth_it` in the mean.

        None if that is beyond what can be forecast. Below 1: a part of today's data was enough.
        """
        # The next doubling must itself stay within the forecast.
        shares = np.geomspace(self.shares.min(), 0.5 * MAX_FACTOR * self.shares.max(), 49)
        gains = (self.predict(shares) - self.predict(2.0 * shares)).mean(axis=0)
        less = np.flatnonzero(gains < worth_it)
        return float(shares[less[0]]) if less.size else None


def fit_learning_curve(
    points: Mapping[float, Sequence[float]],
    *,
    noise: float,
    relative: bool | None = None,
    draws: int = 2000,
    discrepancy: float = DISCREPANCY,
    validation: float | None = None,
    seed: int = 0,
) -> LearningCurve:
    """Fit all families.

    Args:
        points: share of today's data → the metric of each training on it, lower is better.
        noise: standard deviation between trainings that differ by their seed, relative to the
            metric or absolute.
        relative: whether the noise is; None where all values are positive.
        draws: of the curve.
        validation: examples behind the metric, where it is an error: their choice adds noise.
        discrepancy: of real curves from the families, relative or absolute as the noise.
        seed: of the draws.

    Raises:
        ValueError: on fewer than three shares, shares that are not positive, and values or noise
            that are not finite.
    """
    if len(points) < 3:
        raise ValueError(
            f"a learning curve needs at least 3 shares of the data, got {len(points)}: run probes"
        )
    if not 0.0 < min(points) <= max(points) < math.inf:
        raise ValueError(f"shares of the data must be positive, got {min(points):g}")
    empty = [share for share, values in points.items() if len(values) == 0]
    if empty:
        raise ValueError(f"the learning curve has no values at {empty[0]:g} of the data")
    if not 0.0 <= noise < math.inf:
        raise ValueError(f"the noise must be finite and not negative, got {noise}")
    shares = np.array(sorted(points), dtype=np.float64)
    means = np.array([np.mean(points[share]) for share in shares])
    if not np.isfinite(means).all():
        raise ValueError(f"values of the learning curve are not finite: {means.tolist()}")
    positive = bool((means > 0.0).all()) and relative is not False
    scale = means if positive else np.ones_like(means)
    counts = np.array([len(points[share]) for share in shares])
    errors = scale * noise / np.sqrt(counts)
    if validation is not None:
        # Of two networks' errors on the same examples about half of the mistakes are shared.
        errors = np.hypot(errors, np.sqrt(0.25 * np.maximum(means, 0.0) / validation))
    spread = np.sqrt(errors**2 + (discrepancy * scale) ** 2)
    shapes_of = (POWERS, RATES, RATES, np.zeros(1))
    models = [
        _explain(family, float(c), shares, means, spread, positive=positive)
        for family, grid in enumerate(shapes_of)
        for c in grid
    ]
    log_weights = np.array([model.log_weight for model in models])
    chances = np.exp(log_weights - log_weights.max())
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(models), size=draws, p=chances / chances.sum())
    weights = np.array([models[index].draw(rng, positive) for index in chosen])
    shapes = np.array([[models[index].family, models[index].c] for index in chosen])
    misfit = min(model.misfit for model in models)
    return LearningCurve(
        shares, means, errors, shapes, weights, _find_ill(shares, means, errors, misfit)
    )


@dataclass(frozen=True)
class _Model:
    """A family with its shape: the posterior of (a, b), and its weight among all."""

    family: int
    c: float
    log_weight: float
    mean: Array  # (2,)
    root: Array  # (2, 2), a square root of the covariance
    misfit: float  # root mean square of the standardised residuals

    def draw(self, rng: np.random.Generator, positive: bool) -> Array:
        """One (a, b); b is never negative, a not where the metric cannot be."""
        for _ in range(50):
            found = self.mean + self.root @ rng.standard_normal(2)
            if found[1] >= 0.0 and (found[0] >= 0.0 or not positive):
                return found
        return np.array([max(self.mean[0], 0.0) if positive else self.mean[0], 0.0])


def _explain(family: int, c: float, x: Array, y: Array, spread: Array, *, positive: bool) -> _Model:
    """Conjugate Gaussian regression on (1, basis) with a broad prior in units of the metric."""
    design = np.stack([np.ones_like(x), _basis(family, np.asarray(c), x)], axis=1)
    last, fall = y[-1], max(float(np.ptp(y)), 1e-9)
    unit = abs(last) if positive else fall
    # A floor somewhere below today's value, a fall that is of the size of what was seen.
    centre = np.array([FLOOR[0] * unit if positive else last, 0.5 * fall])
    width = np.array([FLOOR[1] * unit, fall]) if family != _FLAT else np.array([2.0 * unit, 1e-12])
    if family == _FLAT:
        centre = np.array([last, 0.0])
    whitened, residual = design / spread[:, None], (y - design @ centre) / spread
    precision = np.diag(width**-2.0) + whitened.T @ whitened
    covariance = np.linalg.inv(precision)
    shift = covariance @ (whitened.T @ residual)
    left = residual - whitened @ shift
    evidence = -0.5 * (
        float(residual @ residual)
        - float(shift @ precision @ shift)
        + math.log(np.linalg.det(precision))
        + 2.0 * float(np.log(width).sum())
    )
    prior = math.log(FLAT_PRIOR if family == _FLAT else (1 - FLAT_PRIOR) / 3 / _SIZES[family])
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return _Model(
        family, float(c), evidence + prior, centre + shift, root, math.sqrt(np.mean(left**2))
    )


_FLAT = 3
_SIZES = (len(POWERS), len(RATES), len(RATES), 1)


def _basis(family: int, c: Array, x: Array) -> Array:
    if family == 0:
        return np.asarray(x**-c)
    if family == 1:
        return np.asarray(np.exp(-c * x))
    if family == 2:
        return np.asarray(1.0 / (1.0 + (c * x) ** 2))
    return np.zeros(np.broadcast(c, x).shape)


def _find_ill(shares: Array, means: Array, errors: Array, misfit: float) -> str:
    rises = np.diff(means) - RISE * np.hypot(errors[1:], errors[:-1])
    worst = int(np.argmax(rises))
    if rises[worst] > 0.0:
        return (
            f"it rises from {means[worst]:.4g} to {means[worst + 1]:.4g} between "
            f"{shares[worst]:g} and {shares[worst + 1]:g} of the data"
        )
    if misfit > MISFIT:
        return f"no family fits it: residuals of {misfit:.1f} standard errors"
    return ""
