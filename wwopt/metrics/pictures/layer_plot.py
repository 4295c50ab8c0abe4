"""A picture of one layer: its spectrum, the power law, and what a random matrix would do.

Colours are Okabe & Ito's, which colour-blind readers can tell apart; dashes and markers differ too.
"""

import math
import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from wwopt.metrics.colours import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from wwopt.metrics.model_metrics import LayerMetrics
from wwopt.metrics.random_bulk import bulk_density, find_bulk
from wwopt.metrics.shapes import find_shape, fit_two_slopes
from wwopt.metrics.text import say_verdict
from wwopt.spectra.broken_power_law import broken_density
from wwopt.spectra.marchenko_pastur import marchenko_pastur_quantiles, trap_z
from wwopt.spectra.traps import TRAP_THRESHOLD
from wwopt.wording import shorten

NARROW = 4.2  # inches; axes below it get smaller words and one column of legend

Spectrum = NDArray[np.float64]  # (n,), ascending


def plot_esd(layer: LayerMetrics, *, ax: Axes | None = None) -> Axes:
    """Draw the spectrum of a layer on log-log axes, with its fit and its random references.

    Everything is on the scale of λ, the eigenvalues of WᵀW; the columns `xmin` and `bulk_max` of
    2-D convolutions are half of that. A layer without a spectrum gets the reason instead.
    """
    if ax is None:
        ax = new_axes(7.2, 5.2)
    shape = find_shape(layer)
    _write_titles(ax, layer, str(shape))
    spectrum = layer.spectrum
    values = _positive(np.empty(0) if spectrum is None else spectrum.eigenvalues)
    if spectrum is None or values.size == 0:
        reason = "its spectrum was not kept" if spectrum is None else layer.status
        write_reason(ax, f"nothing to draw: {reason}")
        return ax
    shuffled, random = _random_reference(layer)
    top = float(values[-1])
    # Far below the median, or zero to rounding: they would squeeze all else into a corner.
    real = values[values > top * layer.N * np.finfo(np.float64).eps]
    low = max(float(real[0]), 1e-2 * float(np.median(real)))
    high = max(top, float(shuffled[-1]) if shuffled.size else 0.0)
    if high < 2.0 * low:
        low, high = low / 2.0, high * 2.0
    bins = _log_bins(values, low, high)
    n = layer.num_evals
    with np.errstate(over="ignore"):
        bars, outline = (np.histogram(v, bins)[0] / np.diff(bins) / n for v in (values, shuffled))
    heights = np.concatenate([bars, outline])
    if not (np.isfinite(heights).all() and heights.any()):
        write_reason(ax, f"nothing to draw: eigenvalues up to {top:.3g} have no density")
        return ax
    floor = 0.4 * float(heights[heights > 0.0].min())
    ax.set(
        xscale="log", yscale="log", xlim=(low / 1.1, high * 1.4), ylim=(floor, 2.0 * heights.max())
    )
    name = f"{n} eigenvalue{'s' * (n > 1)}" + ", estimated" * (layer.method != "exact")
    ax.stairs(bars, bins, baseline=floor, fill=True, color=SKY, alpha=0.5, label=name)
    if outline.any():
        outline = np.maximum(outline, floor)
        ax.stairs(outline, bins, baseline=floor, color="black", linewidth=1.1, label=random)
    _draw_fit(ax, layer, shape.name)
    _draw_edge(ax, layer)
    _draw_top(ax, layer, values)
    hidden = n - int(np.count_nonzero(values >= low))
    note = f"  ({hidden} below {low:.1g} not shown)" if hidden else ""
    ax.set(xlabel=f"eigenvalue λ{note}", ylabel="density")
    _write_legend(ax)
    return ax


def new_axes(width: float, height: float) -> Axes:
    """Axes of a new figure of this size in inches, unknown to pyplot."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained").add_subplot()


def width_of(ax: Axes) -> float:
    """Width in inches, before a layout."""
    return float(ax.bbox.width / ax.figure.dpi)


def shorten_label(name: str, longest: int) -> str:
    """A name cut in its middle, without what matplotlib's font may not have."""
    # A missing glyph is a warning, a box in the picture, and no help to the reader.
    drawable = "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in name)
    return shorten(drawable, longest)


