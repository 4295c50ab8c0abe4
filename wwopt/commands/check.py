"""`wwopt check`: which layers broke between two checkpoints."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import click

from wwopt.commands.analysis_options import analysis_options
from wwopt.gate.thresholds import Thresholds


def _threshold_options(command: Callable[..., None]) -> Callable[..., None]:
    for limit in reversed(fields(Thresholds)):
        flag = f"--max-{limit.name.replace('_', '-')}"
        option = click.option(flag, limit.name, default=limit.default, help=limit.metadata["words"])
        command = option(command)
    return command


@click.command()
@click.argument("before")
@click.argument("after")
@analysis_options(seed_of="the shuffles behind the traps")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--history",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep a line per check in this file, and compare with the past ones (drift).",
)
@_threshold_options
def check(
    before: str,
    after: str,
    layers: list[str] | None,
    key: str | None,
    seed: int,
    shuffles: int,
    device: str | None,
    as_json: bool,
    history: Path | None,
    **thresholds: float,
) -> None:
    """Which layers of checkpoint AFTER broke, compared with BEFORE, and how.

    A layer is broken when any quantity moved further than its --max- option; inf switches one off.
    Exit status: 0 none is, 1 one is, or drifted from the past, 2 the check could not be done.
    """
    from wwopt.gate.checks import check as run
    from wwopt.gate.history import append_check, find_drift, read_history
    from wwopt.gate.text import describe_drift, format_check

    try:
        past = read_history(history) if history else []  # damaged? say so before the work
        result = run(
            before,
            after,
            layers=layers,
            key=key,
            seed=seed,
            shuffles=shuffles,
            device=device,
            progress=True,
            **thresholds,
        )
        drifts = find_drift(result, past)
        if history:
            append_check(history, result, drifts, before=before, after=after)
    except Exception as error:  # whatever it is: status 1 would call the checkpoint broken
        named = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise click.ClickException(f"{named}{error}") from error
    if as_json:
        document = result.to_dict()
        if history:
            found = [asdict(drift) for drift in drifts]
            document["history"] = {"past": len(past), "drift": found}
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        click.echo(format_check(result))
        if history:
            click.echo(f"\n{describe_drift(drifts, past)}")
    sys.exit(0 if result.passed and not drifts else 1)
