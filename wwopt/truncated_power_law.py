"""Truncated power law: a tail that ends in an exponential cutoff.

Model: density proportional to λ^-alpha exp(-Lambda λ) for λ >= xmin. A finite matrix has a largest
eigenvalue, and strong correlation inside a tail shows as such a cutoff; where it fits much better
than the pure law, the pure law's alpha is too large. Fitted by maximum likelihood on the tail that
the pure fit chose (Clauset, Shalizi & Newman 2009, arXiv:0706.1062, table 2.1).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

# Nodes and weights for ∫ over u = ln(λ/xmin) of the tail beyond xmin.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
TOP_SHARE = 0.25  # of a spectrum, whose cutoff is compared between layers and networks
_LOWEST_CUTOFF = 1e-9  # Lambda·xmin; at it the law is a pure power law to rounding


@dataclass(frozen=True, slots=True)
class TruncatedPowerLawFit:
    """Truncated power law on a given tail; NaN where that is too short or does not spread."""

    alpha: float  # exponent below the cutoff, dimensionless
    Lambda: float  # rate of the cutoff, per unit of the eigenvalues
    p_value: float  # of the pure power law against it; small: the cutoff is real


def fit_truncated_power_law(tail: NDArray[np.float64], *, alpha: float) -> TruncatedPowerLawFit:
    """Fit alpha and Lambda to a tail.

    Args:
        tail: eigenvalues from xmin on, shape (n,), n >= 3, in any order; xmin is its smallest.
        alpha: of the pure power law on it, which the search starts from.

    Returns:
        The fit; p_value is that of the likelihood-ratio test with one degree of freedom on the
        edge of the parameter's range (Self & Liang 1987: half of chi-squared's).
    """
    if tail.size < 3 or not (math.isfinite(alpha) and tail.max() > tail.min()):
        return TruncatedPowerLawFit(math.nan, math.nan, math.nan)
    relative = tail / tail.min()
    log_mean, mean = float(np.log(relative).mean()), float(relative.mean())

    # -log likelihood per eigenvalue and its gradient; differences cost three times as much.
    def cost(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        exponent, rate = float(parameters[0]), math.exp(float(parameters[1]))
        log_integral, (model_log_mean, model_mean), _ = _moments(exponent, rate)
        gradient = [log_mean - model_log_mean, rate * (mean - model_mean)]
        return exponent * log_mean + rate * mean + log_integral, np.array(gradient)

    bounds = [(0.0, max(50.0, 2.0 * alpha)), (math.log(_LOWEST_CUTOFF), math.log(50.0))]
    starts = [(alpha, math.log(_LOWEST_CUTOFF)), (max(alpha - 1.0, 0.0), -math.log(mean))]
    found = [
        optimize.minimize(cost, np.asarray(s), jac=True, method="L-BFGS-B", bounds=bounds)
        for s in starts
    ]
    best = min(found, key=lambda result: float(result.fun))
    exponent, log_rate = _polish(best.x, log_mean, mean)
    pure = alpha * log_mean - math.log(alpha - 1.0)
    gain = max(0.0, 2.0 * relative.size * (pure - float(best.fun)))
    return TruncatedPowerLawFit(
        alpha=exponent,
        Lambda=math.exp(log_rate) / float(tail.min()),
        p_value=0.5 * float(stats.chi2.sf(gain, df=1)) if gain > 0.0 else 1.0,
    )


def tail_cutoff(eigenvalues: NDArray[np.float64]) -> float:
    """How early an exponential ends the top quarter of a spectrum: its rate times λmax.

    Near 0 where the power law reaches up to the largest eigenvalue; from about 1.3 on the tail
    bends. A quarter rather than the tail that the pure fit chose: that choice jumps.

    Args:
        eigenvalues: all, shape (n,), ascending.

    Returns:
        Lambda·λmax; NaN where the quarter is too small (under 10) or does not spread.
    """
    tail = eigenvalues[-max(10, int(TOP_SHARE * eigenvalues.size)) :]
    if tail.size < 10 or not tail[-1] > tail[0] > 0.0:
        return math.nan
    alpha = 1.0 + 1.0 / float(np.log(tail / tail[0]).mean())
    return fit_truncated_power_law(tail, alpha=min(alpha, 40.0)).Lambda * float(tail[-1])


def _polish(start: NDArray[np.float64], log_mean: float, mean: float) -> tuple[float, float]:
    """Newton's steps to the optimum that the search stopped beside.

    The search ends 1e-6 from it, at a place that depends on the last digit of the eigenvalues,
    and so on how many threads computed them.
    """
    exponent, log_rate = float(start[0]), float(start[1])
    if not (exponent > 0.0 and log_rate > math.log(_LOWEST_CUTOFF) + 1e-3):
        return exponent, log_rate  # on an edge of the range
    found = exponent, log_rate
    for _ in range(8):
        rate = math.exp(found[1])
        _, (model_log_mean, model_mean), (log_var, covariance, var) = _moments(found[0], rate)
        slope = np.array([log_mean - model_log_mean, rate * (mean - model_mean)])
        mixed = rate * covariance
        curvature = np.array([[log_var, mixed], [mixed, slope[1] + rate * rate * var]])
        if not np.linalg.det(curvature) > 1e-12 * log_var * rate * rate * var:
            return exponent, log_rate
        step = np.linalg.solve(curvature, slope)
        found = found[0] - float(step[0]), found[1] - float(step[1])
        if not (abs(found[0] - exponent) < 0.5 and abs(found[1] - log_rate) < 0.5):
            return exponent, log_rate
    return found


def _moments(
    alpha: float, rate: float
) -> tuple[float, tuple[float, float], tuple[float, float, float]]:
    """Log ∫₁^∞ t^-alpha exp(-rate t) dt; means, and variances, of ln t and t in that density.

    With t = e^u the integrand is smooth in u. The middle one of the variances is the covariance.
    """
    # Beyond rate·t = 60 the exponential is under 1e-26; a pure tail ends where t^(1-alpha) does.
    end = math.log(max(60.0 / rate, 1.0)) + 1.0
    if alpha > 1.0:
        end = min(end, max(60.0 / (alpha - 1.0), 1.0))
    u = 0.5 * end * (_NODES + 1.0)
    t = np.exp(u)
    exponent = (1.0 - alpha) * u - rate * t
    top = float(exponent.max())
    density = _WEIGHTS * np.exp(exponent - top)
    total = float(density.sum())
    density /= total
    mean_u, mean_t = float(density @ u), float(density @ t)
    u, t = u - mean_u, t - mean_t
    second = float(density @ (u * u)), float(density @ (u * t)), float(density @ (t * t))
    return top + math.log(0.5 * end * total), (mean_u, mean_t), second
