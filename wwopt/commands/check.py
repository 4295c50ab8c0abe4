"""`wwopt check`: which layers broke between two checkpoints."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

from wwopt.commands.analysis_options import analysis_options
from wwopt.commands.fetched_models import fetch_models, tracking_option
from wwopt.commands.threshold_options import threshold_options


@click.command()
@click.argument("before")
@click.argument("after")
@analysis_options(seed_of="the shuffles behind the traps")
@tracking_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--history",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep a line per check in this file, and compare with the past ones (drift).",
)
@click.option(
    "--junit",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a test case for each layer as JUnit XML.",
)
@click.option(
    "--markdown",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Append the verdict and a table in Markdown, as to $GITHUB_STEP_SUMMARY.",
)
@click.option("--log-to", metavar="URI", help="Log the check as a run to this MLflow.")
@threshold_options
def check(
    before: str,
    after: str,
    layers: list[str] | None,
    key: str | None,
    seed: int,
    shuffles: int,
    quick: bool,
    device: str | None,
    tracking_uri: str | None,
    as_json: bool,
    history: Path | None,
    junit: Path | None,
    markdown: Path | None,
    log_to: str | None,
    **thresholds: float,
) -> None:
    """Which layers of checkpoint AFTER broke, compared with BEFORE, and how.

    Both are checkpoints as of `wwopt analyze`, such as a path or MLflow's models:/NAME@ALIAS.
    A layer is broken when any quantity moved further than its --max- option; inf switches one off.
    Exit status: 0 none is, 1 one is, or drifted from the past, 2 the check could not be done.
    """
    from wwopt.gate.checks import check as run
    from wwopt.gate.history import append_check, find_drift, read_history
    from wwopt.gate.junit import format_junit, format_junit_error
    from wwopt.gate.markdown import escape, format_markdown
    from wwopt.gate.text import describe_drift, format_check
    from wwopt.tracking.keys import hide_password

    for file in (junit, markdown):
        if file is not None and not file.resolve().parent.is_dir():
            raise click.UsageError(f"{file}: there is no folder {file.resolve().parent}")
    names = {"before": hide_password(before), "after": hide_password(after)}
    start = time.monotonic()
    try:
        past = read_history(history) if history else []  # damaged? say so before the work
        if log_to is not None:
            _reach(log_to)
        with fetch_models([before, after], tracking_uri) as (old, new):
            result = run(
                old,
                new,
                layers=layers,
                key=key,
                seed=seed,
                shuffles=shuffles,
                quick=quick,
                device=device,
                progress=True,
                **thresholds,
            )
        drifts = find_drift(result, past)
        if history:
            append_check(history, result, drifts, **names)
    except Exception as error:  # whatever it is: status 1 would call the checkpoint broken
        named = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        reason = f"{named}{error}"
        if junit is not None:
            junit.write_text(format_junit_error(reason, **names), encoding="utf-8")
        if markdown is not None:
            _append(markdown, f"### wwopt check could not be done\n\n{escape(reason)}\n")
        raise click.ClickException(reason) from error
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
    if junit is not None:
        text = format_junit(result, drifts, **names, seconds=time.monotonic() - start)
        junit.write_text(text, encoding="utf-8")
    if markdown is not None:
        summary = format_markdown(result, drifts, before=names["before"], after=names["after"])
        _append(markdown, summary)
    if log_to is not None:
        from wwopt.gate.logged_checks import describe_check
        from wwopt.tracking.checks import EXPERIMENT, log_check

        log_check(log_to, describe_check(result, drifts, **names))
        click.echo(f"Logged to experiment {EXPERIMENT!r} of {hide_password(log_to)}", err=True)
    sys.exit(0 if result.passed and not drifts else 1)


def _reach(uri: str) -> None:
    """Before the work and not after it: a server that nobody answers for."""
    from wwopt.tracking.store import reach

    reach(uri)


def _append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8") as summary:
        summary.write(f"{text}\n")
