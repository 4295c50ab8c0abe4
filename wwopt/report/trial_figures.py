"""The figures of a study's report that show its trials: history, terms, hyperparameters."""

import math
from collections.abc import Sequence

import numpy as np

from wwopt.metrics.colours import BLUE, GREY, VERMILLION
from wwopt.report.figure_style import TERM_COLOURS, Picture, axis_top, new_figure, plain_text
from wwopt.report.leaderboard import find_differing, is_logarithmic, tell_status
from wwopt.report.page_data import ReportData
from wwopt.tracking.hyperparameters import Setting
from wwopt.tracking.keys import VALUE
from wwopt.tracking.tracked_trials import TrackedTrial
from wwopt.wording import shorten

MAX_AXES = 12  # of the parallel coordinates: those that mattered most


def draw_history(data: ReportData) -> Picture:
    """Objective of every trial, in order."""
    trials = [trial for trial in data.study.trials if math.isfinite(trial.value)]
    top = axis_top([t.value for t in trials if t.state == "COMPLETE"] or [t.value for t in trials])
    figure = new_figure()
    styles = {"COMPLETE": ("circle", BLUE), "PRUNED": ("triangle-down-open", GREY)}
    for state, (symbol, colour) in styles.items():
        own = [trial for trial in trials if trial.state == state]
        figure.add_scatter(
            x=[trial.number for trial in own],
            y=[min(trial.value, top) for trial in own],
            text=[_hover(trial) for trial in own],
            hoverinfo="text",
            mode="markers",
            marker={"symbol": symbol, "color": colour, "size": 9},
            name=f"{state.lower()} ({len(own)})",
        )
    failed = [trial for trial in data.study.trials if trial.state == "FAIL"]
    if failed:
        figure.add_scatter(
            x=[trial.number for trial in failed],
            y=[top] * len(failed),
            text=[_hover(trial) for trial in failed],
            hoverinfo="text",
            mode="markers",
            marker={"symbol": "x", "color": VERMILLION, "size": 9},
            name=f"failed ({len(failed)})",
        )
    complete = [trial for trial in trials if trial.state == "COMPLETE" and not trial.violated]
    if complete:
        lowest = np.minimum.accumulate([trial.value for trial in complete])
        figure.add_scatter(
            x=[trial.number for trial in complete],
            y=lowest,
            mode="lines",
            line={"shape": "hv", "color": "#000000", "width": 1.5},
            name="best so far",
            hoverinfo="skip",
        )
    figure.update_layout(xaxis_title="trial", yaxis_title="objective (lower is better)")
    best = data.best
    where = "" if best is None else f" Trial {best.trial.number} is the lowest."
    return Picture(
        "history",
        "History",
        "Has the black line been flat for long? Then more trials of this kind are worth little. "
        "Is it still falling? Then go on. Values far above the others stand at the upper edge, and "
        "failed trials as crosses there.",
        f"Objective of {len(trials)} trials by number, with the best so far as a line.{where}",
        figure,
        360,
    )


def draw_terms(data: ReportData) -> Picture | None:
    """What the objective of every complete trial is made of; None without terms."""
    judged = data.study.judged
    no_term = {VALUE, f"objective/{data.study.second}"}
    keys = dict.fromkeys(
        key
        for t in judged
        for key in t.metrics
        if key.startswith("objective/") and key not in no_term
    )
    used = [key for key in keys if any(t.metrics.get(key, 0.0) != 0.0 for t in judged)]
    if not used:
        return None
    figure = new_figure()
    names = [f"#{trial.number}" for trial in judged]
    for key, colour in zip(sorted(used), TERM_COLOURS * 3, strict=False):
        figure.add_bar(
            x=names,
            y=[trial.metrics.get(key, 0.0) for trial in judged],
            name=key.removeprefix("objective/"),
            marker_color=colour,
            hovertemplate="%{x}: %{y:+.3f}",
        )
    values = [trial.value for trial in judged]
    top = axis_top(values)
    figure.add_scatter(
        x=names,
        y=[min(value, top) for value in values],
        mode="markers",
        marker={"symbol": "diamond", "color": "#000000", "size": 6},
        name="objective",
        hovertemplate="%{x}: %{y:.3f}",
    )
    figure.update_layout(
        barmode="relative",
        xaxis_title="complete trial, best first",
        yaxis={"title": "terms of the objective", "range": _range_of_terms(judged, used, top)},
    )
    figure.update_xaxes(type="category", nticks=15)
    return Picture(
        "terms",
        "What the objective is made of",
        "Downwards is good. Do the best trials win by a lower loss, by a better tail, or by "
        "avoiding a penalty? A term that is large in the best trial is its weak side.",
        f"Stacked bars of the terms {', '.join(k.removeprefix('objective/') for k in used)} for "
        f"{len(judged)} complete trials, ordered by objective.",
        figure,
        380,
    )


