"""What changed in a layer between two checkpoints: measured here, judged in `wwopt.gate`.

Scale and shape are told apart first. The scale c is the root of the median ratio of matching
eigenvalues, over the upper half of the spectrum: the median of many, so that a few eigenvalues
that moved do not pass for a scaling of all. Everything else compares after/c with before.

With the weights of both sides there is one more quantity, and the most telling one: the *noise* of
the change W_after/c − W_before. Learning moves few directions, rounding and damage move all; the
bulk of the change's own spectrum tells which. On trained networks five more epochs change a layer
by up to half of its norm with noise below .2, 3-bit rounding by a quarter with noise of a quarter.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.metrics.model_metrics import LayerMetrics
from wwopt.spectra.inner_products import frobenius_norm, inner_product
from wwopt.spectra.marchenko_pastur import marchenko_pastur_quantiles
from wwopt.spectra.spectrum import compute_spectrum
from wwopt.weights.matrices import WeightMatrix

LEVEL_ROWS = 64  # rows whose distinct values are counted: enough for a median


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """Changes of one layer, after against before; 0 (scale: 1) where equal, NaN where unknown."""

    scale: float = math.nan  # factor on all weights; divided out below
    ks: float = math.nan  # Kolmogorov-Smirnov distance of the two spectra, in [0, 1]
    spread: float = math.nan  # rms of the log eigenvalue ratios, upper half
    alpha: float = math.nan  # in standard errors of the difference
    hill: float = math.nan  # log of the factor on h - 1, h the averaged Hill estimate
    spectral_norm: float = math.nan  # log of the factor on λmax
    norm: float = math.nan  # log of the factor on Σλ
    stable_rank: float = math.nan  # log of the factor on Σλ/λmax
    mean: float = math.nan  # of the entries, in standard deviations of before
    kurtosis: float = math.nan  # log of the factor
    max_abs: float = math.nan  # log of the factor on the largest |w| in standard deviations
    traps: float = math.nan  # rise of trap_z, Tracy-Widom units
    rank: float = math.nan  # share of the matrix rank that was lost
    # known only where both sides have weights
    zeros: float = math.nan  # rise of the share of weights that are exactly zero
    levels: float = math.nan  # distinct values of a row after, median over rows
    noise: float = math.nan  # unstructured part of the change, per entry, in rms of before
    relative_change: float = math.nan  # ‖W_after − W_before‖/‖W_before‖, scale not divided out
    cosine: float = math.nan  # ⟨W_after, W_before⟩/(‖W_after‖ ‖W_before‖); 0: unrelated


def compare_spectra(before: LayerMetrics, after: LayerMetrics) -> LayerChange:
    """Compare two layers of one shape by what their spectra and moments tell."""
    ks = spread = math.nan
    if before.spectrum is None or after.spectrum is None:
        scale = math.exp(0.5 * _log_ratio(before.norm, after.norm))
    else:
        old, new = before.spectrum.eigenvalues, after.spectrum.eigenvalues
        ratios = _upper_log_ratios(old, new, N=before.N)
        scale = math.exp(0.5 * float(np.median(ratios))) if ratios.size else math.nan
        if math.isfinite(scale):
            ks = _ks_distance(old, new / scale**2)
            spread = float(np.std(ratios))
    if not math.isfinite(scale):  # a side is zero or not finite: the status says it
        return LayerChange()
    return LayerChange(
        scale=scale,
        ks=ks,
        spread=spread,
        alpha=(after.alpha - before.alpha) / (math.hypot(before.sigma, after.sigma) or math.nan),
        hill=_log_ratio(before.hill - 1.0, after.hill - 1.0),
        spectral_norm=_log_ratio(before.spectral_norm * scale**2, after.spectral_norm),
        norm=_log_ratio(before.norm * scale**2, after.norm),
        stable_rank=_log_ratio(before.stable_rank, after.stable_rank),
        mean=(after.element_mean / scale - before.element_mean) / _deviation(before),
        kurtosis=_log_ratio(before.kurtosis, after.kurtosis),
        max_abs=_log_ratio(before.max_abs / _deviation(before), after.max_abs / _deviation(after)),
        traps=after.trap_z - before.trap_z,
        rank=1.0 - after.matrix_rank / before.matrix_rank,
    )


def compare_weights(
    change: LayerChange,
    before: WeightMatrix,
    after: WeightMatrix,
    *,
    device: torch.device | str | None = None,
    quick: bool = False,
) -> LayerChange:
    """Add what only the weights themselves tell; of another orientation or not finite: nothing.

    Args:
        change: what the spectra tell.
        before: the layer.
        after: the same, later.
        device: where to compute; None for where the weights lie.
        quick: estimate the spectrum of the difference quickly, whatever its size.
    """
    with torch.no_grad():
        old = before.read().detach().to(device=device)
        new = after.read().detach().to(device=old.device, dtype=old.dtype)
        size, new_size = frobenius_norm(old), frobenius_norm(new)
        if old.shape != new.shape or not 0.0 < size * new_size < math.inf:
            return change
        cosine = inner_product(old, new) / (size * new_size)
        zeros = int(old.count_nonzero()) - int(new.count_nonzero())
        return replace(
            change,
            zeros=zeros / old.numel(),
            levels=_count_levels(new),
            noise=_noise(before, (new / change.scale).sub_(old), quick)
            * (math.sqrt(old.numel()) / size),
            relative_change=frobenius_norm(new - old) / size,
            cosine=max(-1.0, min(cosine, 1.0)),
        )


def _noise(matrix: WeightMatrix, change: torch.Tensor, quick: bool) -> float:
    """Standard deviation of the entries that belong to no direction (Gavish & Donoho 2014).

    σ² = median λ / (N · median of the Marchenko-Pastur law): spikes do not move the median.
    """
    difference = replace(matrix, read=lambda: change)
    spectrum = compute_spectrum(difference, shuffles=0, quick_from=1 if quick else None)
    N, M = matrix.shape
    median = float(np.median(spectrum.eigenvalues))
    return math.sqrt(median / (N * marchenko_pastur_quantiles(N / M, 1)[0]))


def _upper_log_ratios(
    old: NDArray[np.float64], new: NDArray[np.float64], *, N: int
) -> NDArray[np.float64]:
    """Log ratios of matching eigenvalues above rounding on both sides, upper half."""
    eps = np.finfo(np.float64).eps
    known = (old > old[-1] * N * eps) & (new > new[-1] * N * eps)
    ratios = np.log(new[known] / old[known])
    return np.asarray(ratios[ratios.size // 2 :])


def _ks_distance(old: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """Largest gap between two distribution functions; both arrays ascending, of one size."""
    at = np.concatenate([old, new]) * (1.0 + 1e-9)  # equal up to rounding is equal
    counts = np.searchsorted(old, at, side="right") - np.searchsorted(new, at, side="right")
    return float(np.abs(counts).max() / old.size)


def _count_levels(weights: torch.Tensor) -> float:
    rows = weights.flatten(0, -2)[:LEVEL_ROWS]
    return float(np.median([row.unique().numel() for row in rows]))


def _deviation(layer: LayerMetrics) -> float:
    return math.sqrt(layer.element_variance) or math.nan


def _log_ratio(old: float, new: float) -> float:
    return math.log(new / old) if old > 0.0 and 0.0 < new < math.inf else math.nan
