"""Can a layer have traps at all? What the moments of its entries say, without shuffling them.

Shuffled entries are independent ones of the same distribution, for which it is known where the
largest eigenvalue lies. Two things move it beyond the edge of a Gaussian matrix:

- the fourth moment of all entries moves the edge itself, by their variance times the excess
  kurtosis times (√N + √M)²/√(NM), of a Gram matrix not divided by N (Hwang, Lee & Schnelli 2019,
  arXiv:1806.03186, for sparse matrices; held against draws in the tests);
- one huge entry w is a spike of rank one, which leaves the bulk from w² = variance · √(NM) on
  (Benaych-Georges & Nadakuditi 2012).

A layer for which neither comes near has no trap, and needs no shuffle. docs/large-models.md holds
how often that is right.
"""

import math

from wwopt.spectra.marchenko_pastur import trap_z

TYPICAL = -1.2  # Tracy-Widom units: mean of the largest eigenvalue of a random matrix (β = 1)
SUSPICIOUS = 1.5  # Tracy-Widom units of the moved edge; a trap is beyond 4, one deviation is 1.27
HUGE = 0.6  # w² in units of variance · √(NM); several spikes just below 1 push each other out


def predict_top(N: int, M: int, *, variance: float, kurtosis: float) -> float:
    """Largest eigenvalue to expect of shuffled entries none of which is huge.

    Args:
        N: larger dimension.
        M: smaller dimension.
        variance: of the entries.
        kurtosis: fourth standardised moment, 3 for a Gaussian.

    Returns:
        In units of the M × M Gram matrix, not divided by N.
    """
    zero = trap_z(0.0, N, M, 1.0)
    unit = 1.0 / (trap_z(1.0, N, M, 1.0) - zero)
    moved = (math.sqrt(N) + math.sqrt(M)) ** 2 / math.sqrt(N * M) * (kurtosis - 3.0)
    return variance * ((TYPICAL - zero) * unit + moved)


def may_have_traps(
    N: int, M: int, *, variance: float, kurtosis: float, max_abs: float, mean: float
) -> bool:
    """Whether a layer has to be shuffled to know.

    Args:
        N: larger dimension.
        M: smaller dimension.
        variance: of the entries.
        kurtosis: fourth standardised moment, 3 for a Gaussian.
        max_abs: largest |w|.
        mean: of the entries, which is no trap.
    """
    if not variance > 0.0:
        return False
    huge = (max_abs + abs(mean)) ** 2 > HUGE * variance * math.sqrt(N * M)
    top = predict_top(N, M, variance=variance, kurtosis=kurtosis)
    return huge or trap_z(top, N, M, variance) > SUSPICIOUS
