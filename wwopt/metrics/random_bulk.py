"""The random bulk of a layer's spectrum, and the spikes beyond it.

Training leaves a random matrix's bulk in place and grows spikes out of it, until nothing of the
bulk is left (Martin & Mahoney 2021, JMLR 22:165, "bulk plus spikes" to "heavy-tailed"). Whether the
bulk is still there is a question of its own: `marchenko_pastur.fit_bulk` fits one to any spectrum.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wwopt.metrics.model_metrics import MIN_COLUMNS, MIN_EIGENVALUES, LayerMetrics
from wwopt.spectra.large_layers import QUICK_METHOD
from wwopt.spectra.marchenko_pastur import marchenko_pastur_quantiles
from wwopt.spectra.spectrum import EXACT
from wwopt.spectra.traps import TRAP_THRESHOLD

# Largest gap between the CDFs of n eigenvalues of a random matrix and of the Marchenko-Pastur law,
# times n: eigenvalues repel each other, so it hardly grows with n. At most 3.6 in 750 Gaussian,
# uniform and Laplace matrices of 50 to 2,000 eigenvalues; 7.6 and more in the trained matrices of
# MiniLM-L6. Slices are independent, so the gap grows with the square root of their number.
BULK_GAP = 5.0
SHUFFLE_GAP = 7.0  # the same against another random spectrum, the layer's own shuffle: at most 6
ESTIMATE_GAP = 0.04  # not times n: estimated spectra of random layers are off by up to .032
# The same of quick estimates: up to .053, at 4,096 × 4,096, and less below.
QUICK_GAP = 0.065
ESTIMATE_EDGE = 1.02  # their edge, from the middle of an estimate, is off by up to .5 %
NEARLY_GAP = 0.03  # not times n: a difference that the eye does not see on a plot

# The largest eigenvalues of a random matrix with a few huge entries are theirs, and its shuffle has
# the same entries: 9 of 10 of Student t (3 degrees of freedom) have none that differs by more.
OWN_TOP = 1.2
SPIKE_MARGIN = TRAP_THRESHOLD  # beyond the bulk's edge


@dataclass(frozen=True, slots=True)
class RandomBulk:
    """The part of a spectrum that could be a random matrix."""

    is_random: bool  # whether the rest follows the random law, as closely as random matrices do
    is_nearly_random: bool  # whether it does to the eye
    edge: float  # upper edge of the Marchenko-Pastur law through the middle, units of λ
    num_spikes: int  # eigenvalues beyond the edge; 0 where huge entries explain all of them


def find_bulk(layer: LayerMetrics) -> RandomBulk | None:
    """Separate a random bulk from the spikes beyond it.

    The law's scale is set by the eigenvalues in the middle, which a few spikes do not move, unlike
    the variance of the entries; spikes are taken out and the scale again until their number stands.

    Returns:
        None without a spectrum, where a quarter of it is zero, or where the layer or its slices are
        too small to have a bulk.
    """
    spectrum, n = layer.spectrum, layer.num_evals
    if spectrum is None or n < MIN_EIGENVALUES or layer.M < MIN_COLUMNS:
        return None
    values = spectrum.eigenvalues
    if not (np.isfinite(values[-1]) and values[n // 4] > 0.0):
        return None
    unit = math.sqrt(layer.num_slices) / n
    spikes, edge, law = _split(values, layer)
    rest = values[: law.size]
    ranks = (np.arange(rest.size) + 0.5) / rest.size
    gap = float(np.abs(np.interp(rest, law, ranks) - ranks).max())
    is_bulk = spikes == n - rest.size
    estimated = QUICK_GAP if spectrum.method == QUICK_METHOD else ESTIMATE_GAP
    limit = BULK_GAP * unit if spectrum.method == EXACT else estimated
    is_random = is_bulk and gap <= limit
    own = spectrum.shuffled_eigenvalues
    if own is not None and own[n // 4] > 0.0:
        # Entries that are few or heavy-tailed have a law of their own, and spikes of their own.
        scaled = own * _scale(values, own)
        own_gap = float(np.abs(np.searchsorted(scaled, values) / n - np.arange(n) / n).max())
        is_random = is_random or own_gap <= SHUFFLE_GAP * unit
        # The largest against its largest, the second against its second.
        beyond = slice(n - spikes, n)
        if _split(own, layer)[0] > 0 and (values[beyond] <= OWN_TOP * scaled[beyond]).all():
            spikes = 0
    return RandomBulk(
        is_random=is_random,
        is_nearly_random=is_random or (is_bulk and gap <= NEARLY_GAP),
        edge=edge,
        num_spikes=spikes,
    )


def looks_random(layer: LayerMetrics) -> bool:
    """Whether the whole spectrum could be that of a random matrix, spikes and all."""
    bulk = find_bulk(layer)
    return bulk is not None and bulk.is_random and bulk.num_spikes == 0


def bulk_density(
    bulk: RandomBulk, layer: LayerMetrics, at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Density of the law through the bulk, times the bulk's share of the eigenvalues."""
    ratio = math.sqrt(layer.M / layer.N)
    variance = bulk.edge / (1.0 + ratio) ** 2  # of the entries, times N
    # In its units: products of two eigenvalues may leave the range of a float.
    x = at / variance
    squared = np.maximum((1.0 + ratio) ** 2 - x, 0.0) * np.maximum(x - (1.0 - ratio) ** 2, 0.0)
    law = np.sqrt(squared) / (2.0 * math.pi * ratio**2 * x) / variance
    return np.asarray((1.0 - bulk.num_spikes / layer.num_evals) * law)


def _split(
    values: NDArray[np.float64], layer: LayerMetrics
) -> tuple[int, float, NDArray[np.float64]]:
    """Spikes beyond a random bulk, the bulk's edge, and the law's quantiles below it."""
    N, M = layer.N, layer.M
    root = math.sqrt(max(N - 1, 1)) + math.sqrt(M)
    # Tracy-Widom scale of the edge (Johnstone 2001), see `marchenko_pastur.trap_z`.
    unit = root * (1.0 / math.sqrt(max(N - 1, 1)) + 1.0 / math.sqrt(M)) ** (1.0 / 3.0)
    estimated = layer.spectrum is not None and layer.spectrum.method != EXACT
    height = root**2 * (ESTIMATE_EDGE if estimated else 1.0)
    spikes = 0
    while True:
        law = marchenko_pastur_quantiles(N / M, values.size - spikes) * N
        variance = _scale(values[: law.size], law)
        beyond = int(np.count_nonzero(values > variance * (height + SPIKE_MARGIN * unit)))
        if beyond <= spikes or beyond > values.size // 2:  # more than half: no bulk
            return beyond, variance * root**2, law * variance
        spikes = beyond


def _scale(values: NDArray[np.float64], law: NDArray[np.float64]) -> float:
    """Factor from one ascending list to another of the same length, from their middles.

    The ratio of the medians scatters twice as much: 1.3 % at 256 × 256, where this has .6 % and
    the Tracy-Widom scale is 1.6 %.
    """
    middle = slice(values.size // 4, math.ceil(0.9 * values.size))
    return float(np.median(values[middle] / law[middle]))
