"""`wwopt watch`: score checkpoints as they appear, and say what broke or drifted."""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wwopt.commands.analysis_options import analysis_options
from wwopt.commands.fetched_models import find_store, tracking_option
from wwopt.commands.interrupts import bound_ending, is_interrupted
from wwopt.commands.threshold_options import threshold_options

if TYPE_CHECKING:
    from wwopt.gate.watching import Outcome, Watcher

_MODEL = "models:/"
GRACE = 15.0  # seconds after an interrupt; what is then left is scored the next time


@click.command()
@click.argument("source", metavar="FOLDER|models:/NAME")
@click.option("--once", is_flag=True, help="One pass over what is there, as for cron.")
@click.option("--every", default=30.0, metavar="SECONDS", help="Pause between two passes.")
@click.option(
    "--quiet",
    default=2.0,
    metavar="SECONDS",
    help="A checkpoint is looked at when it has not changed for so long.",
)
@click.option(
    "--patience",
    default=60.0,
    metavar="SECONDS",
    help="One that cannot be read is broken when it has not changed for so long.",
)
@click.option(
    "--out",
    default="wwopt-runs",
    type=click.Path(path_type=Path),
    help="Folder of the store that is logged to where --log-to names none.",
)
@click.option("--log-to", metavar="URI", show_default="sqlite, OUT/mlflow.db", help="MLflow's URI.")
@analysis_options(seed_of="the shuffles behind the traps")
@tracking_option
@threshold_options
def watch(
    source: str,
    once: bool,
    every: float,
    quiet: float,
    patience: float,
    out: Path,
    log_to: str | None,
    layers: list[str] | None,
    key: str | None,
    seed: int,
    shuffles: int,
    quick: bool,
    device: str | None,
    tracking_uri: str | None,
    **thresholds: float,
) -> None:
    """Score the checkpoints of a folder, or the versions of a registered model, as they appear.

    Each is compared with the last that passed, as `wwopt check` does, and with the history, and
    becomes a run of the MLflow experiment "wwopt watch". It is scored once, however often the
    watch is stopped or killed. Exit status with --once: 0 nothing broke, 1 a checkpoint broke or
    drifted, 2 one could not be read, or the watch could not be done.
    """
    from wwopt.gate.thresholds import Thresholds
    from wwopt.gate.watching import Watcher
    from wwopt.tracking.keys import hide_password
    from wwopt.tracking.store import folder_uri
    from wwopt.tracking.watches import EXPERIMENT, open_watch

    bound_ending(GRACE)
    limits = Thresholds(**thresholds)
    where: dict[str, Any]
    if source.startswith(_MODEL):
        name = source.removeprefix(_MODEL)
        if not name or "/" in name or "@" in name:
            raise click.UsageError(f"{source}: name a registered model, as {_MODEL}NAME")
        store = find_store(tracking_uri)
        where, watched, uri = {"registry": store, "model": name}, source, log_to or store
    else:
        folder = Path(source)
        if not folder.is_dir():
            raise click.UsageError(f"{source} is no folder; name one, or a model as {_MODEL}NAME")
        where, watched = {"folder": folder.resolve()}, str(folder.resolve())
        if log_to is None:
            out.mkdir(parents=True, exist_ok=True)
        uri = log_to or folder_uri(out)
    with _alone(uri, watched):
        watcher = Watcher(
            open_watch(uri, watched),
            **where,
            thresholds=limits,
            layers=layers,
            key=key,
            device=device,
            seed=seed,
            shuffles=shuffles,
            quick=quick,
            quiet=quiet,
            patience=patience,
        )
        click.echo(
            f"Watching {watched}; runs in experiment {EXPERIMENT!r} of {hide_password(uri)}",
            err=True,
        )
        with closing(watcher):
            if once:
                sys.exit(_pass_once(watcher))
            _pass_for_ever(watcher, every)


def _pass_once(watcher: "Watcher") -> int:
    from wwopt.gate.watching import wait_for_quiet

    outcomes = list(_pass(watcher))
    if wait_for_quiet(outcomes, watcher.quiet):  # just written: `train && wwopt watch --once`
        outcomes = [outcome for outcome in outcomes if not outcome.waiting]
        outcomes += _pass(watcher)
    for outcome in outcomes:
        if outcome.waiting:
            click.echo(f"{outcome.arrival.name}: left for the next time, {outcome.waiting}")
    if not outcomes:
        click.echo("Nothing new.")
    if any(outcome.result is not None and not outcome.passed for outcome in outcomes):
        return 1
    return 2 if any(outcome.unreadable for outcome in outcomes) else 0


def _pass_for_ever(watcher: "Watcher", every: float) -> None:
    from wwopt.tracking.store import TrackingError

    said: set[str] = set()  # of what waits, once in a process
    while True:
        try:
            for outcome in _pass(watcher):
                too_young = outcome.arrival.age < watcher.quiet
                if outcome.waiting and not too_young and outcome.arrival.name not in said:
                    said.add(outcome.arrival.name)
                    click.echo(f"{outcome.arrival.name}: waiting, {outcome.waiting}", err=True)
        except (TrackingError, OSError) as error:  # a server that restarts, a share that is away
            if is_interrupted():
                raise
            click.echo(f"wwopt: {error}; trying again in {every:g} s", err=True)
        if is_interrupted():  # and something swallowed it, as Python does in a finalizer
            raise KeyboardInterrupt
        time.sleep(every)


def _pass(watcher: "Watcher") -> Iterator["Outcome"]:
    """One pass; what is dealt with is said at once."""
    from wwopt.gate.text import describe_watched
    from wwopt.gate.watching import score_arrivals

    for outcome in score_arrivals(watcher):
        if not outcome.waiting:
            click.echo(describe_watched(outcome))
        yield outcome


@contextmanager
def _alone(uri: str, source: str) -> Iterator[None]:
    """Keep a second watcher of the same source away, on this machine.

    Raises:
        ValueError: if there is one.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    # Of one user: another's file in the common folder could not be opened.
    name = hashlib.sha256(f"{os.getuid()}\n{uri}\n{source}".encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"wwopt-watch-{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"{source} is being watched already, by another process") from error
        yield
