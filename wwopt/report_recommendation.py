"""What a study's report says to do next: words, a table of actions and a figure."""

from dataclasses import dataclass

from plotly.subplots import make_subplots

from wwopt.figure_style import BLUE, LAYOUT, ORANGE, Picture, plain_text
from wwopt.recommendation import Recommendation, recommend
from wwopt.recommendation_plot import best_so_far, fan_of_data, fan_of_trials
from wwopt.recommendation_text import (
    say_basis,
    say_plan,
    say_verdict,
    tabulate_actions,
    tell_reasons,
    to_metric,
)
from wwopt.tracked_studies import TrackedStudy

TITLE = 80  # characters of the metric's name on an axis


@dataclass(frozen=True)
class NextStep:
    """The section of a report that says what to do next."""

    words: tuple[str, ...]  # paragraphs
    table: tuple[tuple[str, ...], ...] = ()  # head first
    picture: Picture | None = None


def explain_next_step(study: TrackedStudy, *, seed: int = 0) -> NextStep:
    """What is recommended from what is there; where it cannot be told, why.

    Nothing is trained. A report must not fail for want of a recommendation, so every error that
    says what is missing becomes the section's words.
    """
    try:
        return tell_next_step(recommend(study, seed=seed))
    except (ValueError, OSError) as error:
        return NextStep((f"There is no recommendation: {error}.",))


def tell_next_step(recommendation: Recommendation) -> NextStep:
    """A recommendation as a section."""
    r = recommendation
    verdict = say_verdict(r)
    words = [f"{verdict[0].upper()}{verdict[1:]}."]
    decided = not r.gains.unprobed
    if decided:
        words += [say_basis(r), "What decided: " + "; ".join(tell_reasons(r)) + "."]
    if r.failed:
        words.append("Probes that failed: " + "; ".join(r.failed) + ".")
    if r.gains.missing:
        words.append("Not known: " + "; ".join(dict.fromkeys(r.gains.missing.values())) + ".")
    if r.plan.probes:
        words.append(f"Not run yet: {say_plan(r)}; `wwopt recommend STUDY.py --probe` runs them.")
    if not decided:  # a table of what nobody has looked at would say little
        return NextStep(tuple(words))
    picture = draw_recommendation(r) if r.gains.curve is not None else None
    return NextStep(tuple(words), tuple(tabulate_actions(r)), picture)


def draw_recommendation(r: Recommendation) -> Picture:
    """The learning curve and the tuning curve, both with the fan of what may come."""
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_yaxes="all",
        vertical_spacing=0.2,
        subplot_titles=("more data", "more trials"),
    )
    figure.update_layout(LAYOUT)
    curve, fan = r.gains.curve, fan_of_data(r)
    if fan is not None:
        shares, (low, middle, high) = fan
        _add_fan(figure, shares, low, middle, high, colour=BLUE, name="data", row=1)
    if curve is not None:
        figure.add_scatter(
            x=curve.shares,
            y=to_metric(r, curve.means),
            error_y={"type": "data", "array": curve.errors},
            mode="markers",
            marker={"color": "#000000", "size": 8},
            name="probes",
            row=1,
            col=1,
        )
    places, best = best_so_far(r)
    figure.add_scatter(
        x=places,
        y=best,
        mode="lines",
        line={"shape": "hv", "color": "#000000"},
        name="best so far",
        row=2,
        col=1,
    )
    tuned, total = fan_of_trials(r), len(r.trials)
    if tuned is not None:
        ends = [[r.now, float(value)] for value in tuned]
        x = [total, total + r.amounts.more_trials]
        _add_fan(figure, x, *ends, colour=ORANGE, name="trials", row=2)
    figure.update_xaxes(title="multiple of today's data", type="log", row=1, col=1)
    ticks = [0.125, 0.25, 0.5, 1, 2, 4]
    figure.update_xaxes(tickvals=ticks, ticktext=["⅛", "¼", "½", "1", "2", "4"], row=1, col=1)
    figure.update_xaxes(title="trials", row=2, col=1)
    figure.update_yaxes(title=plain_text(r.metric, TITLE), automargin=True)
    figure.update_layout(legend={"y": 1.08}, margin={"t": 90})
    return Picture(
        "next_step",
        "More data or more trials",
        f"Which fan reaches further? Shaded: 10 to 90 % of what may come. {r.better.capitalize()} "
        "is better.",
        f"The {r.metric} by the share of the data and by trials, with what may come: "
        f"{say_verdict(r)}.",
        figure,
        620,
    )


def _add_fan(
    figure: object, x: object, low: object, middle: object, high: object, *, colour: str, name: str,
    row: int,
) -> None:  # fmt: skip
    add = figure.add_scatter  # type: ignore[attr-defined]  # plotly's figure, which has no types
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "row": row, "col": 1}
    add(x=x, y=low, showlegend=False, **edge)
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    fill = f"rgba({red},{green},{blue},0.25)"
    add(x=x, y=high, fill="tonexty", fillcolor=fill, name=f"more {name}, 10 to 90 %", **edge)
    line = {"color": colour, "dash": "dash"}
    add(x=x, y=middle, mode="lines", line=line, name=f"more {name}, median", row=row, col=1)
