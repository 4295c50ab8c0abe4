"""A model's picture shows every layer, and of which alphas there is what reason to doubt."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from fixtures.readers.pictures import draw, legend_of, line
from fixtures.weights.layers import well_trained

from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.pictures.alpha_axes import HIGHEST_ALPHA
from wwopt.metrics.pictures.model_plot import plot_overview

pytestmark = pytest.mark.usefixtures("nothing_of_matplotlib_is_changed")
RNG = np.random.default_rng


def model_of(count: int) -> ModelMetrics:
    rng = RNG(0)
    layers = [
        well_trained(name=f"model.layers.{i // 4}.attention.{'qkvo'[i % 4]}_proj", alpha=alpha)
        for i, alpha in enumerate(rng.uniform(1.5, 7.0, count))
    ]
    return ModelMetrics(tuple(layers))


@pytest.mark.parametrize("count", [1, 3, 40, 300])
def test_every_layer_is_in_the_overview(count: int) -> None:
    metrics = model_of(count)
    ax = plot_overview(metrics)
    figure = draw(ax)
    (points,) = [one for one in ax.lines if one.get_marker() == "o"]
    x, y = (np.asarray(v, dtype=float) for v in points.get_data())
    assert list(x) == list(range(count))
    assert list(y) == [layer.alpha for layer in metrics.layers]
    errors = np.concatenate([c.get_segments() for c in ax.collections])  # type: ignore[attr-defined]
    assert errors[:, 1, 1] - errors[:, 0, 1] == pytest.approx([0.4] * count)
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert low < min(y) - 0.2 and high > max(y) + 0.2
    labels = [label for label in ax.get_xticklabels() if label.get_text()]
    assert 1 <= len(labels) <= 130
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x0)
    assert all(one.x1 <= two.x0 + 1.0 for one, two in pairwise(boxes))
    assert figure.get_size_inches()[0] <= 20.0
    assert {"2", "6"} <= {label.get_text() for label in ax.get_yticklabels()}


def test_kinds_of_layers_are_told_apart() -> None:
    nan = math.nan
    layers = (
        well_trained(name="good"),
        well_trained(name="noise", hill=4.0, alpha=5.0),
        well_trained(name="short", num_pl_spikes=5),
        well_trained(name="trapped", num_traps=2, alpha=2.5),
        well_trained(name="head", status="too few eigenvalues", num_evals=10, alpha=9.0),
        well_trained(name="dead", status="zero", alpha=nan, sigma=nan),
        well_trained(name="one", status="collapsed", alpha=1.1, sigma=0.01),
        well_trained(name="flat", status="no power law", alpha=nan, sigma=nan),
        well_trained(name="wild", alpha=200.0, sigma=60.0),
        well_trained(name="tiny", status="too few eigenvalues", num_evals=1, alpha=nan, sigma=nan),
    )
    ax = plot_overview(ModelMetrics(layers))
    draw(ax)
    found = {
        str(one.get_label()): [int(x) for x in np.asarray(one.get_xdata())]
        for one in ax.lines
        if not str(one.get_label()).startswith("_")
    }
    assert found == {
        "alpha ± its standard error (3)": [0, 3, 8],
        "like a random matrix (1)": [1],
        "alpha is not reliable (1)": [2],
        "not counted (1)": [4],
        "broken, or without a fit (3)": [5, 6, 7],
        "with correlation traps (1)": [3],
        "above the axis (1)": [8],
    }
    assert line(ax, "not counted").get_markerfacecolor() == "none"
    heights = np.concatenate([np.asarray(one.get_ydata(), dtype=float) for one in ax.lines])
    assert np.isfinite(heights).all() and heights.max() <= HIGHEST_ALPHA
    markers = {one.get_marker() for one in ax.lines if str(one.get_label()) in found}
    assert len(markers) == 5  # colour is not all that tells them apart
    named = [text.get_text() for text in ax.texts]
    assert named == ["dead: zero", "one: collapsed", "flat: no power law"]
    (band,) = [patch for patch in ax.patches if "2 to 6" in str(patch.get_label())]
    extent = band.get_path().get_extents(band.get_patch_transform())
    assert [extent.y0, extent.y1] == pytest.approx([2.0, 6.0])
    assert legend_of(ax)[0].startswith("2 to 6")


def test_long_names_leave_out_what_they_share() -> None:
    names = [f"model.decoder.layers.{i}.self_attention.{p}_proj" for i in range(5) for p in "qkv"]
    ax = plot_overview(ModelMetrics(tuple(well_trained(name=name) for name in names)))
    draw(ax)
    assert [label.get_text() for label in ax.get_xticklabels()][:3] == [
        "0.q_proj",
        "0.k_proj",
        "0.v_proj",
    ]
    assert ax.get_xlabel() == "names without model, decoder, layers, self_attention"


@pytest.mark.parametrize(
    "metrics", [ModelMetrics(()), ModelMetrics((well_trained(status="zero"),))]
)
def test_a_model_without_a_fit_still_gives_a_picture(metrics: ModelMetrics) -> None:
    ax = plot_overview(metrics)
    draw(ax)
    assert ax.get_title(loc="left").startswith("alpha by depth")