def draw_parallel(data: ReportData) -> Picture | None:
    """Hyperparameters and objective as parallel coordinates; None without hyperparameters."""
    trials = list(reversed(data.study.judged))  # the best is drawn last, on top
    settings = [find_differing(trials)[trial.run_id] for trial in trials] if trials else []
    names = [*data.importance.shares]
    names += [n for n in dict.fromkeys(n for s in settings for n in s) if n not in names]
    shown = [name for name in names if all(name in values for values in settings)][:MAX_AXES]
    if len(trials) < 2 or not shown:
        return None
    value = np.array([trial.value for trial in trials])
    clipped = np.minimum(value, axis_top(value))
    axes = [_axis(name, [values[name] for values in settings]) for name in shown]
    axes.append({"label": "objective", "values": clipped})
    figure = new_figure()
    figure.add_parcoords(
        dimensions=axes,
        line={"color": clipped, "colorscale": "Cividis", "showscale": False},
        labelangle=-20,
        # Both ends of every axis in digits would cover its name.
        rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
    )
    figure.update_layout(margin={"l": 70, "r": 70, "t": 90, "b": 20})
    more = f", the {len(shown)} of {len(names)} that mattered most" * (len(shown) < len(names))
    return Picture(
        "parallel",
        "Hyperparameters of every complete trial",
        "Each line is a trial; dark lines are the best. Drag along an axis to keep only the trials "
        "that pass there; drag an axis' name to move it. Where all dark lines pass close together, "
        "that hyperparameter mattered.",
        f"Parallel coordinates of {len(shown)} hyperparameters{more} and the objective for "
        f"{len(trials)} complete trials.",
        figure,
        420,
        min_width=90 * len(axes),
    )


def _axis(name: str, values: Sequence[Setting]) -> dict[str, object]:
    """One axis of the parallel coordinates; text becomes places, wide ranges logarithms."""
    label = shorten(name, 24)
    numbers = [value for value in values if isinstance(value, float)]
    if len(numbers) < len(values):
        known = sorted(set(map(str, values)))
        places = [known.index(str(value)) for value in values]
        return {
            "label": label,
            "values": places,
            "tickvals": [*range(len(known))],
            "ticktext": known,
        }
    low, high = min(numbers), max(numbers)
    if is_logarithmic(numbers):
        decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        return {
            "label": label,
            "values": np.log10(numbers),
            "range": [math.log10(low), math.log10(high)],
            "tickvals": list(decades),
            "ticktext": [f"{10.0**decade:g}" for decade in decades],
        }
    return {"label": label, "values": np.array(numbers)}


def _range_of_terms(
    trials: Sequence[TrackedTrial], keys: Sequence[str], top: float
) -> tuple[float, float]:
    """Both ends of the stacked bars of trials that are no outliers."""
    shown = [trial for trial in trials if trial.value <= top]
    terms = np.array([[trial.metrics.get(key, 0.0) for key in keys] for trial in shown])
    low = float(np.minimum(terms, 0.0).sum(axis=1).min())
    high = float(np.maximum(terms, 0.0).sum(axis=1).max())
    room = 0.05 * (high - low) or 1.0
    return low - room, max(high, top) + room


def _hover(trial: TrackedTrial) -> str:
    value = f": {trial.value:.4g}" if math.isfinite(trial.value) else ""
    return f"trial {trial.number}{value}<br>{plain_text(tell_status(trial), 80)}"
