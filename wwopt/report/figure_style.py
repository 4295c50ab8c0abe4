"""How a report's figures look: colours of terms, axes, the words that go with each."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from wwopt.metrics.colours import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from wwopt.wording import shorten

TERM_COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, "#F0E442", GREY, "#000000")
OUTLIER = 3.0  # interquartile ranges above the upper quartile, beyond which the axis ends
NAME = 28  # characters of a layer's name on an axis

LAYOUT = go.Layout(
    template="none",
    margin={"l": 60, "r": 20, "t": 30, "b": 50},
    font={"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
    legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    paper_bgcolor="white",
    plot_bgcolor="white",
    hovermode="closest",
    xaxis={"automargin": True},
    yaxis={"automargin": True},
)


@dataclass(frozen=True)
class Picture:
    """One figure with its words."""

    key: str  # id in the page
    title: str
    caption: str  # what to look for
    alt: str  # what it shows, for who cannot see it
    figure: go.Figure
    height: int  # pixels
    min_width: int = 0  # pixels below which it scrolls


def new_figure() -> go.Figure:
    """An empty figure in the report's style."""
    return go.Figure(layout=LAYOUT)


def axis_top(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The upper end of an axis that a few penalised trials must not squeeze."""
    if len(values) == 0:
        return 1.0
    low, quartile, upper, high = np.percentile(values, [0, 25, 75, 100])
    limit = upper + OUTLIER * (upper - quartile)
    return float(high if high <= limit or upper == low else limit)


def plain_text(name: str, longest: int) -> str:
    """Text that plotly must not take for its own tags."""
    return html.escape(shorten(name, longest), quote=False)
