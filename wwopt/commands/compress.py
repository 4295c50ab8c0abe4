"""`wwopt compress`: fewer bits, zeros, less rank; how far, and which layer breaks first."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wwopt.commands.fetched_models import fetch_models
from wwopt.commands.study_argument import find_study
from wwopt.commands.threshold_options import threshold_options

if TYPE_CHECKING:
    from wwopt.compression.compression import Compression
    from wwopt.compression.recipes import By
    from wwopt.compression.retraining import Retraining
    from wwopt.tracking.tracked_trials import TrackedTrial

WIDE = 160  # characters of a line where no terminal says otherwise
RULES = ("erg", "tail")


def _read_rank(
    _: click.Context, __: click.Parameter, given: str | None
) -> int | float | str | None:
    """As "32", ".9", "erg" or "tail"."""
    if given is None or given in RULES:
        return given
    try:
        return int(given) if given.isdecimal() else float(given)
    except ValueError:
        raise click.BadParameter(
            f"{given!r} is no rank; write a number, a share of energy such as .9, erg or tail"
        ) from None


def _read_budget(_: click.Context, __: click.Parameter, given: str | None) -> float | None:
    """As "1/12", ".08" or "50000"."""
    if given is None:
        return None
    try:
        value = float(Fraction(given.replace(",", "")))
    except (ValueError, ZeroDivisionError):
        value = 0.0
    if value <= 0.0:
        raise click.BadParameter(
            f"{given!r} is no budget; write a share such as 1/12, or a number of bytes"
        )
    return value


@click.command()
@click.argument("model", required=False)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write, safetensors.",
)
@click.option("--bits", type=float, help="Of a weight, 2 to 8; with --by alpha their mean.")
@click.option("--group", type=click.IntRange(1), help="Inputs that share a scale; none: all.")
@click.option("--clip", is_flag=True, help="Clip large weights where that leaves less error.")
@click.option(
    "--compensate", is_flag=True, help="Let later inputs make up for the rounding of earlier ones."
)
@click.option("--sparsity", default=0.0, help="Share of the weights set to zero, the smallest.")
@click.option(
    "--rank",
    "cut",  # the gate's threshold is called rank
    metavar="RANK",
    callback=_read_rank,
    help="Cut layers to: a number, a share of energy such as .9, erg (SETOL's) or tail.",
)
@click.option(
    "--by",
    type=click.Choice(["uniform", "alpha"]),
    default="uniform",
    help="How bits and sparsity are shared out over the layers.",
)
@click.option("--epsilon", default=0.3, help="By alpha, sparsities spread by so much either way.")
@click.option("--gamma", default=1.0, help="By alpha, how much it counts for the bits.")
@click.option(
    "--budget",
    metavar="SHARE|BYTES",
    callback=_read_budget,
    help="Of the file, as 1/12 or 50000: choose bits, zeros and rank of each layer for it.",
)
@click.option("--keep", multiple=True, metavar="NAME", help="Layer to leave, or pattern; repeat.")
@click.option("--dense", is_flag=True, help="Write plain weights, for frameworks; no smaller.")
@click.option("--study", metavar="STUDY", help="Study file: compress its best trial's network.")
@click.option("--trial", type=int, show_default="the best", help="Of the study, by number.")
@click.option("--retrain", default=0, metavar="ROUNDS", help="Prune in rounds, train on in each.")
@click.option("--epochs", default=1, type=click.IntRange(1), help="Of training on, in a round.")
@click.option(
    "--out",
    default="wwopt-runs",
    type=click.Path(path_type=Path),
    help="Folder that the study was tuned into.",
)
@click.option("--key", metavar="NAME", help="Model in a training checkpoint that holds several.")
@click.option("--seed", default=0, help="Seed of the shuffles behind the traps.")
@click.option("--shuffles", default=3, help="Shuffles of every layer; 0 leaves traps unknown.")
@click.option("--quick", is_flag=True, help="Estimate layers from 1,536 columns on.")
@click.option("--device", show_default="where the weights lie", help="As torch names it.")
@click.option(
    "--limits/--no-limits", default=True, help="Search how far a broken layer could have gone."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--log-to", metavar="URI", help="Log it as a run to this MLflow.")
@click.option(
    "--tracking-uri", metavar="URI", show_default="sqlite, OUT/mlflow.db", help="MLflow's."
)
@threshold_options
def compress(
    model: str | None,
    output: Path,
    cut: Any,
    budget: float | None,
    keep: tuple[str, ...],
    dense: bool,
    study: str | None,
    trial: int | None,
    retrain: int,
    epochs: int,
    out: Path,
    key: str | None,
    as_json: bool,
    log_to: str | None,
    tracking_uri: str | None,
    bits: float | None,
    group: int | None,
    clip: bool,
    compensate: bool,
    sparsity: float,
    by: "By",
    epsilon: float,
    gamma: float,
    seed: int,
    shuffles: int,
    quick: bool,
    device: str | None,
    limits: bool,
    **thresholds: float,
) -> None:
    """Compress MODEL without data: fewer bits, zeros, less rank; and say what that did.

    MODEL is a checkpoint as of `wwopt analyze`. With --study it is the network of the study's best
    trial, which can be trained on (--retrain), is judged by what the study's train logs, and is
    logged under its trial in MLflow. The file is written also where a layer broke. Exit status: 0
    fine, 1 the gate calls a layer broken (of a budget, its error), 2 it could not be done.
    """
    _check(model, output, study=study, trial=trial, retrain=retrain, log_to=log_to)
    from wwopt.compression.compression import compress as run
    from wwopt.compression.logged_compressions import describe_compression
    from wwopt.compression.recipes import Recipe
    from wwopt.compression.text import format_compression
    from wwopt.gate.thresholds import Thresholds
    from wwopt.tracking.keys import hide_password

    options: dict[str, Any] = {"bits": bits, "sparsity": sparsity, "rank": cut, "keep": keep}
    options |= {"group": group, "clip": clip, "epsilon": epsilon, "gamma": gamma}
    options["compensate"] = compensate
    if budget is None:
        Recipe(**options, bits_by=by, sparsity_by=by)  # before anything is read
        options["by"] = by
    elif bits or sparsity or cut or group or clip or compensate or by != "uniform":
        raise click.UsageError(
            "--budget chooses bits, zeros and rank: give it alone or with --keep"
        )
    else:
        options = {"budget": budget, "keep": keep}
    limit = Thresholds(**thresholds)
    if log_to is not None:
        from wwopt.tracking.store import reach

        reach(log_to)
    opened = (
        _open_model(model or "", tracking_uri, key)
        if study is None
        else _open_study(study, trial, out, tracking_uri, rounds=retrain, epochs=epochs)
    )
    with opened as source:
        _refuse_overwriting(output, source.path)
        found = run(
            source.path,
            **options,
            retraining=source.retraining,
            key=key,
            seed=seed,
            shuffles=shuffles,
            device=device,
            quick=quick,
            limits=limits,
            progress=True,
            thresholds=limit,
        )
        size = found.write(output, dense=dense)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        width = shutil.get_terminal_size((WIDE, 24)).columns
        click.echo(format_compression(found, width=width))
        _tell_file(found, output, size=size, dense=dense)
    store = log_to if source.trial is None else source.trial.uri
    if store is not None:
        from wwopt.tracking.compressions import log_compression

        logged = describe_compression(found, file=output.name)
        name = source.name
        log_compression(store, logged, source=name, trial=source.trial)
        where = name if source.trial is None else f"trial {source.trial.number}"
        click.echo(f"Logged under {where} to {hide_password(store)}", err=True)
    sys.exit(0 if found.passed else 1)


@dataclass(frozen=True)
class _Opened:
    """A network that lies in files, and where it is from."""

    path: str
    name: str
    trial: "TrackedTrial | None" = None
    retraining: "Retraining | None" = None


def _check(
    model: str | None,
    output: Path,
    *,
    study: str | None,
    trial: int | None,
    retrain: int,
    log_to: str | None,
) -> None:
    """What can be refused at once."""
    if (model is None) == (study is None):
        raise click.UsageError("give either MODEL or --study STUDY")
    if study is None and (trial is not None or retrain):
        raise click.UsageError("--trial and --retrain belong to --study")
    if study is not None and log_to is not None:
        raise click.UsageError(
            "with --study it is logged under the trial that it is of: leave --log-to out"
        )
    if retrain < 0:
        raise click.UsageError(f"--retrain {retrain}: rounds are 0 or more")
    if not output.resolve().parent.is_dir():
        raise click.UsageError(f"-o {output}: there is no folder {output.resolve().parent}")


@contextmanager
def _open_model(model: str, tracking_uri: str | None, key: str | None) -> Iterator[_Opened]:
    from wwopt.tracking.keys import hide_password

    with fetch_models([model], tracking_uri) as (path,):
        name = (
            hide_password(model) if path != model or "://" in model else str(Path(model).resolve())
        )
        yield _Opened(path, name if key is None else f"{name}#{key}")


@contextmanager
def _open_study(
    study: str,
    number: int | None,
    out: Path,
    tracking_uri: str | None,
    *,
    rounds: int,
    epochs: int,
) -> Iterator[_Opened]:
    import tempfile

    import wwopt.study
    from wwopt.compression.retraining import Retraining
    from wwopt.recommendation.probe_runs import read_configuration
    from wwopt.recommendation.probes import apply_size
    from wwopt.tracking.keys import SEED_TAG
    from wwopt.tracking.models import download_weights

    spec = wwopt.study.load_study(study)
    tracked = find_study(study, out=out, tracking_uri=tracking_uri)
    trial = tracked.best if number is None else tracked[number]
    if trial is None:
        raise ValueError(f"study {tracked.name!r} has no best trial; choose one with --trial")
    hp = read_configuration(spec, trial)
    seed = int(trial.tags.get(SEED_TAG, "0"))
    conditions = replace(apply_size(spec.conditions, hp), seed=seed, epochs=epochs)
    with tempfile.TemporaryDirectory(prefix="wwopt-") as folder:
        path = download_weights(trial, folder)
        if path is None:
            raise ValueError(
                f"trial {trial.number} of study {tracked.name!r} logged no weights; tune it with a "
                "larger --max-weights, or pass the checkpoint as MODEL"
            )
        yield _Opened(
            str(path),
            tracked.name,
            trial=trial,
            retraining=Retraining(spec.train, hp, conditions, rounds=rounds),
        )


def _refuse_overwriting(output: Path, source: str) -> None:
    from wwopt.weights.files.checkpoint_files import list_parts
    from wwopt.weights.files.remote_files import is_remote

    if is_remote(source) or not output.exists():
        return
    parts = list_parts(Path(source)) if Path(source).exists() else []
    if any(part.exists() and output.samefile(part) for part in parts):
        raise ValueError(f"{output} is what is to be compressed; write to another file with -o")


def _tell_file(found: "Compression", output: Path, *, size: int, dense: bool) -> None:
    if dense:
        click.echo(f"\n{output}: {size:,} bytes, plain weights; packed they take {found.bytes:,}")
    else:
        click.echo(f"\n{output}: {size:,} bytes; docs/compression.md says how to read it")
