"""The front of a study of two objectives: the trials that no other one beats in both values."""

from wwopt.metrics.colours import BLUE, GREY, VERMILLION
from wwopt.report.figure_style import Picture, axis_top, new_figure, plain_text
from wwopt.report.leaderboard import tell_status
from wwopt.report.page_data import ReportData
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial

AXES = {
    "train_loss": "training loss, nats",
    "size": "parameters",
    "bytes": "bytes",
    "latency": "latency of one batch, in matrix products",
}


def find_front(study: TrackedStudy) -> tuple[TrackedTrial, ...]:
    """The complete trials that violate no guard and that none of these beats, lowest value first.

    Beaten is who is no better in either value and worse in one. Empty for a study of one objective.
    """
    key = second_key(study)
    if key is None:
        return ()
    fit = [trial for trial in study.judged if not trial.violated and key in trial.metrics]
    points = {trial.number: (trial.value, trial.metrics[key]) for trial in fit}

    def is_beaten(point: tuple[float, float]) -> bool:
        return any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in points.values())

    return tuple(trial for trial in fit if not is_beaten(points[trial.number]))


def second_key(study: TrackedStudy) -> str | None:
    """The metric that holds the second objective; None in a study of one."""
    return None if study.second is None else f"objective/{study.second}"


def draw_objectives(data: ReportData) -> Picture | None:
    """Both values of every complete trial, the front as a line; None without two objectives."""
    study, key = data.study, second_key(data.study)
    front = find_front(study)
    if key is None or not front:
        return None
    trials = [trial for trial in study.judged if key in trial.metrics]
    top = axis_top([trial.value for trial in trials])
    figure = new_figure()
    groups = {
        f"complete ({len(trials)})": ("circle-open", GREY, "markers", trials),
        f"front ({len(front)})": ("circle", BLUE, "markers+lines", front[::-1]),  # cheapest first
        "violates a guard": ("x", VERMILLION, "markers", [t for t in trials if t.violated]),
    }
    for name, (symbol, colour, mode, own) in groups.items():
        if own:
            figure.add_scatter(
                x=[trial.metrics[key] for trial in own],
                y=[min(trial.value, top) for trial in own],
                text=[_hover(trial, key) for trial in own],
                hoverinfo="text",
                mode=mode,
                marker={"symbol": symbol, "color": colour, "size": 9},
                line={"shape": "hv", "color": colour, "width": 1.5},
                name=name,
            )
    second = str(study.second)
    figure.update_layout(
        xaxis_title=AXES.get(second, second), yaxis_title="objective (lower is better)"
    )
    numbers = ", ".join(str(trial.number) for trial in front)
    return Picture(
        "objectives",
        "The front of both objectives",
        "What does a better score cost? Each trial on the line is the best at its cost: where the "
        "line is steep a little more buys much, where it is flat the cheaper trial does as well.",
        f"{len(trials)} complete trials by {second} and objective; the front is trials {numbers}.",
        figure,
        380,
    )


def _hover(trial: TrackedTrial, key: str) -> str:
    return (
        f"trial {trial.number}: {trial.value:.4g}, {trial.metrics[key]:.4g}"
        f"<br>{plain_text(tell_status(trial), 80)}"
    )
