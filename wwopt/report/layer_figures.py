"""The figures of a study's report that show its layers: alpha, hyperparameters, spectra."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from wwopt.metrics.colours import BLUE, GREY, ORANGE, VERMILLION
from wwopt.metrics.owners import group_by_kind, settings_of
from wwopt.report.figure_style import LAYOUT, NAME, Picture, new_figure, plain_text
from wwopt.report.page_data import ReportData
from wwopt.tracking.hyperparameters import BY_FACTOR, Setting, read_hyperparameters
from wwopt.tracking.keys import LAYER_ALPHA
from wwopt.tracking.tracked_trials import TrackedTrial

MAX_LAYERS = 40  # with a picture of their spectra: those where best and worst differ most
HIDDEN = 0.95  # share of eigenvalues above the left end of a spectrum's picture
ALPHA_SCALE = (1.0, 8.0)  # of the map's colours
OTHERS = "other complete trials"
# Trials by their place, the best drawn last.
GROUPS = {
    OTHERS: (slice(5, None), {"color": GREY, "width": 1}),
    "next four": (slice(1, 5), {"color": ORANGE, "width": 1.5, "dash": "dash"}),
    "best": (slice(0, 1), {"color": BLUE, "width": 3}),
}
ROLES = {"best": (BLUE, "solid"), "median": (ORANGE, "dash"), "worst": (GREY, "dot")}


def draw_alphas(data: ReportData) -> Picture | None:
    """Alpha by layer and trial; None where no trial logged any."""
    trials = [*data.study.judged, *_pruned(data)]
    keys = [layer for layer in data.layers if _has_alpha(trials, layer.key)]
    if not keys:
        return None
    z = np.array(
        [[t.metrics.get(f"{LAYER_ALPHA}/{layer.key}", math.nan) for t in trials] for layer in keys]
    )
    rows = list(range(len(keys)))
    hover = [
        [
            f"{plain_text(layer.name, 60)}<br>trial {t.number}: alpha {a:.2f}"
            for t, a in zip(trials, row, strict=True)
        ]
        for layer, row in zip(keys, z, strict=True)
    ]
    low, high = ALPHA_SCALE
    good, bad = ((bound - low) / (high - low) for bound in (2.0, 6.0))
    scale = [(0.0, VERMILLION), (good, "#F5C9A8"), (good, "#08306B"), (bad, "#D6E6F4")]
    figure = new_figure()
    figure.add_heatmap(
        z=z.astype(np.float32),
        x=[f"#{trial.number}" for trial in trials],
        y=rows,
        zmin=low,
        zmax=high,
        colorscale=[*scale, (bad, "#BDBDBD"), (1.0, "#525252")],
        colorbar={"title": "alpha", "tickvals": [1, 2, 4, 6, 8], "thickness": 14},
        text=hover,
        hoverinfo="text",
        xgap=1 if len(trials) <= 60 else 0,
        ygap=1,
    )
    figure.update_xaxes(title="trial, best first", type="category")
    figure.update_xaxes(nticks=15)
    figure.update_yaxes(
        tickvals=rows,
        ticktext=[plain_text(layer.name, NAME) for layer in keys],
        autorange="reversed",
        automargin=True,
    )
    return Picture(
        "alphas",
        "Alpha by layer and trial",
        "Dark blue is near 2, well trained; pale blue is towards 6; grey is above 6, hardly "
        "trained; orange is below 2, over-trained. Read a row: does a layer get better to the "
        "left? Read a column, complete trials first, then pruned ones: which layer holds a trial "
        "back? White: no alpha.",
        f"Map of alpha for {len(keys)} layers in {len(trials)} trials.",
        figure,
        180 + 24 * len(keys),
    )


def draw_depth(data: ReportData) -> Picture | None:
    """Hyperparameters by depth, best trials over all others; None where none belongs to layers."""
    judged = data.study.judged
    grouped = [group_by_kind(read_hyperparameters(trial)) for trial in judged]
    keys = [layer.key for layer in data.layers]
    # One row of the picture a trial: layer → kind → value, of the module that the layer is in.
    settings = [{key: settings_of(key, kinds) for key in keys} for kinds in grouped]
    used = {kind for trial in settings for own in trial.values() for kind in own}
    kinds = [kind for kind in dict.fromkeys(k for kinds in grouped for k in kinds) if kind in used]
    if not kinds or len(keys) < 2:
        return None
    figure = make_subplots(rows=len(kinds), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    figure.update_layout(LAYOUT)
    for row, kind in enumerate(kinds, start=1):
        lines = [[_number(trial[key].get(kind)) for key in keys] for trial in settings]
        for name, (place, style) in GROUPS.items():
            chosen = lines[place]
            if not chosen:
                continue
            figure.add_scatter(
                x=[*range(len(keys)), None] * len(chosen),
                y=[value for line in chosen for value in (*line, None)],
                mode="lines+markers" if len(keys) < 60 else "lines",
                line=style,
                marker={"size": 7 if name == "best" else 4},
                name=name,
                # Many lines must stay lines.
                opacity=1.0 if name != OTHERS else max(0.15, min(0.6, 20 / len(chosen))),
                legendgroup=name,
                showlegend=row == 1,
                hoverinfo="y",
                row=row,
                col=1,
            )
        figure.update_yaxes(title=kind, row=row, col=1, automargin=True)
        if kind in BY_FACTOR:
            figure.update_yaxes(type="log", row=row, col=1)
    step = math.ceil(len(keys) / 20)
    figure.update_xaxes(
        tickvals=list(range(0, len(keys), step)),
        ticktext=[plain_text(layer.name, NAME) for layer in data.layers[::step]],
        row=len(kinds),
        col=1,
    )
    return Picture(
        "depth",
        "Hyperparameters by depth",
        "From the first layer to the last. Do the best trials share a shape, as rates that fall "
        "with depth? Where the coloured lines spread as wide as the grey ones, the value does not "
        "matter there, or too few trials have shown it.",
        f"{', '.join(kinds)} of {len(keys)} layers for {len(judged)} complete trials; the best "
        f"five are coloured.",
        figure,
        120 + 190 * len(kinds),
    )


def draw_spectra(data: ReportData) -> list[Picture]:
    """For each layer the spectra of the best, the median and the worst trial, overlaid."""
    shown = [e for e in data.exemplars if e.spectra]
    names = [x.name for x in data.layers if any(x.name in (e.spectra or {}) for e in shown)]
    pictures = []
    for number, name in enumerate(_choose_layers(data, names)):
        figure = new_figure()
        told = []
        for exemplar in shown:
            spectrum = (exemplar.spectra or {}).get(name)
            if spectrum is None:
                continue
            colour, dash = ROLES[exemplar.role]
            alpha = _alpha_of(exemplar.table, name)
            told.append(f"{exemplar.role} {alpha}")
            figure.add_scatter(
                x=spectrum[0],
                y=spectrum[1],
                mode="lines",
                line={"color": colour, "dash": dash, "width": 2},
                name=f"{exemplar.role} #{exemplar.trial.number}: {alpha}",
                hovertemplate="λ %{x:.3g}: %{y:.3f} above",
            )
        spectra = [e.spectra[name] for e in shown if e.spectra and name in e.spectra]
        figure.update_xaxes(title="eigenvalue λ", **_log_axis(*_range_of(spectra)))
        figure.update_yaxes(
            title="share above", **_log_axis(0.8 * min(float(s[1][-1]) for s in spectra), 1.2)
        )
        figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
        pictures.append(
            Picture(
                f"spectrum{number}",
                name,
                "",
                f"Share of eigenvalues above λ in layer {name}: {'; '.join(told)}.",
                figure,
                330,
            )
        )
    return pictures


def _range_of(spectra: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """From where a twentieth of the eigenvalues lie below, to the largest with room."""
    low = min(float(np.interp(-HIDDEN, -s[1], s[0])) for s in spectra)
    return low, 1.3 * max(float(s[0][-1]) for s in spectra)


def _log_axis(low: float, high: float) -> dict[str, object]:
    """A logarithmic axis; a tick a decade where it spans two."""
    wide = high / low >= 100.0
    ticks = {"dtick": 1} if wide else {"dtick": "D2"}
    return {"type": "log", "range": [math.log10(low), math.log10(high)], **ticks}


def _choose_layers(data: ReportData, names: Sequence[str]) -> list[str]:
    if len(names) <= MAX_LAYERS:
        return list(names)
    ends = [e.table for e in data.exemplars if e.role in ("best", "worst") and e.table is not None]
    alphas = [dict(zip(t["longname"].astype(str), t["alpha"], strict=True)) for t in ends]
    spread = {n: abs(alphas[0].get(n, 0.0) - alphas[-1].get(n, 0.0)) for n in names}
    kept = set(sorted(names, key=lambda n: -spread[n])[:MAX_LAYERS])
    return [name for name in names if name in kept]


def _pruned(data: ReportData) -> list[TrackedTrial]:
    pruned = [t for t in data.study.trials if t.state == "PRUNED" and math.isfinite(t.value)]
    return sorted(pruned, key=lambda trial: trial.value)


def _has_alpha(trials: Sequence[TrackedTrial], key: str) -> bool:
    return any(f"{LAYER_ALPHA}/{key}" in trial.metrics for trial in trials)


def _alpha_of(table: pd.DataFrame | None, name: str) -> str:
    if table is None:
        return "no alpha"
    rows = table[table["longname"] == name]
    if rows.empty or not math.isfinite(rows["alpha"].iloc[0]):
        return "no alpha"
    return f"α {rows['alpha'].iloc[0]:.2f} ± {rows['sigma'].iloc[0]:.2f}"


def _number(value: Setting | None) -> float | None:
    return value if isinstance(value, float) else None