def write_reason(ax: Axes, reason: str) -> None:
    """Put words where a picture would have been."""
    style: dict[str, Any] = {"fontsize": 11, "color": GREY, "parse_math": False}
    ax.text(0.5, 0.5, reason, transform=ax.transAxes, ha="center", va="center", **style)
    ax.set(xticks=[], yticks=[])


def _write_titles(ax: Axes, layer: LayerMetrics, words: str) -> None:
    narrow = width_of(ax) < NARROW
    size = 7.0 if narrow else 9.0
    width = int(width_of(ax) * 150.0 / size)  # characters
    said = ". ".join(part[0].upper() + part[1:] for part in (say_verdict(layer), words))
    rows = math.ceil(len(said) / width)
    # Lines of about the same length: no word stands alone in the last.
    lines = textwrap.wrap(said, min(width, math.ceil(len(said) / rows) + 10))
    text: dict[str, Any] = {"transform": ax.transAxes, "va": "bottom", "parse_math": False}
    ax.text(0.0, 1.02, "\n".join(lines), fontsize=size, linespacing=1.3, **text)
    above = 8.0 + 1.4 * size * len(lines)  # points: the words are below the title
    title: dict[str, Any] = {"pad": above, "parse_math": False}
    name = shorten_label(layer.name, 32 if narrow else 54)
    ax.set_title(name, loc="left", fontsize=size + 2.0, weight="bold", **title)
    if not narrow:
        slices = f"×{layer.num_slices}" if layer.num_slices > 1 else ""
        shape = f"{layer.kind} {layer.N}×{layer.M}{slices}"
        ax.set_title(shape, loc="right", fontsize=size, color=GREY, **title)


def _draw_fit(ax: Axes, layer: LayerMetrics, shape: str) -> None:
    if not (math.isfinite(layer.alpha) and layer.xmax > layer.xmin):
        return
    xmin, xmax = layer.xmin, layer.xmax
    at = np.geomspace(xmin, xmax, 100)
    share = layer.num_pl_spikes / layer.num_evals
    power = share * (layer.alpha - 1.0) / xmin * (at / xmin) ** -layer.alpha
    label = f"power law, α = {layer.alpha:.2f} ± {layer.sigma:.2f} (D {layer.D:.3f})"
    ax.plot(at, power, color=VERMILLION, linewidth=2.2, label=label)
    label = f"xmin {xmin:.3g}: {layer.num_pl_spikes:.0f} eigenvalues in the tail"
    ax.axvline(xmin, color=VERMILLION, linestyle=":", linewidth=1.4, label=label)
    slopes = fit_two_slopes(layer) if shape == "two slopes" else None
    if slopes is not None:
        at = np.geomspace(slopes.xmin, xmax, 100)
        density = broken_density(slopes, at) * slopes.num_evals / layer.num_evals
        label = f"two slopes, {slopes.alpha_low:.1f} and {slopes.alpha_high:.1f}"
        ax.plot(at, density, color=ORANGE, linestyle="-.", linewidth=2.2, label=label)


def _draw_edge(ax: Axes, layer: LayerMetrics) -> None:
    """The edge of the Marchenko-Pastur bulk from the best source there is, and a random bulk."""
    bulk = find_bulk(layer)
    if bulk is not None and bulk.is_nearly_random:
        edge, words = bulk.edge, "edge of that law, {:.3g}"
        at = np.geomspace(ax.get_xlim()[0], edge, 400)
        law = bulk_density(bulk, layer, at)
        inside = law > 0.0  # beyond the edges the log axis has no place for it
        label = "Marchenko-Pastur law of a random bulk"
        ax.plot(at[inside], law[inside], color=GREEN, linewidth=1.6, label=label)
    elif math.isfinite(layer.bulk_max):
        edge, words = layer.bulk_max, "Marchenko-Pastur edge {:.3g}, fitted"
    else:
        root = math.sqrt(layer.N) + math.sqrt(layer.M)
        edge = layer.element_variance * root**2
        words = "Marchenko-Pastur edge {:.3g}, from the variance"
    if edge > 0.0:
        style: dict[str, Any] = {"color": GREEN, "linestyle": "--", "linewidth": 1.6}
        ax.axvline(edge, label=words.format(edge), **style)


