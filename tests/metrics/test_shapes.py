"""Spectra whose shape is known are called by it; the words hold on a trained network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from fixtures.weights.layers import plant, quantiles
from numpy.typing import NDArray
from torch import nn

import wwopt
from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.model_metrics import LayerMetrics, ModelMetrics
from wwopt.metrics.shapes import find_outlier, find_shape, fit_two_slopes
from wwopt.metrics.text import describe, say_verdict
from wwopt.metrics.verdicts import judge_layer
from wwopt.spectra.power_law import fit_power_law
from wwopt.spectra.spectrum import LayerSpectrum

if TYPE_CHECKING:
    from fixtures.weights.layers import SpectrumOf

RNG = np.random.default_rng


def layer_of(eigenvalues: NDArray[np.float64], *, kind: str = "linear") -> LayerMetrics:
    n = eigenvalues.size
    spectrum = LayerSpectrum(
        name="fc",
        shape=(2 * n, n),
        num_slices=1,
        eigenvalues=eigenvalues,
        element_mean=0.0,
        element_variance=float(eigenvalues.sum()) / (2 * n * n),
        kind=kind,
    )
    return metrics_from_spectra([spectrum]).layers[0]


def measure(spectrum_of: SpectrumOf, weights: NDArray[np.float64]) -> LayerMetrics:
    return metrics_from_spectra([spectrum_of(weights)]).layers[0]


def pareto(alpha: float, size: int) -> NDArray[np.float64]:
    u = (np.arange(size) + 0.5) / size
    return (1.0 - u) ** (-1.0 / (alpha - 1.0))


def test_a_random_matrix_is_indistinguishable_from_one(spectrum_of: SpectrumOf) -> None:
    layer = measure(spectrum_of, RNG(0).standard_normal((256, 256)))
    assert find_shape(layer).words == ("indistinguishable from a random matrix",)
    assert judge_layer(layer).verdict == "looks untrained"


def test_an_untrained_layer_with_a_large_alpha_is_not_called_well_trained() -> None:
    torch.manual_seed(0)
    metrics = wwopt.analyze(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256)))
    assert [judge_layer(layer).verdict for layer in metrics.layers] == ["looks untrained"] * 2


def test_spikes_are_counted_and_the_tail_is_said_to_be_bulk(spectrum_of: SpectrumOf) -> None:
    layer = measure(spectrum_of, plant((300, 200), list(np.geomspace(1.5, 10.0, 12))))
    shape = find_shape(layer)
    assert shape.name == "random bulk plus spikes"
    inside = int(layer.num_pl_spikes) - 12
    assert shape.words[0] == "a random bulk plus 12 spikes"
    assert f"{inside} of the {inside + 12} eigenvalues fitted belong to the bulk" in shape.words


def test_a_mean_shows_as_a_spike_of_its_own(spectrum_of: SpectrumOf) -> None:
    layer = measure(spectrum_of, RNG(0).standard_normal((256, 128)) + 0.3)
    assert str(find_shape(layer)).startswith("a random bulk plus 1 spike, one from the weights'")


@pytest.mark.parametrize("strength", [30.0, 100.0])
def test_an_outlier_that_carries_the_fit_is_named(spectrum_of: SpectrumOf, strength: float) -> None:
    layer = measure(spectrum_of, plant((300, 200), [strength], seed=3))
    without = find_outlier(layer)
    assert without is not None and without > layer.alpha + 2.0 * layer.sigma
    said = f"a single outlier carries the fit (alpha {without:.2f} without it)"
    assert said in find_shape(layer).words
    assert say_verdict(layer) in ("unreliable: a single outlier", "collapsed")


def test_the_largest_of_a_clean_power_law_is_no_outlier() -> None:
    drawn = [RNG(seed).pareto(1.5, 300) + 1.0 for seed in range(60)]
    assert sum(find_outlier(layer_of(values)) is not None for values in drawn) <= 2


@pytest.mark.parametrize("alpha", [2.0, 2.5])
def test_a_clean_power_law_is_called_clean(alpha: float) -> None:
    layer = layer_of(pareto(alpha, 500))
    shape = find_shape(layer)
    assert shape.name == "clean power law"
    decades = math.log10(layer.spectrum.eigenvalues[-2] / layer.xmin)  # type: ignore[union-attr]
    assert shape.words == (f"a clean power law over {decades:.1f} decades",)


def test_most_samples_of_a_power_law_are_called_clean() -> None:
    names = [find_shape(layer_of(RNG(s).pareto(1.2, 300) + 1.0)).name for s in range(20)]
    assert names.count("clean power law") >= 14


def test_two_slopes_are_told_where_they_lie() -> None:
    layer = layer_of(quantiles(4.0, 1.8, turn=3.0, size=400)[:-2])
    fit = fit_two_slopes(layer)
    assert fit is not None
    assert fit.alpha_low > 3.5 and fit.alpha_high < 2.5
    assert fit.break_at == pytest.approx(3.0, rel=0.3)
    assert find_shape(layer).name == "two slopes"


def test_other_tails_do_not_have_two_slopes() -> None:
    rng = RNG(0)
    tails = [rng.pareto(1.5, 300) + 1.0 for _ in range(10)]
    tails += [np.exp(rng.standard_normal(300)) for _ in range(10)]
    tails += [rng.exponential(size=300) for _ in range(10)]
    assert sum(fit_two_slopes(layer_of(tail)) is not None for tail in tails) <= 1


def test_a_cutoff_bends_the_tail_down() -> None:
    said = []
    for seed in range(12):
        rng = RNG(seed)
        values = rng.pareto(0.5, 800) + 1.0
        kept = values[rng.random(values.size) < np.exp(-values / 50.0)]
        said.append("the tail bends down" in find_shape(layer_of(kept)).words)
    assert sum(said) >= 8
    straight = [find_shape(layer_of(RNG(s).pareto(1.5, 300) + 1.0)).words for s in range(30)]
    assert sum("the tail bends down" in words for words in straight) <= 1


def test_a_start_that_jumps_is_told_with_the_other_alpha() -> None:
    base = layer_of(pareto(2.0, 400))
    values = base.spectrum.eigenvalues  # type: ignore[union-attr]
    jumped = replace(base, alpha=base.alpha + 5.0, num_pl_spikes=20.0, xmin=float(values[-20]))
    without = fit_power_law(values[:-1]).alpha
    said = f"alpha hangs on where the tail starts ({without:.2f} without the largest eigenvalue)"
    assert said in find_shape(jumped).words
    assert find_shape(base).words[1:] == ()


def test_a_bounded_spectrum_has_a_short_tail(spectrum_of: SpectrumOf) -> None:
    values = np.sort(RNG(0).uniform(1.0, 2.0, 300)) ** 2
    assert find_shape(layer_of(values)).name in ("short tail", "tail like a random matrix's")


def test_a_huge_weight_is_named_as_the_cause_of_the_largest_eigenvalue(
    spectrum_of: SpectrumOf,
) -> None:
    weights = RNG(0).standard_normal((300, 200))
    weights[17, 5] = 60.0
    words = find_shape(measure(spectrum_of, weights)).words
    assert words[-2:] == ("1 trap", "λmax is one huge weight")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.zeros((64, 64)), "every weight is zero"),
        (np.full((64, 64), np.nan), "the weights hold NaN or infinity, or squares that overflow"),
        (np.ones((64, 64)), "one direction holds 100 % of the sum of squares"),
        (np.eye(64), "the largest eigenvalues are equal: there is no tail"),
        (RNG(0).standard_normal((64, 10)), "10 eigenvalues, a shape needs 50"),
        (RNG(0).standard_normal((1, 9)), "1 eigenvalue, a shape needs 50"),
        (1e-6 * RNG(0).standard_normal((64, 64)), "eigenvalues too small for a fit"),
    ],
)
def test_a_layer_without_a_shape_says_why(
    spectrum_of: SpectrumOf, weights: NDArray[np.float64], said: str
) -> None:
    assert find_shape(measure(spectrum_of, weights)).words[0] == said


def test_rank_deficiency_is_counted(spectrum_of: SpectrumOf) -> None:
    rng = RNG(0)
    layer = measure(spectrum_of, rng.standard_normal((100, 20)) @ rng.standard_normal((20, 90)))
    assert str(find_shape(layer)) == "70 of 90 eigenvalues are zero"


def test_without_a_spectrum_nothing_is_claimed() -> None:
    layer = replace(layer_of(pareto(2.5, 500)), spectrum=None)
    assert str(find_shape(layer)) == "its spectrum was not kept"
    assert find_outlier(layer) is None and fit_two_slopes(layer) is None


def test_the_scale_of_convolutions_changes_no_word() -> None:
    values = RNG(0).pareto(1.2, 300) + 1.0
    linear, conv = layer_of(values), layer_of(values, kind="conv2d")
    assert (conv.unit, linear.unit) == (2.0, 1.0) and conv.xmin == linear.xmin
    assert find_shape(conv) == find_shape(linear)


def test_training_grows_spikes_from_a_random_bulk() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU())
    head = nn.Linear(200, 5)
    x = torch.randn(600, 32)
    y = (x @ torch.randn(32, 5)).argmax(1)
    before = find_shape(wwopt.analyze(model)["2"])
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=0.1, momentum=0.9)
    for _ in range(60):
        loss = nn.functional.cross_entropy(head(model(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = find_shape(wwopt.analyze(model)["2"])
    assert before.name == "random"
    assert after.name == "random bulk plus spikes"


def test_the_description_groups_layers_by_shape(spectrum_of: SpectrumOf) -> None:
    random = [spectrum_of(RNG(s).standard_normal((80, 60)), name=f"r{s}") for s in range(4)]
    spiked = spectrum_of(plant((120, 80), [4.0, 3.0]), name="spiked")
    zero = spectrum_of(np.zeros((64, 64)), name="dead")
    text = describe(metrics_from_spectra([*random, spiked, zero]))
    assert "Shapes: 4 × random; 1 × random bulk plus spikes (spiked)." in text
    assert "Shapes" not in describe(ModelMetrics(()))
