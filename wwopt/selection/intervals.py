"""How far a score can be told from another: a bootstrap over layers and over shuffles.

A score is a mean over layers, so layers are drawn with replacement and the mean taken again; and a
layer's traps are a mean over its shuffles, so these are drawn again too (Efron & Tibshirani 1993,
ch. 13: percentile intervals).

Candidates of one architecture are compared layer by layer: all get the same draw of layers, and
what they have in common in a layer is taken out first: the mean over the candidates without their
lowest and highest quarter, which one bad candidate does not move. The intervals then tell how far
two candidates can be told apart, and not how well a score is known by itself. With two candidates
they overlap exactly when the interval of the paired difference holds zero; with more they are
wider, which many comparisons at once need. Between sizes there are no pairs: each candidate has
draws of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from wwopt.metrics.model_metrics import OK, LayerMetrics, ModelMetrics
from wwopt.metrics.objective import SpectralObjective
from wwopt.selection.scores import Score, score_model
from wwopt.spectra.traps import find_traps

LEVEL = 0.95
DRAWS = 2000  # of layers; an end of a 95 % interval then scatters by 1.5 % of its width (Gaussian)
TRIMMED = 0.25  # share of the candidates on either side that do not count for what is common
SHUFFLE_DRAWS = 20  # of shuffles; three shuffles have 10 different draws

Array = NDArray[np.float64]
Interval = tuple[float, float]


def bootstrap_intervals(
    models: Sequence[ModelMetrics],
    scores: Sequence[Score],
    objective: str | SpectralObjective,
    *,
    paired: bool,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[Interval, ...]:
    """Intervals of the scores of candidates that are compared with each other.

    Args:
        models: the candidates' metrics.
        scores: theirs under the objective.
        objective: resolved.
        paired: whether the candidates have the same layers, in any order.
        seed: of all draws.
        draws: of layers.

    Returns:
        (low, high) a candidate; NaN where its score is, where a layer is broken, and where fewer
        than two layers count.
    """
    fine = [i for i, score in enumerate(scores) if score.status == OK and _known(score) >= 2]
    if paired and fine:
        names = sorted(set.intersection(*(set(scores[i].layers) for i in fine)))
        tables = {i: _layer_scores(models[i], objective, names, seed) for i in fine}
        common = _find_common(np.array([tables[i].mean(axis=0) for i in fine]))
        tables = {i: table - common for i, table in tables.items()}
    else:
        tables = {
            i: _layer_scores(models[i], objective, sorted(scores[i].layers), seed) for i in fine
        }
    intervals = [(math.nan, math.nan)] * len(scores)
    for i, table in tables.items():
        means = _draw_means(table, seed=seed, stream=0 if paired else i, draws=draws)
        # Around the score itself: what was taken out, and layers without a value, move the centre.
        centre = scores[i].value - float(np.nanmean(table))
        low, high = np.nanquantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + centre
        intervals[i] = (float(low), float(high))
    return tuple(intervals)


def overlap(one: Interval, other: Interval) -> bool:
    """Whether two scores are a tie; without an interval nothing can be said, and none is."""
    return one[0] <= other[1] and other[0] <= one[1]  # false where any end is NaN


def _find_common(scores: Array) -> Array:
    """What candidates (rows) have in common in each layer (column)."""
    known = [column[np.isfinite(column)] for column in scores.T]
    return np.array([trim_mean(c, TRIMMED) if c.size else math.nan for c in known])


def _known(score: Score) -> int:
    return sum(math.isfinite(value) for value in score.layers.values())


def _draw_means(table: Array, *, seed: int, stream: int, draws: int) -> Array:
    """Means of drawn layers, each in one of its variants; shape (draws,)."""
    variants, layers = table.shape
    generator = np.random.default_rng([seed, stream, layers])
    chosen = generator.integers(layers, size=(draws, layers))
    variant = generator.integers(variants, size=(draws, layers))
    drawn = table[variant, chosen]
    counts = np.isfinite(drawn).sum(axis=1)
    sums = np.nansum(drawn, axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _layer_scores(
    metrics: ModelMetrics, objective: str | SpectralObjective, names: Sequence[str], seed: int
) -> Array:
    """Scores of the named layers under several draws of their shuffles: (variants, layers)."""
    rows = []
    generator = np.random.default_rng(seed)
    reads_shuffles = isinstance(objective, SpectralObjective) and any(map(_count, metrics.layers))
    for _ in range(SHUFFLE_DRAWS if reads_shuffles else 1):
        drawn = metrics
        if reads_shuffles:
            layers = tuple(_draw_shuffles(layer, generator) for layer in metrics.layers)
            drawn = ModelMetrics(layers)
        found = score_model(drawn, objective).layers
        rows.append([found[name] for name in names])
    return np.array(rows, dtype=np.float64)


def _count(layer: LayerMetrics) -> int:
    """Shuffles of a layer among which can be drawn."""
    tops = None if layer.spectrum is None else layer.spectrum.shuffled_tops
    return 0 if tops is None or len(tops) < 2 else len(tops)


def _draw_shuffles(layer: LayerMetrics, generator: np.random.Generator) -> LayerMetrics:
    count = _count(layer)
    if count == 0 or layer.spectrum is None or layer.spectrum.shuffled_tops is None:
        return layer
    tops = layer.spectrum.shuffled_tops[generator.integers(count, size=count)]
    traps = find_traps(replace(layer.spectrum, shuffled_tops=tops))
    return replace(layer, trap_z=traps.trap_z, num_traps=float(traps.num_traps or 0))
