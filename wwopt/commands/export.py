"""`wwopt export`: the chosen model's weights, and a JSON of its hyperparameters and spectra."""

import sys
from pathlib import Path

import click

from wwopt.commands.study_argument import find_study, study_argument


@click.command()
@study_argument
@click.option("--trial", type=int, show_default="the best", help="Number of the trial.")
@click.option(
    "-o",
    "--output",
    default="export",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to.",
)
@click.option("--register", metavar="NAME", help="Register the model in MLflow under this name.")
@click.option("--pictures", is_flag=True, help="Draw its spectra, and attach them to its run.")
def export(
    study: str | None,
    out: Path,
    tracking_uri: str | None,
    trial: int | None,
    output: Path,
    register: str | None,
    pictures: bool,
) -> None:
    """Write the weights of the best trial of STUDY, or of --trial, and a JSON that describes it.

    STUDY is a study file, an --out folder or a study's name; without it the latest one. Exit
    status: 0 fine, 1 the trial logged no weights, 2 it could not be done.
    """
    tracked = find_study(study, out=out, tracking_uri=tracking_uri)
    from wwopt.report.export import export_trial, register_trial

    done = export_trial(tracked, output, number=trial)
    click.echo(f"{done.document}: trial {done.trial.number} of study {tracked.name}")
    if done.weights is None:
        reason = done.trial.tags.get("wwopt.weights", "not logged")
        click.echo(f"wwopt: trial {done.trial.number} has no weights: {reason}", err=True)
    else:
        click.echo(f"{done.weights}: {done.weights.stat().st_size / 1e6:.1f} MB")
    if register is not None:
        version = register_trial(tracked, register, number=trial)
        click.echo(f"Registered in MLflow as {register}, version {version}")
    if pictures:
        from wwopt.report.explanation import attach_pictures

        count = attach_pictures(done.trial)
        click.echo(f"{count} pictures attached to run {done.trial.run_id}")
    sys.exit(0 if done.weights is not None else 1)
