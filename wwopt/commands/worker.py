"""`wwopt worker`: take part in a study that runs, here or on other machines."""

import os
import sys
from pathlib import Path

import click

from wwopt.commands.study_options import keep_quiet, study_options


@click.command()
@click.argument("study")
@click.option(
    "--trials",
    type=int,
    show_default="what is kept with the study",
    help="Finished trials that the study shall have; creates it where there is none.",
)
@study_options
@click.option(
    "--explain/--no-explain",
    default=True,
    help="Attach a report, and pictures of the best trial, if this is the last worker.",
)
def worker(
    study: str,
    trials: int | None,
    out: Path,
    storage: str | None,
    tracking_uri: str | None,
    explain: bool,
) -> None:
    """Run trials of STUDY, beside others, until it has all of them."""
    from wwopt.tuning.tuning import OWNER, run_worker
    from wwopt.tuning.workers.worker import OnlyFailuresError
    from wwopt.tuning.workers.worker_processes import GAVE_UP

    keep_quiet()
    belongs = OWNER in os.environ  # to a `wwopt tune`, which says all that there is to say
    try:
        done = run_worker(
            study,
            out=out,
            storage=storage,
            tracking=tracking_uri,
            trials=trials,
            explain=explain,
        )
    except OnlyFailuresError:
        if belongs:
            sys.exit(GAVE_UP)
        raise
    except KeyboardInterrupt:
        if not belongs:
            click.echo("wwopt: interrupted; the same command goes on", err=True)
        sys.exit(130)
    if not belongs:
        click.echo(f"{done} trials were run here.")
