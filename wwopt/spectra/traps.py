"""Correlation traps: eigenvalues of the shuffled layer beyond the edge of a random matrix.

Shuffling destroys every structure but the distribution of the entries; what still sticks out comes
from a few huge entries, not from learned structure. Scores are in Tracy-Widom units (see
`marchenko_pastur.trap_z`): 2.02 is the 99 % quantile of a Gaussian matrix, but Student-t entries
with 5 degrees of freedom pass that in 16 to 28 % of draws, hence the threshold of 4.
"""

import math
from dataclasses import dataclass

from wwopt.spectra.marchenko_pastur import trap_z
from wwopt.spectra.spectrum import LayerSpectrum

TRAP_THRESHOLD = 4.0  # Tracy-Widom units


@dataclass(frozen=True, slots=True)
class Traps:
    """Traps of one layer; NaN and None where its shuffles were not computed."""

    trap_z: float  # largest shuffled eigenvalue, Tracy-Widom units, mean over shuffles
    num_traps: int | None  # shuffled eigenvalues from 4 units on, median over shuffles
    mean_spike: float  # strength of the entries' mean as a spike; visible beyond the bulk from 1


def find_traps(spectrum: LayerSpectrum) -> Traps:
    """Score and count the traps of one layer.

    For several slices the largest eigenvalue over all of them is judged against the law of one:
    with 9 slices that adds about 2 units to a layer without traps, inside the threshold.

    `mean_spike` is mean² √(NM) / variance: a rank-one part of strength θ = mean √(NM) leaves the
    bulk of a random matrix when θ² > variance √(NM) (Benaych-Georges & Nadakuditi 2012).
    """
    N, M = spectrum.shape
    variance = spectrum.element_variance
    if not (math.isfinite(variance) and variance > 0.0):
        return Traps(math.nan, None, math.nan)
    mean_spike = spectrum.element_mean**2 * math.sqrt(N * M) / variance
    if spectrum.shuffled_tops is None:
        return Traps(math.nan, None, mean_spike)
    scores = [
        [trap_z(float(top), N, M, variance) for top in tops] for tops in spectrum.shuffled_tops
    ]
    counts = sorted(sum(z >= TRAP_THRESHOLD for z in row) for row in scores)
    return Traps(
        trap_z=sum(row[0] for row in scores) / len(scores),
        num_traps=counts[(len(counts) - 1) // 2],
        mean_spike=mean_spike,
    )