def _draw_top(ax: Axes, layer: LayerMetrics, values: Spectrum) -> None:
    """λmax, every eigenvalue of the tail as a tick, and the traps."""
    # Outside of layouts: markers on the floor make matplotlib's constrained one collapse grids.
    at_floor: dict[str, Any] = {
        "transform": ax.get_xaxis_transform(),
        "linestyle": "none",
        "clip_on": False,
        "in_layout": False,
    }
    start = layer.xmin if math.isfinite(layer.xmin) else 0.0
    tail = values[values >= start]
    ax.plot(tail, np.full(tail.size, 0.015), marker="|", color=BLUE, markersize=7, **at_floor)
    top = float(values[-1])
    label = f"λmax {top:.3g}"
    ax.plot([top], [0.03], marker="v", color=BLUE, markersize=8, label=label, **at_floor)
    spectrum = layer.spectrum
    if not layer.num_traps >= 1.0 or spectrum is None or spectrum.shuffled_tops is None:
        return
    N, M, variance = layer.N, layer.M, layer.element_variance
    found = [
        [float(x) for x in tops if trap_z(float(x), N, M, variance) >= TRAP_THRESHOLD]
        for tops in spectrum.shuffled_tops
    ]
    # The number that the words and the table say is the median over shuffles.
    traps = next((one for one in found if len(one) == layer.num_traps), max(found, key=len))
    label = f"trap{'s' * (len(traps) > 1)} in the shuffled weights (z {layer.trap_z:.0f})"
    cross: dict[str, Any] = {"marker": "X", "markersize": 9, "color": PURPLE, "mec": "black"}
    ax.plot(traps, np.full(len(traps), 0.1), label=label, **cross, **at_floor)


def _write_legend(ax: Axes) -> None:
    """Below the axes, where no spectrum can be; a fixed distance, whatever their height."""
    width = width_of(ax)
    narrow = width < NARROW
    size = 6.5 if narrow else 8.5 * min(width / 5.5, 1.0)  # two columns as wide as the axes
    below = ScaledTranslation(0.0, -4.2 * size / 72.0, ax.figure.dpi_scale_trans)
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        bbox_transform=ax.transAxes + below,
        borderaxespad=0.0,
        ncols=1 if narrow else 2,
        fontsize=size,
        labelspacing=0.2 if narrow else 0.5,
        frameon=False,
        handlelength=1.8,
    )
    ax.tick_params(labelsize=size + 1.0)
    ax.xaxis.label.set_fontsize(size + 1.5)
    ax.yaxis.label.set_fontsize(size + 1.5)


def _random_reference(layer: LayerMetrics) -> tuple[Spectrum, str]:
    """The first shuffle's eigenvalues, or what they would be where they were not kept."""
    spectrum = layer.spectrum
    if spectrum is not None and spectrum.shuffled_eigenvalues is not None:
        return _positive(spectrum.shuffled_eigenvalues), "the same weights, shuffled"
    if not layer.element_variance > 0.0:
        return np.empty(0), ""
    law = marchenko_pastur_quantiles(layer.N / layer.M, layer.num_evals)
    return law * layer.N * layer.element_variance, "a random matrix of the same variance"


def _positive(values: Spectrum) -> Spectrum:
    return values[np.isfinite(values) & (values > 0.0)]


def _log_bins(values: Spectrum, low: float, high: float) -> Spectrum:
    """Equal bins in log λ, as wide as Freedman & Diaconis say, 6 to 40 a decade."""
    logs = np.log10(values[values >= low])
    quartiles = np.quantile(logs, [0.25, 0.75])
    width = 2.0 * float(quartiles[1] - quartiles[0]) / max(logs.size, 1) ** (1.0 / 3.0)
    decades = math.log10(high / low)
    count = math.ceil(decades / min(max(width, 1.0 / 40.0), 1.0 / 6.0))
    # The outermost edges are a little beyond, so that rounding loses no eigenvalue.
    return np.geomspace(low * (1.0 - 1e-9), high * (1.0 + 1e-9), max(count, 4) + 1)
