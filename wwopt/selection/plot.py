"""A picture of a ranking: the alphas of all candidates by depth, the best one in front."""

import math
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from wwopt.metrics.colours import BLUE, GREY, ORANGE, PURPLE, SKY, VERMILLION
from wwopt.metrics.model_metrics import LayerMetrics
from wwopt.metrics.pictures.alpha_axes import (
    BESIDE,
    HIGHEST_ALPHA,
    scale_alpha,
    shade_well_trained,
    write_layer_names,
)
from wwopt.metrics.pictures.layer_plot import new_axes, shorten_label, write_reason
from wwopt.metrics.verdicts import judge_layer
from wwopt.selection.families import ALONE, SAME
from wwopt.selection.rankings import RankedCandidate, Ranking, shorten_names

COLOURS = (BLUE, VERMILLION, ORANGE, PURPLE, SKY, "black", GREY)  # in order of places
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
STYLES = ("-", "--", ":", "-.")  # of families
NAME_WIDTH = 34  # characters of a candidate in the legend
LAYER_WIDTH = 24  # characters of a layer below the axis


def plot_ranking(ranking: Ranking, *, ax: Axes | None = None) -> Axes:
    """Draw alpha by depth, a line a candidate.

    Candidates of one architecture stand over the same layers; otherwise depth goes from the first
    layer to the last. Hollow marks are alphas not to believe in. Beyond seven candidates the colour
    is the place, and the first and the last of each family are named.
    """
    members = [member for member in ranking if any(map(_is_drawn, member.metrics.counted))]
    same = len(ranking.families) == 1 and ranking.families[0].question == SAME
    if ax is None:
        ax = new_axes(9.5, 5.2)
    ax.set_title(_say(ranking), loc="left", fontsize=11, parse_math=False)
    if not members:
        write_reason(ax, "no candidate has a layer with an alpha")
        return ax
    many = len(members) > len(COLOURS)
    shades: Colormap = colormaps["viridis"]
    shade_well_trained(ax)
    styles = dict(zip([f.label for f in ranking.families], cycle(STYLES)))
    ends = {f.members[i].name for f in ranking.families for i in (0, -1)}
    short = shorten_names([member.name for member in ranking])
    for index, member in reversed(list(enumerate(members))):
        look: dict[str, Any] = {"color": COLOURS[index % 7], "marker": MARKERS[index % 7]}
        if many:
            look = {"color": shades(0.9 * index / (len(members) - 1)), "marker": "o"}
        best = member.place == 1
        named = not many or member.name in ends
        _draw_candidate(
            ax,
            member,
            named=_label(member, short, len(ranking.families) > 1) if named else "_",
            same=same,
            linestyle=styles[member.family],
            linewidth=2.6 if best else 1.2,
            markersize=6.0 if best or not many else 3.5,
            zorder=4 if best else 3,
            **look,
        )
    _scale(ax, [layer for member in members for layer in member.metrics.counted])
    if same:
        _write_layers(ax, [layer.name for layer in members[0].metrics.counted])
    else:
        ax.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["first layer", "¼", "½", "¾", "last layer"])
        ax.set_xlabel("depth")
    handles, labels = ax.get_legend_handles_labels()
    title = "hollow: no alpha to believe in" + (f"\n{len(members)} candidates by place" * many)
    ax.legend(
        handles[::-1],
        labels[::-1],
        title=title,
        title_fontsize=8.5,
        alignment="left",
        **BESIDE,
    )
    return ax


def _say(ranking: Ranking) -> str:
    ranked = [family for family in ranking.families if family.question != ALONE]
    if len(ranking.families) == 1 and ranked:
        first = ranked[0].members[0]
        tied = f", tied with {len(first.ties)}" if first.ties else ""
        name = shorten_names([member.name for member in ranking])[first.name]
        return f"alpha by depth; first by {first.objective}: {shorten_label(name, 40)}{tied}"
    return "alpha by depth; of different families, so no order is claimed among all"


def _label(member: RankedCandidate, short: Mapping[str, str], several: bool) -> str:
    family = f"{member.family} " if several else ""
    place = "" if member.place is None else f"{member.place}. "
    return f"{family}{place}{shorten_label(short[member.name], NAME_WIDTH)}"


def _is_drawn(layer: LayerMetrics) -> bool:
    return math.isfinite(layer.alpha) and layer.alpha > 1.0


def _draw_candidate(
    ax: Axes, member: RankedCandidate, *, named: str, same: bool, color: Any, **look: Any
) -> None:
    layers = member.metrics.counted
    x = np.arange(len(layers), dtype=np.float64)
    if not same:
        x = x / max(len(layers) - 1, 1)
    alphas = [min(v.alpha, HIGHEST_ALPHA) if _is_drawn(v) else math.nan for v in layers]
    ax.plot(x, alphas, color=color, label=named, **look)
    doubtful = [i for i, layer in enumerate(layers) if _is_drawn(layer) and not _is_sure(layer)]
    hollow = look | {"linestyle": "none", "markerfacecolor": "white", "markeredgecolor": color}
    ax.plot(x[doubtful], [alphas[i] for i in doubtful], label="_", **hollow)


def _is_sure(layer: LayerMetrics) -> bool:
    return judge_layer(layer).verdict not in ("looks untrained", "unreliable")


def _scale(ax: Axes, layers: list[LayerMetrics]) -> None:
    alphas = [layer.alpha for layer in layers if _is_drawn(layer)]
    bottom = max(0.9 * min(1.5, *alphas, 1.5), 1.0)
    top = min(1.15 * max([8.0, *alphas]), 1.1 * HIGHEST_ALPHA)
    scale_alpha(ax, bottom, top)


def _write_layers(ax: Axes, names: list[str]) -> None:
    step = write_layer_names(ax, [shorten_label(name, LAYER_WIDTH) for name in names])
    ax.set_xlabel("layer" + (f" (one name in {step})" if step > 1 else ""))
