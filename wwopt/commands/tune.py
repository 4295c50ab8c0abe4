"""`wwopt tune`: run or resume a study, and say what came out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wwopt.commands.study_options import keep_quiet, study_options

if TYPE_CHECKING:
    from wwopt.study.spec import StudySpec


@click.command()
@click.argument("study")
@click.option(
    "--trials",
    default=20,
    help="Finished trials that the study shall have; kept with it, fewer change nothing.",
)
@click.option(
    "--hours", type=float, show_default="no end", help="After which the study shall have ended."
)
@study_options
@click.option("--seed", default=0, help="Seed of initialisation, data order and sampler.")
@click.option("--jobs", default=1, help="Processes on this machine; each gets a GPU if there are.")
@click.option(
    "--dask", metavar="ADDRESS", help="Run trials on each worker of this Dask cluster instead."
)
@click.option(
    "--max-weights",
    default=100.0,
    help="MB up to which the weights of complete trials are logged in MLflow; 0 for never.",
)
@click.option(
    "--explain/--no-explain",
    default=True,
    help="Attach a report, and pictures of the best trial, to the runs in MLflow.",
)
@click.option(
    "--objective",
    show_default="what the study names, else the training loss's presence decides",
    help="Score that guides: weights-only, or validation-free (reads the training loss too).",
)
@click.option(
    "--fractions",
    is_flag=True,
    help="Train the best one at last on ⅛, ¼ and ½ of the data, for `wwopt recommend`.",
)
def tune(
    study: str,
    trials: int,
    hours: float | None,
    out: Path,
    seed: int,
    storage: str | None,
    tracking_uri: str | None,
    jobs: int,
    dask: str | None,
    max_weights: float,
    explain: bool,
    objective: str | None,
    fractions: bool,
) -> None:
    """Run or resume STUDY (a file such as studies/digits.py, or module:attribute)."""
    from wwopt.tuning.text import summarize
    from wwopt.tuning.tuning import tune as run

    keep_quiet()
    try:
        result = run(
            study,
            trials=trials,
            hours=hours,
            out=out,
            storage=storage,
            tracking=tracking_uri,
            seed=seed,
            jobs=jobs,
            dask=dask,
            max_weights=round(1e6 * max_weights),
            explain=explain,
            objective=objective,  # type: ignore[arg-type]  # checked there, with the known ones
        )
        if fractions and result.best_trials:
            _probe_fractions(result.spec, out, tracking_uri)
    except KeyboardInterrupt:
        click.echo("wwopt: interrupted; the same command resumes", err=True)
        sys.exit(130)
    click.echo(summarize(result))
    sys.exit(0 if result.best_trials else 1)


def _probe_fractions(spec: "StudySpec", out: Path, tracking_uri: str | None) -> None:
    from wwopt.recommendation.fractions import probe_fractions

    failed = probe_fractions(spec, out=out, tracking=tracking_uri)
    if failed:
        click.echo(f"wwopt: {failed} trainings on parts of the data gave no value", err=True)
