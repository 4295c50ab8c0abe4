"""The empirical spectral density (ESD) of one layer, and of its seeded shuffles.

`LayerSpectrum` is everything that the metrics are computed from; it needs no weights, so a zoo's or
another tool's records can be judged too. `compute_spectrum` makes one from a weight matrix.

Eigenvalues are those of the smaller Gram matrix, λ = σ², from a float64 symmetric solver: twice as
fast as singular values, at the price of a rounding floor at about N·eps·λmax.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.spectra.element_moments import PowerSums, element_moments
from wwopt.spectra.gram_matrices import gram_matrices, solve_all
from wwopt.spectra.lanczos import DIRECT_SIDE, top_eigenvalues
from wwopt.spectra.large_layers import (
    METHOD,
    QUICK_METHOD,
    estimate_quickly,
    estimate_spectrum,
    estimate_top,
)
from wwopt.spectra.marchenko_pastur import trap_z
from wwopt.spectra.one_thread import one_thread
from wwopt.spectra.shuffled_grams import shuffled_grams
from wwopt.spectra.shuffles import iterate_shuffles
from wwopt.spectra.trap_screen import may_have_traps, predict_top
from wwopt.weights.matrices import WeightMatrix

EXACT = "exact"  # method of a spectrum that was not estimated
NUM_TOPS = 8  # largest eigenvalues kept of every shuffle: enough to count the traps of a layer
MAX_SIZE = 8192  # M up to which a layer is decomposed: some minutes and 1.5 GB
QUICK_SIDE = 1536  # M from which a quick estimate costs half of a decomposition, or less
# Entries, 2 MB in float32. Smaller layers stay in the cache from pass to pass: there, summing the
# moments while something else reads the entries gains hardly anything.
SMALL_LAYER = 1 << 19
TOP_ACCURACY = 0.001  # of the largest eigenvalue of a shuffle, Tracy-Widom units; see `lanczos`
TOPS_FROM = 3.0  # Tracy-Widom units; those below it, no traps, are lower bounds but for the largest
DOUBTFUL = 2.0, 8.0  # Tracy-Widom units of one shuffle; a trap of their mean is beyond 4
FULL_SHUFFLE_SIDE = 1024  # M up to which the first shuffle's whole spectrum is kept
# Excess kurtosis of the entries, in units of M, from which on the averaged Hill estimate of their
# shuffle is not that of a Gaussian matrix: of 10 kinds of entries in 3 shapes (t, sparse, signs)
# it is within its scatter up to .008, and three times its scatter off at .0106.
FULL_SHUFFLE_EXCESS = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerSpectrum:
    """What the spectral metrics of one layer are computed from."""

    name: str
    shape: tuple[int, int]  # (N, M) of a slice, N >= M
    num_slices: int  # kernel positions of a convolution, 1 for a plain matrix
    eigenvalues: NDArray[np.float64]  # (M * num_slices,), ascending, slices pooled, not halved
    element_mean: float
    element_variance: float  # ddof = 1
    shuffled_eigenvalues: NDArray[np.float64] | None = None  # (M * num_slices,): first shuffle
    shuffled_tops: NDArray[np.float64] | None = None  # (shuffles, k): largest of every shuffle
    kurtosis: float | None = None  # fourth standardised moment, 3 for a Gaussian
    max_abs: float | None = None  # largest |w|
    kind: str = "linear"  # kind of layer, as in WeightMatrix; "conv2d" has halved columns
    rank_bound: int | None = None  # a low-rank delta cannot have more eigenvalues than this
    tied: tuple[str, ...] = ()  # other names of the same weights
    method: str = EXACT  # how the eigenvalues were found

    def __post_init__(self) -> None:
        N, M = self.shape
        if not (N >= M >= 1 and self.num_slices >= 1):
            raise ValueError(
                f"{self.name}: shape must be (N, M) with N >= M >= 1 and at least one slice, "
                f"got {self.shape} with {self.num_slices} slices"
            )
        expected = (M * self.num_slices,)
        for field in ("eigenvalues", "shuffled_eigenvalues"):
            values = getattr(self, field)
            if values is None:
                continue
            if np.shape(values) != expected:
                raise ValueError(
                    f"{self.name}: {field} must hold M * num_slices = {expected[0]} values, "
                    f"got shape {np.shape(values)}"
                )
            ordered = np.sort(np.asarray(values, dtype=np.float64))
            if ordered[0] < -1e-4 * ordered[-1]:
                raise ValueError(
                    f"{self.name}: {field} are those of a Gram matrix, which has no negative "
                    f"ones, got {ordered[0]:g}; pass squared singular values"
                )
            # Rounding of a solver may leave zeros slightly negative.
            object.__setattr__(self, field, np.maximum(ordered, 0.0))
        if self.shuffled_tops is not None:
            tops = np.atleast_2d(np.asarray(self.shuffled_tops, dtype=np.float64))
            object.__setattr__(self, "shuffled_tops", -np.sort(-tops, axis=1))


def compute_spectrum(
    matrix: WeightMatrix,
    *,
    seed: int = 0,
    shuffles: int = 3,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
    max_size: int = MAX_SIZE,
    full_shuffle: bool | None = True,
    quick_from: int | None = None,
) -> LayerSpectrum:
    """Eigenvalues, element moments and shuffles of one layer.

    A shuffle permutes the entries of the whole layer, all slices together, after the layer's mean
    was subtracted: a mean shift is no trap (it is reported as the mean spike). The permutation
    depends on (seed, index of the shuffle, number of entries) alone.

    Args:
        matrix: the layer; its weights are read here and released on return.
        seed: of the shuffles.
        shuffles: how many; 0 leaves traps unknown.
        device: where to compute; None means where the weights lie.
        dtype: of the eigenvalues and moments. float32 is faster on most GPUs and moves alpha by
            about 1e-4. Shuffles, and layers beyond max_size, are multiplied in float32 anyway.
        max_size: M up to which layers are decomposed; the spectra of larger ones are estimated.
        full_shuffle: whether to keep the first shuffle's whole spectrum, for M up to 1,024; None
            where it tells more than that of a Gaussian matrix, or is free.
        quick_from: M from which the spectrum is estimated quickly, and shuffled only where
            `wwopt.spectra.trap_screen` cannot exclude traps; None for never.

    Returns:
        The spectrum; its eigenvalues are NaN where a weight or a sum of squares is not finite.
    """
    M, num_slices = matrix.shape[1], matrix.num_slices
    quick = quick_from is not None and quick_from <= M
    large = quick or max_size < M
    find = partial(_estimate, quick=quick) if large else _decompose
    with torch.no_grad(), one_thread():
        weights = matrix.read().detach().to(device=device)
        eigenvalues, moments = find(weights, dtype)
        if not _finite(moments):
            eigenvalues = np.full(M * num_slices, np.nan)
        first, tops = None, None
        shuffled = shuffles > 0 and bool(np.isfinite(eigenvalues[-1]))
        if shuffled and quick and not _may_have_traps(matrix.shape, moments):
            top = predict_top(
                *matrix.shape, variance=moments["element_variance"], kurtosis=moments["kurtosis"]
            )
            tops = np.full((1, 1), top)
        elif shuffled:
            scale = math.sqrt(moments["element_variance"])
            full = _keeps_full(full_shuffle, matrix, moments["kurtosis"]) and not large
            first, tops = _shuffled_spectra(
                weights,
                moments["element_mean"],
                scale,
                seed=seed,
                count=shuffles,
                full=full,
                large=large,
                quick=quick,
            )
            tops *= scale * scale
            first = None if first is None else first * (scale * scale)
    return LayerSpectrum(
        name=matrix.name,
        shape=matrix.shape,
        num_slices=num_slices,
        eigenvalues=eigenvalues,
        shuffled_eigenvalues=first,
        shuffled_tops=tops,
        kind=matrix.kind,
        rank_bound=matrix.rank_bound,
        tied=matrix.tied,
        method=QUICK_METHOD if quick else METHOD if large else EXACT,
        **moments,
    )


def _keeps_full(wanted: bool | None, matrix: WeightMatrix, kurtosis: float) -> bool:
    M = matrix.shape[1]
    if wanted is not None:
        return wanted and M <= FULL_SHUFFLE_SIDE
    # LAPACK finds the largest eigenvalue of a small matrix with all others.
    telling = abs(kurtosis - 3.0) * matrix.num_slices > FULL_SHUFFLE_EXCESS * M
    return M <= DIRECT_SIDE or (M <= FULL_SHUFFLE_SIDE and telling)


def _decompose(
    weights: torch.Tensor, dtype: torch.dtype
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Ascending eigenvalues of the smaller Gram matrix of each slice, pooled; element moments."""
    sums = PowerSums()
    widened = sums.add if weights.numel() > SMALL_LAYER else None
    found = [solve_all(gram) for gram in gram_matrices(weights, dtype, widened=widened)]
    moments = sums.moments(weights.numel()) or element_moments(weights, dtype)
    return np.sort(np.concatenate(found)), moments


