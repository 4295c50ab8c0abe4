"""A layer's picture shows all that explains it; layers that break it get their reason."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures.readers.pictures import draw, legend_of, line, words_of
from fixtures.weights.layers import plant, quantiles, well_trained
from matplotlib.figure import Figure

from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.model_metrics import LayerMetrics, ModelMetrics
from wwopt.metrics.pictures.layer_plot import plot_esd, shorten_label
from wwopt.metrics.pictures.model_plot import plot_overview
from wwopt.spectra.spectrum import LayerSpectrum

if TYPE_CHECKING:
    from fixtures.weights.layers import SpectrumOf


pytestmark = pytest.mark.usefixtures("nothing_of_matplotlib_is_changed")
RNG = np.random.default_rng


def measure(spectrum_of: SpectrumOf, weights: Any, **options: Any) -> LayerMetrics:
    return metrics_from_spectra([spectrum_of(weights, **options)]).layers[0]


def test_a_layer_is_drawn_with_all_that_explains_it(spectrum_of: SpectrumOf) -> None:
    weights = plant((300, 200), [8.0, 4.0, 2.0])
    weights[3, 4] = 40.0
    layer = measure(spectrum_of, weights, name="encoder.fc")
    spectrum = layer.spectrum
    assert spectrum is not None and spectrum.shuffled_tops is not None
    ax = plot_esd(layer)
    draw(ax)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_title(loc="left") == "encoder.fc"
    assert ax.get_title(loc="right") == "linear 300×200"
    assert "a random bulk plus 4 spikes" in words_of(ax)

    bars, outline = ax.patches[:2]
    assert bars.get_label() == "200 eigenvalues"
    assert outline.get_label() == "the same weights, shuffled"
    density, edges, _ = bars.get_data()  # type: ignore[attr-defined]
    assert float((density * np.diff(edges)).sum()) == pytest.approx(1.0)
    assert np.allclose(np.diff(np.log(edges)), np.log(edges[1] / edges[0]))  # logarithmic bins

    fit = line(ax, "power law, α")
    x, y = (np.asarray(v) for v in fit.get_data())
    assert f"{layer.alpha:.2f} ± {layer.sigma:.2f}" in str(fit.get_label())
    assert [x[0], x[-1]] == pytest.approx([layer.xmin, layer.xmax])
    assert np.diff(np.log(y)) / np.diff(np.log(x)) == pytest.approx(-layer.alpha)
    assert line(ax, "xmin").get_xdata()[0] == pytest.approx(layer.xmin)  # type: ignore[index]
    assert line(ax, "λmax").get_xdata()[0] == layer.xmax  # type: ignore[index]
    noise = (math.sqrt(300) + math.sqrt(200)) ** 2
    assert line(ax, "edge of that law").get_xdata()[0] == pytest.approx(noise, rel=0.05)  # type: ignore[index]
    trap = line(ax, "trap in the shuffled weights")
    assert np.asarray(trap.get_xdata()) == pytest.approx(spectrum.shuffled_tops[0, :1])
    low, high = ax.get_xlim()
    assert low < layer.xmin < layer.xmax < high


def test_as_many_traps_are_drawn_as_are_counted(spectrum_of: SpectrumOf) -> None:
    weights = RNG(0).standard_normal((300, 200))
    weights[[3, 40, 100], [5, 60, 150]] = 30.0, 40.0, 50.0
    layer = measure(spectrum_of, weights)
    ax = plot_esd(layer)
    assert len(np.asarray(line(ax, "traps").get_xdata())) == layer.num_traps == 3
    assert "3 traps" in words_of(ax)


def test_the_tail_is_drawn_one_by_one(spectrum_of: SpectrumOf) -> None:
    layer = measure(spectrum_of, plant((200, 100), [5.0, 3.0]))
    ax = plot_esd(layer)
    (rug,) = [one for one in ax.lines if one.get_marker() == "|"]
    assert len(np.asarray(rug.get_xdata())) == layer.num_pl_spikes


def test_two_slopes_are_drawn() -> None:
    values = quantiles(4.0, 1.8, turn=3.0, size=400)[:-2]
    spectrum = LayerSpectrum(
        name="fc",
        shape=(2 * values.size, values.size),
        num_slices=1,
        eigenvalues=values,
        element_mean=0.0,
        element_variance=float(values.mean()) / (2 * values.size),
    )
    ax = plot_esd(metrics_from_spectra([spectrum]).layers[0])
    draw(ax)
    x, y = (np.asarray(v) for v in line(ax, "two slopes").get_data())
    slopes = np.diff(np.log(y)) / np.diff(np.log(x))
    assert slopes[0] < -3.5 and -2.5 < slopes[-1] < -1.5


def test_convolutions_have_one_scale(spectrum_of: SpectrumOf) -> None:
    weights = RNG(0).standard_t(3, (9, 32, 32))
    layer = measure(spectrum_of, weights, kind="conv2d")
    assert layer.spectrum is not None
    top = float(layer.spectrum.eigenvalues[-1])
    assert layer.xmax == top  # a table's column is halved, the picture is not
    ax = plot_esd(layer)
    assert line(ax, "λmax").get_xdata()[0] == top  # type: ignore[index]
    fit = np.asarray(line(ax, "power law, α").get_xdata())
    assert [fit[0], fit[-1]] == pytest.approx([layer.xmin, top])
    assert ax.get_title(loc="right") == "conv2d 32×32×9"


@pytest.mark.parametrize(
    ("size", "said"),
    [((400, 100), "fitted"), ((100, 100), "from the variance")],
)
def test_the_edge_says_where_it_comes_from(
    spectrum_of: SpectrumOf, size: tuple[int, int], said: str
) -> None:
    rng = RNG(0)
    weights = rng.standard_normal(size) * np.exp(rng.standard_normal((size[0], 1)))
    layer = measure(spectrum_of, weights @ np.diag(np.geomspace(0.1, 3.0, size[1])))
    edge = line(plot_esd(layer), "Marchenko-Pastur edge")
    assert str(edge.get_label()).endswith(said)
    variance = layer.element_variance * (math.sqrt(layer.N) + math.sqrt(layer.M)) ** 2
    expected = layer.bulk_max if said == "fitted" else variance
    assert edge.get_xdata()[0] == pytest.approx(expected)  # type: ignore[index]


def test_without_its_shuffle_a_random_matrix_stands_in(spectrum_of: SpectrumOf) -> None:
    ax = plot_esd(measure(spectrum_of, RNG(0).standard_normal((200, 100)), shuffles=0))
    draw(ax)
    assert "a random matrix of the same variance" in legend_of(ax)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.zeros((64, 64)), "zero"),
        (np.full((64, 64), np.nan), "not finite"),
        (np.ones((64, 64)), "collapsed"),
        (np.eye(64), "no power law"),
        (np.ones((1, 9)), "too few eigenvalues"),
        (RNG(0).standard_normal((1, 1)), "too few eigenvalues"),
        (RNG(0).standard_normal((80, 5)) @ RNG(1).standard_normal((5, 80)), "rank deficient"),
        (1e-6 * RNG(0).standard_normal((64, 64)), "eigenvalues below 1e-5"),
        (1e120 * RNG(0).standard_normal((64, 64)), "looks untrained"),
        (1e-140 * RNG(0).standard_normal((64, 64)), "eigenvalues below 1e-5"),
        (1e-155 * RNG(0).standard_normal((64, 64)), "have no density"),
    ],
)
def test_a_degenerate_layer_still_gives_a_picture_with_its_reason(
    spectrum_of: SpectrumOf, weights: Any, said: str
) -> None:
    ax = plot_esd(measure(spectrum_of, weights))
    draw(ax)
    assert said in words_of(ax)
    for one in ax.lines:
        assert np.isfinite(np.asarray(one.get_data(), dtype=float)).all()


def test_eigenvalues_that_are_zero_to_rounding_are_counted_not_drawn(
    spectrum_of: SpectrumOf,
) -> None:
    rng = RNG(0)
    ax = plot_esd(
        measure(spectrum_of, rng.standard_normal((90, 30)) @ rng.standard_normal((30, 90)))
    )
    assert ax.get_xlim()[0] > 1e-6
    assert "not shown" in ax.get_xlabel()


def test_a_layer_without_a_spectrum_says_so() -> None:
    ax = plot_esd(well_trained())
    draw(ax)
    assert "nothing to draw: its spectrum was not kept" in words_of(ax)


@pytest.mark.parametrize("name", ["$x_{", "层.权重", "a\nb", "", "_", "\\frac$^", "w" * 300])
def test_names_are_text_and_not_mathematics(spectrum_of: SpectrumOf, name: str) -> None:
    layer = measure(spectrum_of, RNG(0).standard_normal((80, 60)), name=name)
    draw(plot_esd(layer))
    draw(plot_overview(ModelMetrics((layer, layer, replace(layer, status="zero")))))


def test_a_long_name_loses_its_middle() -> None:
    name = "model.decoder.layers.31.self_attention.query_projection"
    short = shorten_label(name, 30)
    assert len(short) == 30 and "…" in short
    assert short.startswith("model.decoder") and short.endswith("projection")


def test_pictures_fit_into_the_axes_of_others(spectrum_of: SpectrumOf) -> None:
    layer = measure(spectrum_of, plant((200, 100), [5.0, 3.0]))
    figure = Figure(figsize=(14, 10), layout="constrained")
    grid = figure.subplots(2, 2)
    for ax in grid.flat:
        assert plot_esd(layer, ax=ax) is ax
    figure.draw_without_rendering()
    assert min(ax.get_position().height for ax in grid.flat) > 0.2
    small = Figure(figsize=(3.5, 3.3), layout="constrained")
    plot_esd(layer, ax=small.add_subplot())
    small.draw_without_rendering()
    assert small.axes[0].get_position().height > 0.25
