"""Axes of alpha have ticks that people think in, the band of well trained layers, and names."""

import math

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wwopt.metrics.pictures.alpha_axes import (
    NAME_PITCH,
    scale_alpha,
    shade_well_trained,
    write_layer_names,
)

pytestmark = pytest.mark.usefixtures("nothing_of_matplotlib_is_changed")


def axes() -> Axes:
    return Figure(figsize=(6.0, 4.0)).add_subplot()


def test_the_scale_is_logarithmic_with_the_ticks_that_lie_in_it() -> None:
    ax = axes()
    scale_alpha(ax, 1.4, 11.0)
    assert ax.get_yscale() == "log"
    assert ax.get_ylim() == (1.4, 11.0)
    assert list(ax.get_yticks()) == [1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0]
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == ["1.5", "2"]
    assert list(ax.get_yticks(minor=True)) == []


def test_layers_from_two_to_six_are_shaded() -> None:
    ax = axes()
    band = shade_well_trained(ax)
    extent = band.get_path().get_extents(band.get_patch_transform())
    assert (extent.y0, extent.y1) == (2.0, 6.0)


@pytest.mark.parametrize("count", [1, 6, 7, 300])
def test_as_many_layers_are_named_as_have_room(count: int) -> None:
    ax = axes()
    step = write_layer_names(ax, [f"l{i}" for i in range(count)])
    width = 6.0 * 0.775  # of the axes, in matplotlib's own margins
    assert step == math.ceil(count * NAME_PITCH / width)
    assert list(ax.get_xticks()) == list(range(0, count, step))
    assert ax.get_xticklabels()[-1].get_text() == f"l{range(0, count, step)[-1]}"
    upright = {label.get_rotation() for label in ax.get_xticklabels()}
    assert upright == ({0.0} if count <= 6 else {90.0})


def test_names_are_text_and_not_mathematics() -> None:
    ax = axes()
    write_layer_names(ax, ["$x_{", "b"])
    ax.figure.draw_without_rendering()