def _may_have_traps(shape: tuple[int, int], moments: Mapping[str, float]) -> bool:
    return may_have_traps(
        *shape,
        variance=moments["element_variance"],
        kurtosis=moments["kurtosis"],
        max_abs=moments["max_abs"],
        mean=moments["element_mean"],
    )


def _estimate(
    weights: torch.Tensor, dtype: torch.dtype, *, quick: bool
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """The same for slices that are not decomposed."""
    moments = element_moments(weights, dtype)
    if not _finite(moments):
        return np.full(weights.shape[0] * min(weights.shape[1:]), np.nan), moments
    estimate = estimate_quickly if quick else estimate_spectrum
    return np.sort(np.concatenate([estimate(slice_) for slice_ in weights])), moments


def _finite(moments: Mapping[str, float]) -> bool:
    return all(math.isfinite(value) for value in moments.values())


def _shuffled_spectra(
    weights: torch.Tensor,
    mean: float,
    scale: float,
    *,
    seed: int,
    count: int,
    full: bool,
    large: bool,
    quick: bool,
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Spectrum of the first shuffle, if `full`, and the largest eigenvalues of every one.

    Of entries with mean 0 and variance 1, whose squares stay inside the range of float32. If
    `quick`, of the first one alone where that leaves no doubt.
    """
    shuffled: dict[str, Any] = {"mean": mean, "scale": scale, "seed": seed, "count": count}
    M, N = sorted(weights.shape[1:])
    zero = trap_z(0.0, N, M, 1.0)
    unit = 1.0 / (trap_z(1.0, N, M, 1.0) - zero)
    options = {"tolerance": TOP_ACCURACY * unit, "level": (TOPS_FROM - zero) * unit}
    first: list[NDArray[np.float64]] = []
    tops: list[list[NDArray[np.float64]]] = [[] for _ in range(count)]
    if large:
        for index, slices in enumerate(iterate_shuffles(weights, **shuffled)):
            tops[index] = [estimate_top(slice_, NUM_TOPS, **options) for slice_ in slices]
            score = max(float(top[0]) for top in tops[index]) / unit + zero
            if quick and not DOUBTFUL[0] < score < DOUBTFUL[1]:
                del tops[1:]
                break
    else:
        for index, gram in shuffled_grams(weights, **shuffled):
            if full and index == 0:
                first.append(np.sort(solve_all(gram[None])))
                tops[0].append(first[-1][: -NUM_TOPS - 1 : -1])
            else:
                tops[index].append(top_eigenvalues(gram, NUM_TOPS, **options))
    largest = [np.sort(np.concatenate(found))[: -NUM_TOPS - 1 : -1] for found in tops]
    return np.sort(np.concatenate(first)) if full else None, np.stack(largest)
