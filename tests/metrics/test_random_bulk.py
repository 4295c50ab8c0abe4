"""Random matrices are found random, spikes are counted, trained transformers have no bulk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures.weights.layers import plant

from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.model_metrics import LayerMetrics
from wwopt.metrics.random_bulk import bulk_density, find_bulk, looks_random

if TYPE_CHECKING:
    from fixtures.weights.layers import SpectrumOf

RNG = np.random.default_rng


def measure(spectrum_of: SpectrumOf, weights: np.ndarray, **options: object) -> LayerMetrics:
    return metrics_from_spectra([spectrum_of(weights, **options)]).layers[0]


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("gaussian", lambda rng, size: rng.standard_normal(size)),
        ("uniform", lambda rng, size: rng.uniform(-1, 1, size)),
        ("laplace", lambda rng, size: rng.laplace(size=size)),
        ("sparse", lambda rng, size: rng.standard_normal(size) * (rng.random(size) < 0.1)),
        ("student t3", lambda rng, size: rng.standard_t(3, size)),
    ],
)
@pytest.mark.parametrize("size", [(256, 256), (300, 100), (80, 320)])
def test_random_matrices_look_random(
    spectrum_of: SpectrumOf, name: str, draw: Callable[..., Any], size: tuple[int, int]
) -> None:
    assert looks_random(measure(spectrum_of, draw(RNG(1), size)))


def test_a_random_convolution_looks_random_with_its_slices_pooled(spectrum_of: SpectrumOf) -> None:
    weights = RNG(0).standard_normal((9, 64, 32))
    assert looks_random(measure(spectrum_of, weights, kind="conv2d"))


@pytest.mark.parametrize("strengths", [[3.0], [10.0, 3.0], list(np.geomspace(1.5, 10.0, 12))])
def test_planted_directions_are_counted(spectrum_of: SpectrumOf, strengths: list[float]) -> None:
    bulk = find_bulk(measure(spectrum_of, plant((300, 200), strengths)))
    assert bulk is not None and bulk.is_random
    assert bulk.num_spikes == len(strengths)
    # The edge is that of the noise, which the variance of all entries overestimates.
    assert bulk.edge == pytest.approx((math.sqrt(300) + math.sqrt(200)) ** 2, rel=0.05)


def test_a_huge_weight_explains_no_spikes_but_its_own(spectrum_of: SpectrumOf) -> None:
    noise, learned = RNG(0).standard_normal((300, 200)), plant((300, 200), [5.0, 4.0, 3.0])
    for weights, spikes in ((noise, 0), (learned, 4)):
        weights[7, 9] = 80.0
        bulk = find_bulk(measure(spectrum_of, weights))
        assert bulk is not None and bulk.is_random
        assert bulk.num_spikes == spikes


def test_scaling_the_weights_scales_the_edge_alone(spectrum_of: SpectrumOf) -> None:
    weights = plant((200, 100), [4.0])
    bulk, scaled = (find_bulk(measure(spectrum_of, w)) for w in (weights, 8.0 * weights))
    assert bulk is not None and scaled is not None
    assert scaled.edge == pytest.approx(64.0 * bulk.edge)
    assert replace(scaled, edge=bulk.edge) == bulk


def test_a_product_of_random_matrices_has_no_random_bulk(spectrum_of: SpectrumOf) -> None:
    rng = RNG(0)
    weights = rng.standard_normal((200, 200)) @ rng.standard_normal((200, 200))
    bulk = find_bulk(measure(spectrum_of, weights))
    assert bulk is not None
    assert not bulk.is_nearly_random


def test_the_density_integrates_to_the_share_of_the_bulk(spectrum_of: SpectrumOf) -> None:
    layer = measure(spectrum_of, plant((300, 200), [5.0, 4.0]))
    bulk = find_bulk(layer)
    assert bulk is not None
    at = np.linspace(1e-3, 1.1 * bulk.edge, 20_001)
    mass = float(np.trapezoid(bulk_density(bulk, layer, at), at))
    assert mass == pytest.approx(198 / 200, rel=1e-3)


def test_an_estimated_spectrum_is_judged_by_its_own_error(spectrum_of: SpectrumOf) -> None:
    layer = measure(spectrum_of, RNG(0).standard_normal((1000, 1000)), max_size=500)
    assert layer.method != "exact"
    assert looks_random(layer)
    spiked = find_bulk(measure(spectrum_of, plant((1200, 1000), [5.0, 3.0]), max_size=500))
    assert spiked is not None and spiked.is_random and spiked.num_spikes == 2


def test_no_bulk_is_sought_where_there_cannot_be_one(spectrum_of: SpectrumOf) -> None:
    rng = RNG(0)
    few = measure(spectrum_of, rng.standard_normal((300, 10)))
    narrow_slices = measure(spectrum_of, rng.standard_normal((49, 64, 3)))
    rank_deficient = measure(
        spectrum_of, rng.standard_normal((100, 20)) @ rng.standard_normal((20, 100))
    )
    not_finite = measure(spectrum_of, np.full((64, 64), np.nan))
    bare = replace(measure(spectrum_of, rng.standard_normal((64, 64))), spectrum=None)
    for layer in (few, narrow_slices, rank_deficient, not_finite, bare):
        bulk = find_bulk(layer)
        assert bulk is None or not bulk.is_nearly_random
        assert not looks_random(layer)
