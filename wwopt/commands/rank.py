"""`wwopt rank`: which of these models is better trained, as far as their weights can tell."""

import fnmatch
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wwopt.commands.analysis_options import analysis_options

if TYPE_CHECKING:
    from wwopt.selection import Ranking

PICTURES = (".png", ".svg", ".pdf")


@click.command()
@click.argument("candidates", nargs=-1, metavar="CANDIDATE...")
@click.option("--objective", show_default="chosen by the question", help="Score to rank by.")
@click.option(
    "--family",
    "families",
    multiple=True,
    metavar="NAME=LABEL",
    help="Family of a candidate, or of all that a pattern names; '*=all' forces one ranking.",
)
@click.option(
    "--out",
    default="wwopt-runs",
    type=click.Path(path_type=Path),
    help="Folder of `wwopt tune`, for runs:/ID, models:/ID, --study, --experiment.",
)
@click.option("--tracking-uri", show_default="sqlite, OUT/mlflow.db", help="MLflow's tracking URI.")
@click.option("--study", help="Rank the trials of this study.")
@click.option("--experiment", help="Rank the runs of this MLflow experiment.")
@analysis_options(seed_of="the shuffles and of the intervals")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV.")
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw all candidates' alphas by depth (.png, .svg or .pdf).",
)
@click.option("--log-to", metavar="URI", help="Log every candidate as a model to this MLflow.")
def rank(
    candidates: tuple[str, ...],
    objective: str | None,
    families: tuple[str, ...],
    out: Path,
    tracking_uri: str | None,
    study: str | None,
    experiment: str | None,
    layers: list[str] | None,
    key: str | None,
    seed: int,
    shuffles: int,
    quick: bool,
    device: str | None,
    as_json: bool,
    as_csv: bool,
    plot: Path | None,
    log_to: str | None,
) -> None:
    """Which CANDIDATE is better trained, told by weights alone?

    Candidates are checkpoints as of `wwopt analyze`, layer tables (.csv), and MLflow's runs:/ID,
    models:/ID and models:/NAME/VERSION. Exit status: 0 all ranked, 1 some could not be, 2 none.
    """
    from wwopt.selection.selection import rank as run
    from wwopt.selection.text import format_ranking

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if not (candidates or study or experiment):
        raise click.UsageError("name candidates, a --study or an --experiment")
    if plot is not None:
        _check_picture(plot)
    options: dict[str, Any] = {"layers": layers, "key": key, "seed": seed}
    options |= {"shuffles": shuffles, "quick": quick}
    sources, lost = _find_sources(candidates, tracking_uri, out, study, experiment, **options)
    ranking = run(
        sources,
        objective=objective,
        families=_match_labels(families, sources),
        device=device,
        progress=True,
        **options,
    )
    ranking = replace(ranking, failed={**lost, **ranking.failed})
    if plot is not None:
        _draw(ranking, plot)
    if log_to is not None:
        _log(ranking, log_to)
    for name, why in ranking.failed.items():
        click.echo(f"wwopt: {name} is not ranked: {why}", err=True)
    if as_json:
        click.echo(json.dumps(ranking.to_dict(), indent=2, allow_nan=False))
    elif as_csv:
        click.echo(ranking.to_frame().to_csv(index=False), nl=False)
    else:
        click.echo(format_ranking(ranking))
    sys.exit(1 if ranking.failed else 0)


def _find_sources(
    candidates: tuple[str, ...],
    uri: str | None,
    out: Path,
    study: str | None,
    experiment: str | None,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Candidates by name, and those of MLflow that left nothing to rank, with the reason."""
    from wwopt.tracking.addresses import is_address
    from wwopt.tracking.keys import hide_password

    tracked = [name for name in candidates if is_address(name)]
    sources: dict[str, Any] = {hide_password(n): n for n in candidates if n not in tracked}
    if len(set(candidates)) < len(candidates):
        raise ValueError("a candidate is named twice")
    if not (tracked or study or experiment):
        return sources, {}
    from wwopt.selection.tracked_candidates import read_tracked
    from wwopt.tracking.store import folder_uri

    found, lost = read_tracked(
        uri or folder_uri(out, exists=True),
        names=tracked,
        study=study,
        experiment=experiment,
        **options,
    )
    if not (sources or found):
        listed = "; ".join(f"{name}: {why}" for name, why in lost.items())
        raise ValueError(f"nothing to rank: {listed}")
    return {**sources, **found}, lost


def _match_labels(families: tuple[str, ...], sources: Mapping[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for given in families:
        pattern, equals, label = given.rpartition("=")
        if not (equals and pattern and label):
            raise ValueError(f"--family takes NAME=LABEL, got {given!r}")
        # A name may hold brackets, which are a pattern's own signs.
        named = [n for n in sources if n == pattern or fnmatch.fnmatchcase(n, pattern)]
        if not named:
            listed = ", ".join(sources)
            raise ValueError(f"--family {given}: no candidate {pattern!r}; they are {listed}")
        labels |= dict.fromkeys(named, label)
    return labels


def _check_picture(path: Path) -> None:
    """Before the work and not after it: a picture that cannot be written."""
    if path.suffix.lower() not in PICTURES:
        known = ", ".join(PICTURES)
        raise click.UsageError(f"--plot {path}: the file's ending must be one of {known}")
    if not path.parent.is_dir():
        raise click.UsageError(f"--plot {path}: there is no folder {path.parent}")


def _draw(ranking: "Ranking", path: Path) -> None:
    from matplotlib.figure import Figure

    from wwopt.selection.plot import plot_ranking

    figure = plot_ranking(ranking).figure
    assert isinstance(figure, Figure)  # of its own
    figure.savefig(path)
    click.echo(f"Picture: {path}", err=True)


def _log(ranking: "Ranking", uri: str) -> None:
    from wwopt.selection.rankings import summarize_candidate
    from wwopt.tracking import LoggedCandidate, hide_password, log_ranking
    from wwopt.tracking.rankings import EXPERIMENT

    candidates = [
        LoggedCandidate(
            name=member.name,
            note="  \n".join([f"{family.question}: {family.reason}.", *member.warnings]),
            params={
                "source": member.name,
                "family": family.label,
                "question": family.question,
                "objective": family.objective,
                "place": "" if member.place is None else str(member.place),
                "ties": ", ".join(member.ties),
                "status": member.status,
            },
            metrics=summarize_candidate(member),
            layers=member.metrics.to_frame(),
        )
        for family in ranking.families
        for member in family.members
    ]
    log_ranking(uri, candidates)
    where = f"experiment {EXPERIMENT!r} of {hide_password(uri)}"
    click.echo(f"Logged {len(candidates)} models to {where}", err=True)
