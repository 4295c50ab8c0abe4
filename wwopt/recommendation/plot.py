"""A picture of a recommendation: learning curves and tuning curve with their fans."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wwopt.metrics.colours import BLUE, ORANGE
from wwopt.metrics.pictures.layer_plot import write_reason
from wwopt.recommendation.fans import best_so_far, fan_of_curve, fan_of_trials
from wwopt.recommendation.gains import Action
from wwopt.recommendation.phrases import say_money, say_verdict
from wwopt.recommendation.recommendation import Recommendation

# Title and axis of each curve.
CURVES: Mapping[Action, tuple[str, str]] = {
    "data": ("more data", "training data"),
    "bigger": ("a bigger model", "size"),
    "longer": ("longer training", "epochs"),
}


def plot_recommendation(recommendation: Recommendation) -> Figure:
    """Draw the metric by data, size, epochs and trials, with 10 to 90 % fans under the verdict.

    Of size and epochs only what is known is drawn.
    """
    r = recommendation
    shown = [a for a in CURVES if a == "data" or a in r.gains.curves]
    figure = Figure(figsize=(5.0 * (1 + len(shown)), 4.4), dpi=150, layout="constrained")
    *curves, last = figure.subplots(1, 1 + len(shown), sharey=True)
    title = f"Study {r.study}: {say_verdict(r)}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, wrap=True, parse_math=False)
    for ax, action in zip(curves, shown, strict=True):
        _draw_curve(ax, r, action)
    _draw_trials(last, r)
    curves[0].set_ylabel(f"{r.metric} ({r.better} is better)", parse_math=False)
    for ax in (*curves, last):
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_curve(ax: Axes, r: Recommendation, action: Action) -> None:
    title, axis = CURVES[action]
    ax.set_title(f"{title}{_price(r, action)}", loc="left", fontsize=9.5)
    curve = r.gains.curves.get(action)
    if curve is None:
        ax.text(0.5, 0.5, "no learning curve: no probes", transform=ax.transAxes, ha="center")
        return
    fan = fan_of_curve(r, action)
    if fan is not None:
        shares, (low, middle, high) = fan
        ax.fill_between(shares, low, high, color=BLUE, alpha=0.2, linewidth=0, label="10 to 90 %")
        ax.plot(shares, middle, color=BLUE, label="median")
    means = r.measure.to_metric(curve.means)
    style: dict[str, Any] = {"fmt": "o", "color": "black", "capsize": 3, "markersize": 4.5}
    ax.errorbar(curve.shares, means, yerr=curve.errors, label="probes, ± 1 error", **style)
    ax.axvline(1.0, color="0.5", linestyle=":", linewidth=1.2)
    ax.set_xscale("log", base=2)
    ticks = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0]
    ax.set_xticks(ticks, ["⅛", "¼", "½", "today", "2×", "4×"])
    ax.set_xlabel(axis)
    ax.legend(fontsize=8.5, frameon=False)


def _draw_trials(ax: Axes, r: Recommendation) -> None:
    ax.set_title(f"more trials{_price(r, 'tune')}", loc="left", fontsize=9.5)
    places, best = best_so_far(r)
    if not len(places):
        write_reason(ax, "no trial gave a value")
        return
    total, more = len(r.trials), r.amounts.more_trials
    ax.step(places, best, where="post", color="black", label="best so far")
    fan = fan_of_trials(r)
    if fan is not None:
        low, middle, high = fan
        start, end = total, total + more
        ax.fill_between(
            [start, end], [r.now, low], [r.now, high], color=ORANGE, alpha=0.25, linewidth=0,
            label="10 to 90 %",
        )  # fmt: skip
        ax.plot([start, end], [r.now, middle], color=ORANGE, linestyle="--", label="median")
    ax.plot([total], [r.now], "D", color=ORANGE, markersize=5, label="best, trained again")
    ax.axvline(total, color="0.5", linestyle=":", linewidth=1.2)
    ax.set_xlim(0.5, total + more + 0.5)
    ax.set_xlabel("trials")
    ax.legend(fontsize=8.5, frameon=False)


def _price(r: Recommendation, action: str) -> str:
    outlook = r.decision.outlooks.get(action)
    if outlook is None or outlook.cost is None:
        return ""
    what = f"{r.amounts.more_trials} more" if action == "tune" else "twice today's"
    return f"; {what} cost {say_money(outlook.cost)}"
