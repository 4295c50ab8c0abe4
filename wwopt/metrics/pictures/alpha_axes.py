"""Axes of alpha by depth, which the pictures of a model and of a ranking share.

Alpha on a log scale upwards, the band of well trained layers behind it, layers to the right.
"""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from wwopt.metrics.colours import GREEN
from wwopt.metrics.model_metrics import OVER_TRAINED, UNDER_TRAINED
from wwopt.metrics.pictures.layer_plot import width_of

TICKS = (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)
HIGHEST_ALPHA = 30.0  # a layer beyond it has no power law anyway; drawn at the edge
NAME_PITCH = 0.14  # inches between names below the axis, at 7 points
BESIDE: dict[str, Any] = {  # a legend to the right of the axes, where no alpha can be
    "loc": "upper left",
    "bbox_to_anchor": (1.0, 1.0),
    "fontsize": 8.5,
    "frameon": False,
}


def scale_alpha(ax: Axes, bottom: float, top: float) -> None:
    """Let alpha go from `bottom` to `top`, with ticks at numbers that people think in."""
    ax.set(yscale="log", ylim=(bottom, top), ylabel="alpha")
    ticks = [tick for tick in TICKS if bottom <= tick <= top]
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)


def shade_well_trained(ax: Axes) -> Rectangle:
    """Shade the alphas of layers that are neither over- nor under-trained."""
    return ax.axhspan(OVER_TRAINED, UNDER_TRAINED, color=GREEN, alpha=0.13, linewidth=0)


def write_layer_names(ax: Axes, names: Sequence[str]) -> int:
    """Name the layers at 0, 1, … below the axis; where all would overlap, one in a few.

    Returns:
        Of how many layers one is named.
    """
    step = math.ceil(len(names) * NAME_PITCH / width_of(ax))
    few = len(names) <= 6
    style: dict[str, Any] = {"fontsize": 9 if few else 7, "rotation": 0 if few else 90}
    ax.set_xticks(range(0, len(names), step), names[::step], parse_math=False, **style)
    return step
