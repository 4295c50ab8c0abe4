"""Intervals of scores: closed forms, scipy as a witness, invariances, and the promise on ties."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from fixtures.weights.layers import spectrum_with_tops
from scipy import stats

from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.model_metrics import LayerMetrics, ModelMetrics
from wwopt.metrics.objective import SpectralObjective
from wwopt.selection.intervals import bootstrap_intervals, overlap
from wwopt.selection.scores import score_model

RNG = np.random.default_rng


def model_of(values: Sequence[float]) -> ModelMetrics:
    """A model whose layers have these values of alpha_weighted."""
    layers = [
        LayerMetrics(name=f"l{i}", N=100, M=100, num_evals=100, alpha=2.0, alpha_weighted=value)
        for i, value in enumerate(values)
    ]
    return ModelMetrics(tuple(layers))


def intervals_of(
    *models: ModelMetrics, paired: bool, seed: int = 0, draws: int = 2000
) -> tuple[tuple[float, float], ...]:
    scores = [score_model(model, "alpha_hat") for model in models]
    return bootstrap_intervals(models, scores, "alpha_hat", paired=paired, seed=seed, draws=draws)


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = RNG(0).normal(size=400)
    ((low, high),) = intervals_of(model_of(values), paired=False, draws=20_000)
    half = 1.96 * values.std() / math.sqrt(values.size)
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_agrees_with_scipys_bootstrap() -> None:
    values = RNG(1).exponential(size=30)
    ((low, high),) = intervals_of(model_of(values), paired=False, draws=50_000)
    witness = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=50_000, rng=RNG(2)
    ).confidence_interval
    assert low == pytest.approx(witness.low, abs=0.01)
    assert high == pytest.approx(witness.high, abs=0.01)


def test_two_candidates_tie_exactly_when_their_paired_difference_may_be_zero() -> None:
    """The promise of the module, on differences from clear to none; scipy has the difference."""
    rng = RNG(3)
    seen = set()
    for shift in np.linspace(0.0, 1.2, 25):
        first = 5.0 * rng.normal(size=12)  # layers differ far more than candidates do
        second = first + shift + rng.normal(size=12)
        one, other = intervals_of(model_of(first), model_of(second), paired=True, draws=20_000)
        witness = stats.bootstrap(
            (second - first,), np.mean, method="percentile", n_resamples=20_000, rng=rng
        ).confidence_interval
        if min(abs(witness.low), abs(witness.high)) < 0.03:
            continue  # a draw's width from the edge
        tied = bool(witness.low <= 0.0 <= witness.high)
        assert overlap(one, other) == tied
        seen.add(tied)
    assert seen == {True, False}


def test_a_difference_that_all_layers_share_is_no_tie_however_layers_differ() -> None:
    values = 10.0 * RNG(4).normal(size=8)
    one, other = intervals_of(model_of(values), model_of(values + 0.01), paired=True)
    assert one[1] - one[0] == pytest.approx(0.0, abs=1e-9)
    assert not overlap(one, other)
    apart = intervals_of(model_of(values), model_of(values + 0.01), paired=False)
    assert overlap(*apart)


def test_equal_candidates_tie() -> None:
    values = RNG(5).normal(size=8)
    for paired in (True, False):
        assert overlap(*intervals_of(model_of(values), model_of(values), paired=paired))


def test_what_all_candidates_share_in_a_layer_does_not_count() -> None:
    rng = RNG(6)
    models = [rng.normal(size=10) for _ in range(4)]
    shift = 100.0 * rng.normal(size=10)
    plain = intervals_of(*(model_of(v) for v in models), paired=True)
    shifted = intervals_of(*(model_of(v + shift) for v in models), paired=True)
    for (low, high), (low2, high2) in zip(plain, shifted, strict=True):
        assert low2 - low == pytest.approx(shift.mean())
        assert high2 - high == pytest.approx(shift.mean())


def test_one_bad_candidate_does_not_blur_the_others() -> None:
    rng = RNG(7)
    layers = rng.normal(size=10)
    models = [model_of(layers + 0.1 * rng.normal(size=10)) for _ in range(5)]
    bad = layers.copy()
    bad[3] += 1000.0
    without = intervals_of(*models, paired=True)
    beside = intervals_of(*models, model_of(bad), paired=True)
    for (low, high), (low2, high2) in zip(without, beside, strict=False):
        assert high2 - low2 < 2.0 * (high - low)


def test_the_order_of_candidates_and_of_layers_changes_nothing() -> None:
    rng = RNG(8)
    models = [model_of(rng.normal(size=9)) for _ in range(3)]
    straight = intervals_of(*models, paired=True)
    assert intervals_of(*models[::-1], paired=True) == straight[::-1]
    turned = [ModelMetrics(model.layers[::-1]) for model in models]
    for one, other in zip(intervals_of(*turned, paired=True), straight, strict=True):
        assert one == pytest.approx(other)


def test_the_seed_decides() -> None:
    model = model_of(RNG(9).normal(size=20))
    assert intervals_of(model, paired=False, seed=1) == intervals_of(model, paired=False, seed=1)
    assert intervals_of(model, paired=False, seed=1) != intervals_of(model, paired=False, seed=2)


def test_candidates_without_pairs_have_draws_of_their_own() -> None:
    values = RNG(10).normal(size=30)
    one, other = intervals_of(model_of(values), model_of(values), paired=False)
    assert one != other


def test_layers_without_a_value_are_left_out() -> None:
    values = RNG(11).normal(size=20)
    gaps = np.append(values, [math.nan] * 5)
    ((low, high),) = intervals_of(model_of(gaps), paired=False)
    assert low < values.mean() < high
    one, other = intervals_of(model_of(gaps), model_of(gaps + 5.0), paired=True)
    assert not overlap(one, other)


@pytest.mark.parametrize("values", [[1.0], [], [math.nan, 1.0]])
def test_fewer_than_two_layers_have_no_interval(values: list[float]) -> None:
    ((low, high),) = intervals_of(model_of(values), paired=True)
    assert math.isnan(low) and math.isnan(high)
    assert not overlap((low, high), (0.0, 1.0))
    assert not overlap((0.0, 1.0), (low, high))


def test_a_broken_candidate_has_no_interval_and_does_not_count_for_what_is_common() -> None:
    values = RNG(12).normal(size=10)
    good, better = model_of(values), model_of(values - 1.0)
    broken = model_of(values * 100.0)
    scores = [score_model(model, "alpha_hat") for model in (good, better, broken)]
    scores[2] = replace(scores[2], status="broken: l0 collapsed")
    found = bootstrap_intervals((good, better, broken), scores, "alpha_hat", paired=True)
    assert math.isnan(found[2][0])
    assert found[:2] == intervals_of(good, better, paired=True)


UNBOUNDED = SpectralObjective(trap_weight=0.1)  # the term stays under its bound for these shuffles


def interval_of_shuffles(tops: Sequence[float]) -> tuple[float, float]:
    """Two equal layers, so that drawing layers changes nothing."""
    metrics = metrics_from_spectra([spectrum_with_tops(name, tops) for name in "ab"])
    score = score_model(metrics, UNBOUNDED)
    return bootstrap_intervals([metrics], [score], UNBOUNDED, paired=False)[0]


def test_shuffles_that_differ_widen_the_interval() -> None:
    low, high = interval_of_shuffles([900.0, 900.0, 900.0])
    assert high - low == pytest.approx(0.0, abs=1e-12)
    low, high = interval_of_shuffles([600.0, 900.0, 1500.0])
    # Traps are scored by their mean over three drawn shuffles: the ends are three times the least
    # and the most extreme, each drawn with probability 1/27.
    ends = [
        score_model(metrics_from_spectra([spectrum_with_tops("a", [top] * 3)]), UNBOUNDED)
        for top in (600.0, 1500.0)
    ]
    assert ends[0].value <= low < high <= ends[1].value
    assert high - low > 0.3 * (ends[1].value - ends[0].value)
