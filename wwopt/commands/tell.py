"""`wwopt tell`: take the checkpoint of a trial that was asked for, a step of it, or its failure."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wwopt.commands.study_options import keep_quiet, study_options

if TYPE_CHECKING:
    from wwopt.tuning.ask_and_tell.telling import Told


def _read_metrics(
    _: click.Context, __: click.Parameter, given: tuple[str, ...]
) -> dict[str, float]:
    found = {}
    for text in given:
        name, _equals, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise click.BadParameter(f"{text!r} is no NAME=NUMBER") from None
        if not name.isidentifier() or name in ("train_loss", "step"):
            raise click.BadParameter(f"{name!r} cannot be the name of a metric")
    return found


@click.command()
@click.argument("study")
@click.argument("asked", metavar="HP.JSON", type=click.Path(path_type=Path))
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("--train-loss", type=float, help="The last training loss, in nats.")
@click.option("--step", type=int, help="A step of a training that goes on, if the status is 0.")
@click.option("--failed", metavar="REASON", help="The training failed; it is not tried again.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME=NUMBER",
    callback=_read_metrics,
    help="Anything else to log, as val_accuracy=0.9; the objective never sees it.",
)
@click.option("--key", metavar="NAME", help="Model in a checkpoint that holds several.")
@click.option(
    "--late", is_flag=True, help="Take the result after the lease, if nobody has ended the trial."
)
@study_options
@click.option(
    "--explain/--no-explain",
    default=True,
    help="Attach a report, and pictures of the best trial, if this is the last one.",
)
def tell(
    study: str,
    asked: Path,
    checkpoint: Path | None,
    train_loss: float | None,
    step: int | None,
    failed: str | None,
    metrics: dict[str, float],
    key: str | None,
    late: bool,
    out: Path,
    storage: str | None,
    tracking_uri: str | None,
    explain: bool,
) -> None:
    """Judge the CHECKPOINT of the trial of STUDY that `wwopt ask` wrote to HP.JSON.

    Exit status: 0 it was taken (with --step: go on), 1 the trial is pruned or its network broken
    (stop), 2 it was not taken, and may be told again where the message says so.
    """
    from wwopt.tuning.ask_and_tell.telling import tell as run

    keep_quiet()
    told = run(
        study,
        asked,
        checkpoint,
        train_loss=train_loss,
        step=step,
        failed=failed,
        metrics=metrics,
        key=key,
        late=late,
        out=out,
        storage=storage,
        tracking=tracking_uri,
        explain=explain,
    )
    click.echo(_say(told, step))
    if told.completes:
        click.echo(f"That was the study's last trial. Explain it with: wwopt report {study}")
    sys.exit(0 if told.state in ("RUNNING", "COMPLETE") or failed is not None else 1)


def _say(told: "Told", step: int | None) -> str:
    value = told.value
    known = value is not None and math.isfinite(value)
    score = f", objective {value:.4f}" if known else ""
    words = {
        "RUNNING": f"step {step}{score}: go on",
        "COMPLETE": f"complete{score}",
        "PRUNED": f"{told.status}: stop",
        "FAIL": f"failed: {told.status}",
    }
    return f"trial {told.trial}: {words[told.state]}"
