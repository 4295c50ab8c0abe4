"""One self-contained HTML page that explains a study: it opens from disk and asks no network.

The page carries plotly.js (4.8 MB) once, its figures as data, and words for each. A browser that
runs no scripts shows the words and tables.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from wwopt.metrics.objective import READS
from wwopt.report.compressed_variants import CompressedVariants, draw_compressed
from wwopt.report.figure_style import Picture
from wwopt.report.layer_figures import draw_alphas, draw_depth, draw_spectra
from wwopt.report.leaderboard import make_leaderboard
from wwopt.report.next_step import NextStep
from wwopt.report.page_data import ReportData, gather
from wwopt.report.text import count_states
from wwopt.report.trial_figures import draw_history, draw_parallel, draw_terms
from wwopt.report.two_objectives import draw_objectives
from wwopt.tracking import artifacts
from wwopt.tracking.keys import GUIDE_TAG, hide_passwords
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.wording import number, shorten

ROWS = 25  # of the leaderboard
CELL = 60  # characters of a cell
CONFIG = {"responsive": True, "displaylogo": False}  # of plotly


@dataclass(frozen=True)
class Table:
    """A table as text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_report(
    study: TrackedStudy,
    path: str | Path,
    *,
    recommendation: str | NextStep | None = None,
    seed: int = 0,
) -> Path:
    """Write the report of a study.

    Args:
        study: tracked in MLflow.
        path: of the HTML file; replaced where it exists.
        recommendation: what to do next, in words or as `explain_next_step` tells it; the section
            is left out without.
        seed: of the resampling behind intervals.

    Returns:
        The file.

    Raises:
        OSError: if it cannot be written.
    """
    path = Path(path)
    path.write_text(render_report(study, recommendation=recommendation, seed=seed), "utf-8")
    return path


def attach_report(study: TrackedStudy, path: Path) -> None:
    """Attach a written report to the study's parent run, as the artifact `report.html`.

    Raises:
        TrackingError: if the study has no parent run, or the store does not take it.
    """
    artifacts.attach_page(study, path.read_bytes())


def render_report(
    study: TrackedStudy, *, recommendation: str | NextStep | None = None, seed: int = 0
) -> str:
    """The report of a study as HTML; see `write_report`."""
    if isinstance(recommendation, str):
        recommendation = NextStep(tuple(recommendation.split("\n\n")))
    data = gather(study, seed=seed)
    drawn = {
        picture.key: picture
        for draw in (
            draw_objectives,
            draw_history,
            draw_terms,
            draw_alphas,
            draw_parallel,
            draw_depth,
        )
        if (picture := draw(data)) is not None
    }
    if data.compressed is not None:
        drawn["compressed"] = draw_compressed(data.compressed)
    spectra = draw_spectra(data)
    environment = Environment(
        loader=PackageLoader("wwopt.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _to_html
    environment.filters["code"] = _mark_code
    template = environment.get_template("page.html.j2")
    return template.render(
        study=study,
        data=data,
        best=data.best,
        counts=count_states(study),
        guide=study.tags.get(GUIDE_TAG),
        reads=READS,
        pictures=drawn,
        spectra=spectra,
        left_out=len(data.layers) - len(spectra),
        leaderboard=_tabulate_leaderboard(study),
        choices=_tabulate_choices(data),
        compressed=None if data.compressed is None else _tabulate_compressed(data.compressed),
        importance=_tabulate_importance(data),
        moved=_tabulate_moved(data),
        settings={k: shorten(hide_passwords(v), 400) for k, v in sorted(study.params.items())},
        recommendation=recommendation,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=version("wwopt"),
        plotly=Markup(get_plotlyjs()),
    )


def _to_html(picture: Picture) -> Markup:
    """The figure's element and script; plotly writes "<" in its data as an escape."""
    picture.figure.update_layout(height=picture.height)
    text = picture.figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=picture.key,
        config=CONFIG,
        default_height=f"{picture.height}px",
    )
    return Markup(text)


def _mark_code(text: str) -> Markup:
    """Escaped text, in which what stands between backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _tabulate_leaderboard(study: TrackedStudy) -> Table | None:
    frame = make_leaderboard(study).head(ROWS)
    if frame.empty:
        return None
    return _tabulate(frame.assign(state=frame["state"].str.lower()))


def _tabulate(frame: pd.DataFrame) -> Table:
    rows = [tuple(_say(value) for value in row) for row in frame.itertuples(index=False)]
    return Table(tuple(shorten(str(name), CELL) for name in frame), tuple(rows))


def _tabulate_compressed(compressed: CompressedVariants) -> Table:
    frame = compressed.to_frame()
    return _tabulate(
        frame.assign(
            bytes=[f"{size:,.0f}" for size in frame["bytes"]],
            front=["yes" if on_front else "" for on_front in frame["front"]],
        )
    )


def _tabulate_choices(data: ReportData) -> Table | None:
    if not data.choices:
        return None
    names = [metric.name for metric in data.metrics]
    keys = [metric.key for metric in data.metrics]
    head = ["score", "its trial", "objective", "training loss", *names]
    head += [f"tau with {name}" for name in names]
    rows = []
    for choice in data.choices:
        numbers = choice.trial.metrics
        row = [choice.score if choice.seen else f"{choice.score} †"]
        row += [f"#{choice.trial.number}", _say(choice.trial.value)]
        row += [_say(numbers.get(key, math.nan)) for key in ("train/loss", *keys)]
        rows.append((*row, *(_say_tau(choice.taus.get(key, math.nan)) for key in keys)))
    return Table(tuple(head), tuple(rows))


def _tabulate_importance(data: ReportData) -> Table | None:
    found = data.importance
    if not found.shares:
        return None
    taus = {c.hyperparameter: c for c in found.objective}
    rows = []
    for name, share in found.shares.items():
        c = taus.get(name)
        words = "–" if c is None else _say_interval(c.tau, c.low, c.high, c.beyond_chance)
        rows.append((shorten(name, CELL), f"{share:.2f}", words))
    return Table(("hyperparameter", "importance", "tau with the objective"), tuple(rows))


def _tabulate_moved(data: ReportData) -> Table | None:
    rows = [
        (
            shorten(c.hyperparameter, CELL),
            shorten(c.target, CELL),
            _say_interval(c.tau, c.low, c.high, c.beyond_chance),
        )
        for c in data.importance.alphas
    ]
    return Table(("hyperparameter", "layer", "tau with its alpha"), tuple(rows)) if rows else None


def _say_interval(tau: float, low: float, high: float, beyond: bool) -> str:
    interval = f" [{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else ""
    return f"{tau:+.2f}{interval}{' *' if beyond else ''}"


def _say_tau(tau: float) -> str:
    return number(tau, "+.2f")


def _say(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if math.isfinite(value) else "–"
    return "–" if value is None else shorten(str(value), CELL)
