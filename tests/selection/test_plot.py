"""The picture of a ranking: every candidate's alphas over its layers, names, marks and edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wwopt.metrics.model_metrics import LayerMetrics, ModelMetrics
from wwopt.metrics.pictures.alpha_axes import HIGHEST_ALPHA
from wwopt.selection.plot import COLOURS, plot_ranking
from wwopt.selection.rankings import Ranking
from wwopt.selection.selection import rank

pytestmark = pytest.mark.usefixtures("nothing_of_matplotlib_is_changed")


def model_of(alphas: Sequence[float], *, name: str = "layer{}", width: int = 300) -> ModelMetrics:
    """Layers of these alphas, with fits to believe in."""
    return ModelMetrics(
        tuple(
            LayerMetrics(
                name=name.format(i),
                N=400,
                M=width,
                num_evals=width,
                alpha=alpha,
                alpha_weighted=alpha,
                sigma=0.1,
                D=0.05,
                num_pl_spikes=60,
                hill=2.2,
                hill_random=4.0,
            )
            for i, alpha in enumerate(alphas)
        )
    )


def draw(ranking: Ranking) -> Axes:
    """Render as a file would be: warnings are errors."""
    ax = plot_ranking(ranking)
    figure = ax.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    return ax


def lines_of(ax: Axes) -> list[Line2D]:
    """The candidates' lines, without those that only mark layers."""
    return [line for line in ax.lines if line.get_linestyle() != "None"]


def legend_of(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_candidates_of_one_architecture_stand_over_the_same_layers() -> None:
    alphas = {"good": [2.2, 2.6, 3.0], "bad": [4.0, 5.0, 7.0], "worst": [9.0, 9.0, 9.0]}
    ranking = rank({name: model_of(values) for name, values in alphas.items()}, objective="alpha")
    ax = draw(ranking)
    found = {str(line.get_label()): line for line in lines_of(ax)}
    assert set(found) == {"1. good", "2. bad", "3. worst"}
    for name, values in alphas.items():
        (line,) = [line for label, line in found.items() if label.endswith(name)]
        assert list(np.asarray(line.get_xdata())) == [0.0, 1.0, 2.0]
        assert list(np.asarray(line.get_ydata())) == values
    assert [text.get_text() for text in ax.get_xticklabels()] == ["layer0", "layer1", "layer2"]
    assert legend_of(ax) == ["1. good", "2. bad", "3. worst"]
    assert found["1. good"].get_linewidth() > found["2. bad"].get_linewidth()
    assert found["1. good"].get_zorder() > found["2. bad"].get_zorder()
    assert "first by alpha: good" in ax.get_title(loc="left")


def test_sizes_share_a_depth_from_first_to_last() -> None:
    models = {"short": model_of([2.0, 3.0]), "long": model_of([2.0, 2.5, 3.0, 3.5, 4.0])}
    ax = draw(rank(models, objective="alpha_hat"))
    for line in lines_of(ax):
        x = np.asarray(line.get_xdata())
        assert x[0] == 0.0 and x[-1] == 1.0
    assert ax.get_xlabel() == "depth"


def test_families_have_line_styles_and_the_title_claims_no_order() -> None:
    models = {"a": model_of([2.0, 3.0]), "b": model_of([2.0, 3.0], name="h.{}.attn")}
    ax = draw(rank(models, objective="alpha"))
    assert len({line.get_linestyle() for line in lines_of(ax)}) == 2
    assert "no order" in ax.get_title(loc="left")
    assert legend_of(ax) == ["A a", "B b"]


def test_alphas_that_are_not_to_be_believed_are_hollow() -> None:
    sure = model_of([2.5, 3.0, 3.5])
    doubtful = replace(sure.layers[1], D=0.4)
    models = {"a": ModelMetrics((sure.layers[0], doubtful, sure.layers[2])), "b": sure}
    ax = draw(rank(models, objective="alpha"))
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    marked = [np.asarray(line.get_xdata()).tolist() for line in hollow]
    assert sorted(marked) == [[], [1.0]]


def test_an_alpha_beyond_the_axis_is_drawn_at_its_edge_and_a_missing_one_is_a_gap() -> None:
    models = {"a": model_of([3.0, 300.0, math.nan, 2.0]), "b": model_of([2.0, 2.0, 2.0, 2.0])}
    ax = draw(rank(models, objective="alpha"))
    (line,) = [line for line in lines_of(ax) if str(line.get_label()).endswith("a")]
    y = np.asarray(line.get_ydata())
    assert y[1] == HIGHEST_ALPHA
    assert math.isnan(y[2])
    assert ax.get_yscale() == "log"
    low, high = ax.get_ylim()
    assert low < 2.0 and high >= HIGHEST_ALPHA


def test_many_candidates_are_shaded_by_place_and_only_the_ends_are_named() -> None:
    models = {f"m{i:02}": model_of([2.0 + 0.1 * i, 2.5 + 0.1 * i]) for i in range(20)}
    ax = draw(rank(models, objective="alpha"))
    assert len(lines_of(ax)) == 20
    assert legend_of(ax) == ["1. m00", "20. m19"]
    assert len({tuple(line.get_color()) for line in lines_of(ax)}) == 20


def test_few_candidates_have_colours_that_can_be_told_apart() -> None:
    models = {f"m{i}": model_of([2.0 + i, 2.5 + i]) for i in range(7)}
    ax = draw(rank(models, objective="alpha"))
    assert {line.get_color() for line in lines_of(ax)} == set(COLOURS)
    assert len({line.get_marker() for line in lines_of(ax)}) == 7


def test_many_layers_keep_their_names_apart() -> None:
    models = {"a": model_of(np.linspace(2, 6, 150)), "b": model_of(np.linspace(3, 7, 150))}
    ax = draw(rank(models, objective="alpha"))
    assert len(ax.get_xticks()) < 80
    assert "one name in" in ax.get_xlabel()


def test_names_that_a_font_lacks_or_mathematics_claims_are_drawn() -> None:
    odd = {"$x_1$ 模型": model_of([2.0, 3.0], name="$l_{}$"), "b\n": model_of([2.0, 3.0])}
    draw(rank(odd, objective="alpha", families=dict.fromkeys(odd, "f")))


def test_without_any_alpha_it_says_so() -> None:
    ax = draw(rank({"a": model_of([math.nan, math.nan])}, objective="log_norm"))
    assert "no candidate has a layer with an alpha" in ax.texts[0].get_text()


def test_draws_into_axes_that_are_given() -> None:
    given = Figure().add_subplot()
    assert plot_ranking(rank({"a": model_of([2.0, 3.0])}, objective="alpha"), ax=given) is given
