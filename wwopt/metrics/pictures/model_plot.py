"""A picture of one model: alpha by depth, which layers it can be believed of, and which broke."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from wwopt.metrics.colours import BLUE, GREY, ORANGE, PURPLE, SKY, VERMILLION
from wwopt.metrics.model_metrics import (
    DEGENERATE,
    OVER_TRAINED,
    UNDER_TRAINED,
    LayerMetrics,
    ModelMetrics,
)
from wwopt.metrics.pictures.alpha_axes import (
    BESIDE,
    HIGHEST_ALPHA,
    scale_alpha,
    shade_well_trained,
    write_layer_names,
)
from wwopt.metrics.pictures.layer_plot import new_axes, shorten_label, write_reason
from wwopt.metrics.verdicts import judge_layer

LABEL_WIDTH = 30  # characters; longer names lose what they share, then their middle
MOSTLY = 0.8  # of the layers; parts of dotted names that so many share tell nothing

# Group of layers → how it is drawn, what the legend says.
GROUPS: dict[str, tuple[dict[str, Any], str]] = {
    "reliable": ({"marker": "o", "color": BLUE, "markersize": 6}, "alpha ± its standard error"),
    "random": ({"marker": "s", "color": SKY, "markersize": 6}, "like a random matrix"),
    "unreliable": ({"marker": "D", "color": ORANGE, "markersize": 6}, "alpha is not reliable"),
    "not counted": (
        {"marker": "o", "color": GREY, "markersize": 6, "markerfacecolor": "none"},
        "not counted",
    ),
    # Crosses, at the bottom, with their names.
    "broken": ({"marker": "X", "color": VERMILLION, "markersize": 9}, "broken, or without a fit"),
}
RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 13,
    "markerfacecolor": "none",
    "markeredgewidth": 1.8,
    "color": PURPLE,
}
ARROW: dict[str, Any] = {
    "marker": "^",
    "markersize": 9,
    "color": "black",
    "clip_on": False,
    "in_layout": False,
}


def plot_overview(metrics: ModelMetrics, *, ax: Axes | None = None) -> Axes:
    """Draw alpha ± its standard error of every layer, in the model's order.

    A cross at the bottom is a layer without an alpha to believe in, with its name and why; an
    alpha beyond the axis is drawn at its edge. Names are thinned where they would overlap.
    """
    layers = metrics.layers
    if ax is None:
        ax = new_axes(min(max(7.5, 4.0 + 0.17 * len(layers)), 20.0), 5.2)
    ax.set_title(_say(metrics), loc="left", fontsize=11)
    if not layers:
        write_reason(ax, "no layer with a weight matrix")
        return ax
    groups = [_group(layer) for layer in layers]
    bottom, top = _scale_axes(ax, layers, groups)
    heights = [
        bottom * (top / bottom) ** 0.05 if group == "broken" else min(layer.alpha, top)
        for layer, group in zip(layers, groups, strict=True)
    ]
    band = f"{OVER_TRAINED:g} to {UNDER_TRAINED:g}: neither over- nor under-trained"
    shaded = shade_well_trained(ax)
    shaded.set_label(band)
    shown: list[Any] = [shaded]
    for group, (style, words) in GROUPS.items():
        at = [i for i, found in enumerate(groups) if found == group and math.isfinite(heights[i])]
        if at:
            errors = [layers[i].sigma if layers[i].alpha == heights[i] else 0.0 for i in at]
            label = f"{words} ({len(at)})"
            y = [heights[i] for i in at]
            ax.errorbar(at, y, np.nan_to_num(errors), fmt="none", color=style["color"])
            shown += ax.plot(at, y, linestyle="none", label=label, **style)
    rings = {
        "with correlation traps": ([layer.num_traps >= 1.0 for layer in layers], RING),
        "above the axis": ([height == top for height in heights], ARROW),
    }
    for words, (holds, style) in rings.items():
        at = [i for i, held in enumerate(holds) if held and math.isfinite(heights[i])]
        if at:
            label = f"{words} ({len(at)})"
            y = [heights[i] for i in at]
            shown += ax.plot(at, y, linestyle="none", label=label, **style)
    _write_names(ax, layers, groups)
    ax.legend(handles=shown, labelspacing=0.9, **BESIDE)
    return ax


def _say(metrics: ModelMetrics) -> str:
    counted = metrics.counted
    if not counted:
        return "alpha by depth: no layer counts"
    good = sum(judge_layer(layer).verdict == "well trained" for layer in counted)
    return f"alpha by depth: {good} of {len(counted)} counted layers look well trained"


def _group(layer: LayerMetrics) -> str:
    if not layer.counted:
        return "not counted"
    if layer.status in DEGENERATE or not math.isfinite(layer.alpha):
        return "broken"
    groups = {"looks untrained": "random", "unreliable": "unreliable"}
    return groups.get(judge_layer(layer).verdict, "reliable")


def _scale_axes(
    ax: Axes, layers: Sequence[LayerMetrics], groups: Sequence[str]
) -> tuple[float, float]:
    """Make room for every error bar; lowest and highest alpha on the axis."""
    drawn = [layer for layer, group in zip(layers, groups, strict=True) if group != "broken"]
    known = [layer for layer in drawn if math.isfinite(layer.alpha) and layer.sigma >= 0.0]
    bottom = 0.9 * min([1.5, *(layer.alpha - layer.sigma for layer in known)])
    top = min(1.15 * max([8.0, *(layer.alpha + layer.sigma for layer in known)]), HIGHEST_ALPHA)
    scale_alpha(ax, bottom, top)
    ax.set_xlim(-0.7, len(layers) - 0.3)
    return bottom, top


def _write_names(ax: Axes, layers: Sequence[LayerMetrics], groups: Sequence[str]) -> None:
    names, left_out = _abbreviate([layer.name for layer in layers])
    step = write_layer_names(ax, names)
    notes = [f"one name in {step}"] if step > 1 else []
    notes += [f"names without {', '.join(left_out)}"] if left_out else []
    if notes:
        ax.set_xlabel("; ".join(notes), fontsize=8, parse_math=False)
    said: dict[str, Any] = {
        "transform": ax.get_xaxis_transform(),
        "rotation": 90,
        "ha": "center",
        "va": "bottom",
        "fontsize": 8,
        "color": VERMILLION,
        "bbox": {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0},
        "clip_on": True,
        "parse_math": False,
    }
    last = -step
    for index, layer in enumerate(layers):
        if groups[index] == "broken" and index - last >= step:
            last = index
            ax.text(index, 0.1, f"{names[index]}: {layer.status}", **said)


def _abbreviate(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Leave out of long dotted names what nearly all have in common, and say what."""
    parts = [name.split(".") for name in names]
    left_out: list[str] = []
    if max(map(len, names)) > LABEL_WIDTH:
        counts = Counter(part for split in parts for part in dict.fromkeys(split))
        common = {part for part, count in counts.items() if count >= MOSTLY * len(names)}
        left_out = [part for part in counts if part in common and not part.isdigit()]
    kept = [".".join(part for part in split if part not in left_out) for split in parts]
    short = [
        shorten_label(some or name, LABEL_WIDTH) for some, name in zip(kept, names, strict=True)
    ]
    return short, [shorten_label(part, LABEL_WIDTH) for part in left_out]
