"""`wwopt tune`: run or resume a study, and say what came out."""

import logging
import os
import sys
from pathlib import Path

import click


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
@click.option(
    "--out",
    default="wwopt-runs",
    type=click.Path(path_type=Path),
    help="Folder for databases and artifacts.",
)
@click.option("--seed", default=0, help="Seed of initialisation, data order and sampler.")
@click.option("--storage", show_default="sqlite, OUT/optuna.db", help="Optuna's database URL.")
@click.option("--tracking-uri", show_default="sqlite, OUT/mlflow.db", help="MLflow's tracking URI.")
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
    "--data",
    envvar="WWOPT_DATA",
    type=click.Path(path_type=Path),
    help="Folder of data, for studies that read one; they see it as WWOPT_DATA.",
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
    data: Path | None,
) -> None:
    """Run or resume STUDY (a file such as studies/digits.py, or module:attribute)."""
    import optuna

    from wwopt.tuning.text import summarize
    from wwopt.tuning.tuning import tune as run

    if data is not None:  # the study file reads it, here and in worker processes
        os.environ["WWOPT_DATA"] = str(data.resolve())
    # Trials that fail are told in one line each; their traceback lies in MLflow.
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
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
    except KeyboardInterrupt:
        click.echo("wwopt: interrupted; the same command resumes", err=True)
        sys.exit(130)
    click.echo(summarize(result))
    sys.exit(0 if result.best_trials else 1)
