"""`wwopt worker`: take part in a study that runs, here or on other machines."""

import logging
import os
import sys
from pathlib import Path

import click


@click.command()
@click.argument("study")
@click.option(
    "--trials",
    type=int,
    show_default="what is kept with the study",
    help="Finished trials that the study shall have; creates it where there is none.",
)
@click.option(
    "--out",
    default="wwopt-runs",
    type=click.Path(path_type=Path),
    help="Folder for databases, artifacts and checkpoints.",
)
@click.option("--storage", show_default="sqlite, OUT/optuna.db", help="Optuna's database URL.")
@click.option("--tracking-uri", show_default="sqlite, OUT/mlflow.db", help="MLflow's tracking URI.")
@click.option(
    "--explain/--no-explain",
    default=True,
    help="Attach a report, and pictures of the best trial, if this is the last worker.",
)
@click.option(
    "--data",
    envvar="WWOPT_DATA",
    type=click.Path(path_type=Path),
    help="Folder of data, for studies that read one; they see it as WWOPT_DATA.",
)
def worker(
    study: str,
    trials: int | None,
    out: Path,
    storage: str | None,
    tracking_uri: str | None,
    explain: bool,
    data: Path | None,
) -> None:
    """Run trials of STUDY, beside others, until it has all of them."""
    import optuna

    from wwopt.tuning.tuning import OWNER, run_worker
    from wwopt.tuning.worker_processes import GAVE_UP
    from wwopt.tuning.workers import OnlyFailuresError

    if data is not None:
        os.environ["WWOPT_DATA"] = str(data.resolve())
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
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
