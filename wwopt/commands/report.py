"""`wwopt report`: one self-contained HTML page that explains a study."""

import sys
from pathlib import Path

import click

from wwopt.commands.study_argument import find_study, study_argument


@click.command()
@study_argument
@click.option(
    "-o",
    "--output",
    default="report.html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write.",
)
@click.option("--seed", default=0, help="Seed of the resampling behind intervals.")
@click.option("--attach", is_flag=True, help="Attach the page to the study's run in MLflow too.")
def report(
    study: str | None, out: Path, tracking_uri: str | None, output: Path, seed: int, attach: bool
) -> None:
    """Write one HTML page that explains STUDY, as MLflow has it; it needs no network.

    STUDY is a study file, an --out folder or a study's name; without it the latest one. Exit
    status: 0 fine, 1 the study has no complete trial, 2 it could not be read or written.
    """
    tracked = find_study(study, out=out, tracking_uri=tracking_uri)
    from wwopt.report.next_step import explain_next_step
    from wwopt.report.page import attach_report, write_report

    recommended = explain_next_step(tracked, seed=seed)
    write_report(tracked, output, recommendation=recommended, seed=seed)
    if attach:
        attach_report(tracked, output)
    size = output.stat().st_size / 1e6
    click.echo(f"{output}: study {tracked.name}, {len(tracked.trials)} trials, {size:.1f} MB")
    sys.exit(0 if any(trial.state == "COMPLETE" for trial in tracked.trials) else 1)
