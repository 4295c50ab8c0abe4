"""`wwopt ask`: hand out a trial to a training job in any framework, as a JSON file."""

import re
import sys
from datetime import datetime
from pathlib import Path

import click

from wwopt.commands.study_options import keep_quiet, study_options

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _read_duration(_: click.Context, __: click.Parameter, text: str) -> float:
    """As "24h", "90m" or "1d12h", in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise click.BadParameter(f"{text!r} is no duration; write 24h, 90m, 2d or 1h30m")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


@click.command()
@click.argument("study")
@click.option(
    "-o",
    "--output",
    default="hp.json",
    type=click.Path(path_type=Path),
    help="File to write for the job.",
)
@click.option(
    "--lease",
    default="24h",
    callback=_read_duration,
    help="After which the trial is taken for lost; `wwopt tell --step` renews it.",
)
@click.option(
    "--trials",
    type=int,
    show_default="what is kept with the study",
    help="Finished trials that the study shall have; creates it where there is none.",
)
@study_options
@click.option("--seed", type=int, show_default="0", help="Seed of the study, when it is created.")
def ask(
    study: str,
    output: Path,
    lease: float,
    trials: int | None,
    out: Path,
    seed: int | None,
    storage: str | None,
    tracking_uri: str | None,
) -> None:
    """Write the next trial of STUDY to a file, for a training job of any kind.

    The job reads hyperparameters, seed and checkpoint folder there, and its checkpoint goes to
    `wwopt tell`. Exit status: 0 fine, 1 no trial is left to hand out, 2 it could not be done.
    """
    from wwopt.tuning.ask_and_tell.asking import NothingToAskError
    from wwopt.tuning.ask_and_tell.asking import ask as run

    keep_quiet()
    try:
        asked = run(
            study,
            output,
            lease=lease,
            trials=trials,
            out=out,
            storage=storage,
            tracking=tracking_uri,
            seed=seed,
        )
    except NothingToAskError as nothing:
        click.echo(f"wwopt: {nothing}", err=True)
        sys.exit(1)
    until = datetime.fromtimestamp(asked.until).astimezone()
    click.echo(
        f"{output}: trial {asked.trial} of study {asked.name}, to be told by {until:%Y-%m-%d %H:%M}"
    )
