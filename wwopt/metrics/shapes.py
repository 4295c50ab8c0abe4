"""The shape of a layer's spectrum in words, computed from its numbers.

    str(find_shape(layer)) = "a random bulk plus 10 spikes; the tail bends down"

Every word has a threshold, and every threshold a reason beside it, with the rate at which it is
wrong on spectra whose shape is known. A shape is one of: random, a random bulk with spikes, two
slopes, a clean power law, a heavy tail. What qualifies alpha follows: a single outlier that carries
the fit, a start of the tail that jumps, a tail that bends down, traps.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from wwopt.metrics.model_metrics import (
    COLLAPSED,
    LOW_RANK,
    MIN_EIGENVALUES,
    NO_POWER_LAW,
    NOT_FINITE,
    OK,
    RANK_DEFICIENT,
    TOO_FEW,
    TOO_SMALL,
    ZERO,
    LayerMetrics,
)
from wwopt.metrics.random_bulk import RandomBulk, find_bulk
from wwopt.spectra.broken_power_law import BrokenPowerLawFit, fit_broken_power_law
from wwopt.spectra.power_law import EIGENVALUE_FLOOR, PowerLawFit, fit_power_law
from wwopt.spectra.spectrum import NUM_TOPS, LayerSpectrum
from wwopt.spectra.truncated_power_law import fit_truncated_power_law
from wwopt.wording import count

MAX_SPIKES = 0.25  # of the eigenvalues; with more the bulk is no longer the story

# Of 1,440 exact power laws: 3 % move by more than 2 standard errors without the largest eigenvalue,
# 7 % have a gap that wide before it, .8 % both. One spike at 10 times the edge of a Gaussian bulk:
# 79 % both; at 100 times: 99 %.
OUTLIER_SHIFT = 2.0  # standard errors of alpha
OUTLIER_GAP_P = 0.05  # of λmax/λ2 under the power law of the other eigenvalues (Rényi 1953)
START_JUMP = 1.5  # factor on the length of the tail

# D·√n of a KS fit to an exact power law has its 95 % quantile at .68 to .79 for n from 60 to 600.
CLEAN_D = 0.75
CLEAN_DECADES = 1.0  # between xmin and the second largest: an outlier alone makes no decade
SHORT_DECADES = 0.5  # a factor of 3: the eye sees no line in less
CLEAN_TAIL = 20  # eigenvalues; a shorter tail passes CLEAN_D whatever its shape

CLEAN_P = 0.05  # of the pure power law against one with a cutoff
BENT_P = 0.01  # the same, below it: .4 % of exact power laws
# Twice the log likelihood, over a pure and over a truncated law, for two parameters and a searched
# break. Of exact power laws .3 % pass, of truncated, log-normal and exponential tails 2 %; of tails
# that turn from 4 to 1.8, 80 %. A turn to a steeper slope is rarely told from a cutoff.
TWO_SLOPES_GAIN = 10.0
TWO_SLOPES_APART = 1.0  # difference of the exponents that the eye sees on a log-log plot

ONE_WEIGHT = 0.5  # of λmax, that the square of the largest weight makes up


@dataclass(frozen=True, slots=True)
class SpectralShape:
    """What a spectrum looks like."""

    name: str  # of the shape, without numbers: what layers can be grouped by
    words: tuple[str, ...]  # the shape with its numbers, then what qualifies alpha

    def __str__(self) -> str:
        """The words in one line."""
        return "; ".join(self.words)


def find_shape(layer: LayerMetrics) -> SpectralShape:
    """Say what the spectrum of a layer looks like."""
    if layer.status != OK:
        return SpectralShape(layer.status, (_reason(layer), *_traps(layer)))
    if layer.spectrum is None:
        return SpectralShape("unknown", ("its spectrum was not kept", *_traps(layer)))
    name, words = _find_base(layer)
    return SpectralShape(name, (*words, *_traps(layer)))


def find_outlier(layer: LayerMetrics) -> float | None:
    """Alpha without the largest eigenvalue, where that one alone carries the fit."""
    if layer.spectrum is None or not layer.sigma > 0.0:
        return None
    values = layer.spectrum.eigenvalues
    tail = values[values >= layer.xmin][:-1]
    if tail.size < 2 or not tail[-1] > tail[0]:
        return None
    # P(λ1/λ2 > r) = r^-(alpha - 1) under a power law.
    exponent = tail.size / float(np.log(tail / tail[0]).sum())
    if not float(values[-1] / values[-2]) ** -exponent < OUTLIER_GAP_P:
        return None
    without = _fit_without_largest(layer.spectrum, unit=layer.unit).alpha
    return without if abs(without - layer.alpha) > OUTLIER_SHIFT * layer.sigma else None


def fit_two_slopes(layer: LayerMetrics) -> BrokenPowerLawFit | None:
    """Fit a broken power law to the upper half, or to the whole tail where that is longer.

    Not to the tail alone: the KS choice of xmin starts it behind the break, where there is one.

    Returns:
        The fit, None unless it is better by `TWO_SLOPES_GAIN` than one slope with and without a
        cutoff, clean by itself, and the slopes differ by `TWO_SLOPES_APART`.
    """
    if layer.spectrum is None or not math.isfinite(layer.alpha):
        return None
    values = layer.spectrum.eigenvalues
    upper = values[-max(int(layer.num_pl_spikes), values.size // 2) :]
    upper = upper[upper > values[-1] * values.size * np.finfo(np.float64).eps]
    fit = fit_broken_power_law(upper)
    if fit is None:
        return None
    pure = 1.0 + upper.size / float(np.log(upper / upper[0]).sum())
    p = fit_truncated_power_law(upper, alpha=pure).p_value
    cutoff_gain = float(stats.chi2.isf(min(2.0 * p, 1.0), df=1))
    good = (
        fit.gain - cutoff_gain > TWO_SLOPES_GAIN
        and fit.D * math.sqrt(fit.num_evals) < CLEAN_D
        and abs(fit.alpha_high - fit.alpha_low) > TWO_SLOPES_APART
    )
    return fit if good else None


def _fit_without_largest(spectrum: LayerSpectrum, *, unit: float) -> PowerLawFit:
    return fit_power_law(spectrum.eigenvalues[:-1], floor=EIGENVALUE_FLOOR * unit)


def _find_base(layer: LayerMetrics) -> tuple[str, list[str]]:
    assert layer.spectrum is not None
    bulk = find_bulk(layer)
    if bulk is not None and bulk.is_random and bulk.num_spikes == 0:
        return "random", ["indistinguishable from a random matrix"]
    doubts = _find_doubts(layer)
    few_spikes = bulk is not None and 0 < bulk.num_spikes <= MAX_SPIKES * layer.num_evals
    if bulk is not None and bulk.is_random and few_spikes:
        return "random bulk plus spikes", [*_spikes(layer, bulk), *doubts]
    if "within its own null" in layer.doubts:
        words = "a tail no heavier than that of a random matrix"
        return "tail like a random matrix's", [words, *doubts]
    nearly = bulk is not None and bulk.is_nearly_random and few_spikes
    slopes = None if nearly else fit_two_slopes(layer)  # a bulk with spikes has two by itself
    if slopes is not None:
        low, high = slopes.alpha_low, slopes.alpha_high
        words = f"two slopes: {low:.1f} up to λ = {slopes.break_at:.3g}, {high:.1f} beyond"
        return "two slopes", [words, *doubts]
    n = int(layer.num_pl_spikes)
    second = float(layer.spectrum.eigenvalues[-2])
    decades = math.log10(second / layer.xmin) if second > layer.xmin else 0.0
    clean = n >= CLEAN_TAIL and layer.D * math.sqrt(n) <= CLEAN_D and layer.p_pure >= CLEAN_P
    if clean and decades >= CLEAN_DECADES and not doubts:
        return "clean power law", [f"a clean power law over {decades:.1f} decades"]
    if bulk is not None and nearly:
        return "nearly random bulk plus spikes", [*_spikes(layer, bulk), *doubts]
    if decades < SHORT_DECADES:
        words = f"broader than random, with a short tail ({n} eigenvalues, {decades:.1f} decades)"
        return "short tail", [words, *doubts]
    words = f"a heavy tail over {decades:.1f} decades"
    if bulk is not None and bulk.num_spikes > MAX_SPIKES * layer.num_evals:
        words += ", no random bulk left"
    return "heavy tail", [words, *doubts]


def _spikes(layer: LayerMetrics, bulk: RandomBulk) -> list[str]:
    kind = "random" if bulk.is_random else "nearly random"
    words = f"a {kind} bulk plus {count(bulk.num_spikes, 'spike')}"
    if layer.mean_spike >= 1.0:
        words += ", one from the weights' mean"
    tail = int(layer.num_pl_spikes)
    inside = tail - bulk.num_spikes
    if 2 * inside > tail:
        return [words, f"{inside} of the {tail} eigenvalues fitted belong to the bulk"]
    return [words]


def _find_doubts(layer: LayerMetrics) -> list[str]:
    """What qualifies alpha: an outlier, a start of the tail that jumps, a cutoff."""
    assert layer.spectrum is not None
    doubts = []
    without = find_outlier(layer)
    if without is not None:
        doubts.append(f"a single outlier carries the fit (alpha {without:.2f} without it)")
    else:
        fit = _fit_without_largest(layer.spectrum, unit=layer.unit)
        jump = fit.num_pl_spikes / max(layer.num_pl_spikes - 1.0, 1.0)
        far = abs(fit.alpha - layer.alpha) > OUTLIER_SHIFT * layer.sigma
        if far and not 1.0 / START_JUMP < jump < START_JUMP:
            doubts.append(
                "alpha hangs on where the tail starts "
                f"({fit.alpha:.2f} without the largest eigenvalue)"
            )
    if layer.p_pure < BENT_P:
        doubts.append("the tail bends down")
    return doubts


def _reason(layer: LayerMetrics) -> str:
    """Why there is no shape, for a status other than "ok"."""
    reasons = {
        NOT_FINITE: "the weights hold NaN or infinity, or squares that overflow",
        ZERO: "every weight is zero",
        COLLAPSED: f"one direction holds {100.0 / layer.stable_rank:.0f} % of the sum of squares"
        if layer.num_slices == 1
        else "one direction a slice holds most of the sum of squares",
        TOO_SMALL: "eigenvalues too small for a fit",
        NO_POWER_LAW: "the largest eigenvalues are equal: there is no tail",
        RANK_DEFICIENT: f"{layer.rank_loss:.0f} of {layer.num_evals} eigenvalues are zero",
        TOO_FEW: f"{count(layer.num_evals, 'eigenvalue')}, a shape needs {MIN_EIGENVALUES}",
        LOW_RANK: f"a low-rank update, a shape needs {MIN_EIGENVALUES} eigenvalues",
    }
    return reasons.get(layer.status, layer.status)


def _traps(layer: LayerMetrics) -> list[str]:
    words = []
    if layer.num_traps >= 1.0:
        traps = count(int(layer.num_traps), "trap")
        words.append(traps.replace(" ", " or more ") if layer.num_traps == NUM_TOPS else traps)
        if layer.max_abs**2 > ONE_WEIGHT * layer.spectral_norm:
            words.append("λmax is one huge weight")
    return words
