"""`wwopt compare`: which trials were good, two of them side by side, what made the good ones."""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wwopt.commands.study_argument import find_study, study_argument

if TYPE_CHECKING:
    from wwopt.tracking.tracked_studies import TrackedStudy

WIDE = 200  # characters of a line where no terminal says otherwise


@click.command()
@study_argument
@click.option("--by", default="objective/value", help="Metric that orders trials, lower first.")
@click.option("--top", default=20, help="Rows of the leaderboard; 0 shows all.")
@click.option("--pair", nargs=2, type=int, metavar="A B", help="Set two trials side by side.")
@click.option("--importance", is_flag=True, help="Say which hyperparameters mattered.")
@click.option("--seed", default=0, help="Seed of the resampling behind intervals.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV.")
def compare(
    study: str | None,
    out: Path,
    tracking_uri: str | None,
    by: str,
    top: int,
    pair: tuple[int, int] | None,
    importance: bool,
    seed: int,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Compare the trials of STUDY, as MLflow has them.

    STUDY is a study file, an --out folder or a study's name; without it the latest one. Exit
    status: 0 fine, 1 the study has no complete trial, 2 it could not be read.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if as_csv and importance:
        raise click.UsageError("--importance is no table; use --json")
    tracked = find_study(study, out=out, tracking_uri=tracking_uri)
    if as_json:
        text = json.dumps(_to_document(tracked, by, pair, importance, seed), indent=2)
    elif as_csv:
        text = _to_csv(tracked, by, pair)
    else:
        text = _to_words(tracked, by, top, pair, importance, seed)
    click.echo(text)
    sys.exit(0 if any(trial.state == "COMPLETE" for trial in tracked.trials) else 1)


def _to_words(
    study: "TrackedStudy",
    by: str,
    top: int,
    pair: tuple[int, int] | None,
    importance: bool,
    seed: int,
) -> str:
    from wwopt.report.compressed_variants import read_front
    from wwopt.report.importance import explain_importance
    from wwopt.report.pairs import compare_pair
    from wwopt.report.text import (
        format_front,
        format_importance,
        format_leaderboard,
        format_pair,
    )

    width = shutil.get_terminal_size((WIDE, 24)).columns
    blocks = []
    if pair is not None:
        found = compare_pair(study[pair[0]], study[pair[1]])
        blocks.append(format_pair(found, width=width))
    if importance:
        blocks.append(format_importance(explain_importance(study, seed=seed), width=width))
    if not blocks:
        blocks.append(format_leaderboard(study, by=by, top=top, width=width))
        front = read_front(study)
        if front is not None:
            blocks.append(format_front(front, width=width))
    return "\n\n".join(blocks)


def _to_csv(study: "TrackedStudy", by: str, pair: tuple[int, int] | None) -> str:
    from wwopt.report.leaderboard import make_leaderboard
    from wwopt.report.pairs import compare_pair

    if pair is not None:
        frame = compare_pair(study[pair[0]], study[pair[1]]).to_frame()
    else:
        frame = make_leaderboard(study, by=by)
    return frame.to_csv(index=False).rstrip("\n")


def _to_document(
    study: "TrackedStudy", by: str, pair: tuple[int, int] | None, importance: bool, seed: int
) -> dict[str, Any]:
    from wwopt.plain_data import make_plain
    from wwopt.report.compressed_variants import read_front
    from wwopt.report.importance import explain_importance
    from wwopt.report.leaderboard import make_leaderboard
    from wwopt.report.pairs import compare_pair, tell_changes

    document: dict[str, Any] = {
        "study": study.name,
        "leaderboard": make_leaderboard(study, by=by).to_dict(orient="records"),
    }
    front = read_front(study)
    if front is not None:
        document["compressed"] = front.to_frame().to_dict(orient="records")
    if pair is not None:
        found = compare_pair(study[pair[0]], study[pair[1]])
        document["pair"] = {
            "trials": list(pair),
            "metrics": dict(found.metrics),
            "settings": dict(found.settings),
            "layers": [asdict(layer) | {"change": layer.change} for layer in found.layers],
            "changes": tell_changes(found),
        }
    if importance:
        document["importance"] = asdict(explain_importance(study, seed=seed))
    plain: dict[str, Any] = make_plain(document)
    return plain
