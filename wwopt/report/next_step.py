"""What a study's report says to do next: words, a table of actions and a figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plotly.subplots import make_subplots

from wwopt.metrics.colours import BLUE, ORANGE
from wwopt.recommendation.fans import best_so_far, fan_of_curve, fan_of_trials
from wwopt.recommendation.gains import Action
from wwopt.recommendation.label_noise import LabelNoise
from wwopt.recommendation.phrases import (
    LABELS,
    say_basis,
    say_more,
    say_paid,
    say_verdict,
    tabulate_actions,
    tell_reasons,
    tell_turns,
)
from wwopt.recommendation.recommendation import Recommendation, recommend
from wwopt.report.figure_style import LAYOUT, Picture, plain_text
from wwopt.tracking.tracked_studies import TrackedStudy

Rows = tuple[tuple[str, ...], ...]  # of a table as text, its head first

CURVES: Mapping[Action, str] = {
    "data": "more data",
    "bigger": "a bigger model",
    "longer": "longer training",
}
TITLE = 80  # characters of the metric's name on an axis


@dataclass(frozen=True)
class NextStep:
    """The section of a report that says what to do next, from top to bottom."""

    words: tuple[str, ...]  # paragraphs, the verdict first
    table: Rows = ()  # of actions
    reasons: tuple[str, ...] = ()  # what decided, a line each
    turns: tuple[str, ...] = ()  # what would change the verdict, a line each
    gaps: tuple[str, ...] = ()  # paragraphs: what failed, is not known, was paid, more would cost
    picture: Picture | None = None
    labels: str = ""  # whether they look noisy; "" where that cannot be told


def explain_next_step(study: TrackedStudy, *, seed: int = 0) -> NextStep:
    """What is recommended from what is there; where it cannot be told, why.

    Nothing is trained. A report must not fail for want of a recommendation, so every error that
    says what is missing becomes the section's words.
    """
    try:
        return tell_next_step(recommend(study, seed=seed))
    except (ValueError, OSError) as error:
        return NextStep((f"There is no recommendation. `wwopt recommend` says: {error}.",))


def tell_next_step(recommendation: Recommendation) -> NextStep:
    """A recommendation as a section."""
    r = recommendation
    verdict = say_verdict(r)
    basis = f"Judged is the configuration of trial {r.trial}, the best by {r.metric}."
    decided = not r.gains.unprobed  # a table of what nobody has looked at would say little
    return NextStep(
        (f"{verdict[0].upper()}{verdict[1:]}.", f"{basis} {say_basis(r)}" if decided else basis),
        tuple(tabulate_actions(r)) if decided else (),
        tell_reasons(r) if decided else (),
        tell_turns(r) if decided else (),
        _tell_gaps(r),
        draw_recommendation(r) if decided and r.gains.curves else None,
        "" if r.labels is None else _say_labels(r.labels),
    )


def _say_labels(labels: LabelNoise) -> str:
    return f"{labels.words[0].upper()}{labels.words[1:]} ({labels.confidence:.0%} sure)."


def _tell_gaps(r: Recommendation) -> tuple[str, ...]:
    gaps = []
    if r.failed:
        gaps.append("Probes that failed: " + "; ".join(r.failed) + ".")
    if r.gains.missing:
        unknown = (f"{LABELS[name]} ({why})" for name, why in r.gains.missing.items())
        gaps.append("Not known: " + "; ".join(unknown) + ".")
    gaps.append(" ".join(words for words in (say_paid(r), say_more(r)) if words))
    return tuple(gaps)


def draw_recommendation(r: Recommendation) -> Picture:
    """The learning curves and the tuning curve, each with the fan of what may come."""
    shown = [action for action in CURVES if action in r.gains.curves]
    last = len(shown) + 1
    figure = make_subplots(
        rows=last,
        cols=1,
        shared_yaxes="all",
        vertical_spacing=0.4 / last,
        subplot_titles=(*(CURVES[action] for action in shown), "more trials"),
    )
    figure.update_layout(LAYOUT)
    for row, action in enumerate(shown, start=1):
        _add_curve(figure, r, action, row=row)
    places, best = best_so_far(r)
    figure.add_scatter(
        x=places,
        y=best,
        mode="lines",
        line={"shape": "hv", "color": "#000000"},
        name="best so far",
        row=last,
        col=1,
    )
    tuned, total = fan_of_trials(r), len(r.trials)
    if tuned is not None:
        ends = [[r.now, float(value)] for value in tuned]
        x = [total, total + r.amounts.more_trials]
        _add_fan(figure, x, *ends, colour=ORANGE, name="more trials", row=last)
    figure.update_xaxes(title="trials", row=last, col=1)
    figure.update_yaxes(title=plain_text(r.metric, TITLE), automargin=True)
    figure.update_layout(showlegend=False)  # the titles and the caption say it
    return Picture(
        "next_step",
        "More data, a bigger model, longer training or more trials",
        f"Which fan reaches further to the better side? {r.better.capitalize()} is better. Points: "
        f"probes with their standard error; black line: the best "
        f"trial so far; dashed: the median of what may come, in a band from 10 to 90 %. The fan of "
        f"trials starts at what the best configuration is worth when it is trained again, which is "
        f"mostly less than its trial, the luckiest of all.",
        f"The {r.metric} by data, size, epochs and trials, as far as known, with what may come: "
        f"{say_verdict(r)}.",
        figure,
        280 * last,
    )


def _add_curve(figure: Any, r: Recommendation, action: Action, *, row: int) -> None:
    curve, fan = r.gains.curves[action], fan_of_curve(r, action)
    if fan is not None:
        shares, (low, middle, high) = fan
        _add_fan(figure, shares, low, middle, high, colour=BLUE, name=CURVES[action], row=row)
    figure.add_scatter(
        x=curve.shares,
        y=r.measure.to_metric(curve.means),
        error_y={"type": "data", "array": curve.errors},
        mode="markers",
        marker={"color": "#000000", "size": 8},
        name="probes",
        row=row,
        col=1,
    )
    ticks = [0.125, 0.25, 0.5, 1, 2, 4]
    words = ["⅛", "¼", "½", "1", "2", "4"]
    title = "multiple of today's"
    figure.update_xaxes(title=title, type="log", tickvals=ticks, ticktext=words, row=row, col=1)


def _add_fan(
    figure: object, x: object, low: object, middle: object, high: object, *, colour: str, name: str,
    row: int,
) -> None:  # fmt: skip
    add = figure.add_scatter  # type: ignore[attr-defined]  # plotly's figure, which has no types
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "row": row, "col": 1}
    add(x=x, y=low, **edge)
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    fill = f"rgba({red},{green},{blue},0.25)"
    add(x=x, y=high, fill="tonexty", fillcolor=fill, name=f"{name}, 10 to 90 %", **edge)
    line = {"color": colour, "dash": "dash"}
    add(x=x, y=middle, mode="lines", line=line, name=f"{name}, median", row=row, col=1)
