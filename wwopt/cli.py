"""The commands; they resolve files and names and hand plain values down.

Exit status: 0 fine, 1 a finding or a partial result, 2 could not do it.
"""

import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click
import optuna
import pandas as pd

from wwopt.description import describe, format_table
from wwopt.gate_report import describe_drift, format_check
from wwopt.layer_damage import Thresholds
from wwopt.layer_metrics import ModelMetrics
from wwopt.tracking import hide_password
from wwopt.tuning import StudyResult


@click.group(context_settings={"auto_envvar_prefix": "WWOPT", "show_default": True})
@click.version_option(package_name="wwopt")
def main() -> None:
    """Tune, pick and judge neural networks without test data, from their weights' spectra."""


@main.command()
@click.argument("study")
@click.option("--trials", default=20, help="Finished trials that the study shall have.")
@click.option(
    "--out",
    default="wwopt-runs",
    type=click.Path(path_type=Path),
    help="Folder for databases and artifacts.",
)
@click.option("--seed", default=0, help="Seed of initialisation, data order and sampler.")
@click.option("--storage", show_default="sqlite, OUT/optuna.db", help="Optuna's database URL.")
@click.option("--tracking-uri", show_default="sqlite, OUT/mlflow.db", help="MLflow's tracking URI.")
@click.option("--jobs", default=1, help="Processes on this machine.")
def tune(
    study: str,
    trials: int,
    out: Path,
    seed: int,
    storage: str | None,
    tracking_uri: str | None,
    jobs: int,
) -> None:
    """Run or resume STUDY (a file such as studies/digits.py, or module:attribute)."""
    from wwopt.study import StudyError
    from wwopt.tracking import TrackingError
    from wwopt.tuning import tune as run

    # Trials that fail are told in one line each; their traceback lies in MLflow.
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        result = run(
            study,
            trials=trials,
            out=out,
            storage=storage,
            tracking=tracking_uri,
            seed=seed,
            jobs=jobs,
        )
    except (StudyError, TrackingError) as error:
        click.echo(f"wwopt: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("wwopt: interrupted; the same command resumes", err=True)
        sys.exit(130)
    click.echo(summarize(result))
    sys.exit(0 if result.best_trial is not None else 1)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--base", help="Analyse the difference to this checkpoint instead.")
@click.option("--layers", help="Only layers of these names or patterns, separated by commas.")
@click.option("--seed", default=0, help="Seed of the shuffles behind the traps.")
@click.option("--shuffles", default=3, help="Shuffles of every layer; 0 leaves traps unknown.")
@click.option("--device", show_default="where the weights lie", help="As torch names it.")
@click.option("--dtype", default="float64", type=click.Choice(["float64", "float32"]))
@click.option("--max-size", default=8192, help="Smaller dimension; larger layers are estimated.")
@click.option("--dask", metavar="ADDRESS", help="Scheduler of a Dask cluster that computes.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the layer table as CSV.")
@click.option(
    "--plot",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write a picture of every layer, and one of all, to this folder.",
)
def analyze(
    paths: tuple[str, ...],
    base: str | None,
    layers: str | None,
    seed: int,
    shuffles: int,
    device: str | None,
    dtype: str,
    max_size: int,
    dask: str | None,
    as_json: bool,
    as_csv: bool,
    plot: Path | None,
) -> None:
    """Spectra of checkpoints: safetensors, Hugging Face folders, weights-only .pt and .ckpt."""
    import torch

    from wwopt.layer_metrics import analyze as run
    from wwopt.parallel import LostWorkerError
    from wwopt.weights import WeightsError

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if plot is not None:
        _make_folder(plot)
    names = [name.strip() for name in layers.split(",")] if layers else None
    found: dict[str, ModelMetrics] = {}
    try:
        with _open_dask(dask) as executor:
            for path in paths:
                try:
                    found[path] = run(
                        path,
                        base=base,
                        layers=names,
                        seed=seed,
                        shuffles=shuffles,
                        executor=executor,
                        device=device,
                        dtype=torch.float32 if dtype == "float32" else torch.float64,
                        max_size=max_size,
                        progress=True,
                    )
                except (WeightsError, LostWorkerError) as error:
                    click.echo(f"wwopt: {error}", err=True)
    except KeyboardInterrupt:
        click.echo("wwopt: interrupted", err=True)
        sys.exit(130)
    if as_json:
        documents = {path: metrics.to_dict() for path, metrics in found.items()}
        click.echo(json.dumps(documents, indent=2, allow_nan=False))
    elif as_csv and found:
        frames = {path: metrics.to_frame() for path, metrics in found.items()}
        table = pd.concat(frames, names=["source"]).droplevel(1).reset_index()
        click.echo(table.to_csv(index=False), nl=False)
    else:
        for path, metrics in found.items():
            click.echo(f"{path}\n\n{format_table(metrics)}\n\n{describe(metrics)}\n")
    if plot is not None:
        _write_pictures(found, plot, several=len(paths) > 1)
    sys.exit(0 if len(found) == len(paths) else 1 if found else 2)


def _threshold_options(command: Callable[..., None]) -> Callable[..., None]:
    for limit in reversed(fields(Thresholds)):
        flag = f"--max-{limit.name.replace('_', '-')}"
        option = click.option(flag, limit.name, default=limit.default, help=limit.metadata["words"])
        command = option(command)
    return command


@main.command()
@click.argument("before")
@click.argument("after")
@click.option("--layers", help="Only layers of these names or patterns, separated by commas.")
@click.option("--seed", default=0, help="Seed of the shuffles behind the traps.")
@click.option("--shuffles", default=3, help="Shuffles of every layer; 0 leaves traps unknown.")
@click.option("--device", show_default="where the weights lie", help="As torch names it.")
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
    layers: str | None,
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
    from wwopt.gate import check as run
    from wwopt.gate_history import append_check, find_drift, read_history

    names = [name.strip() for name in layers.split(",")] if layers else None
    try:
        past = read_history(history) if history else []  # damaged? say so before the work
        result = run(
            before,
            after,
            layers=names,
            seed=seed,
            shuffles=shuffles,
            device=device,
            progress=True,
            **thresholds,
        )
        drifts = find_drift(result, past)
        if history:
            append_check(history, result, drifts, before=before, after=after)
    except KeyboardInterrupt:
        click.echo("wwopt: interrupted", err=True)
        sys.exit(130)
    except Exception as error:  # whatever it is: status 1 would call the checkpoint broken
        named = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        click.echo(f"wwopt: {named}{error}", err=True)
        sys.exit(2)
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


@contextmanager
def _open_dask(address: str | None) -> Iterator[Executor | None]:
    """The executor of a Dask cluster, or None for this process."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        click.echo("wwopt: --dask needs Dask: pip install 'wwopt[dask]'", err=True)
        sys.exit(2)
    try:
        connect: Any = Client  # without types
        client = connect(address, timeout=10)
    except (OSError, ValueError) as error:
        click.echo(f"wwopt: no Dask scheduler at {address}: {error}", err=True)
        sys.exit(2)
    with client, client.get_executor() as executor:
        yield executor


def _make_folder(folder: Path) -> None:
    """Before the work and not after it: a folder that cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        click.echo(f"wwopt: cannot write pictures to {folder}: {error.strerror}", err=True)
        sys.exit(2)


def _write_pictures(found: Mapping[str, ModelMetrics], folder: Path, *, several: bool) -> None:
    from wwopt.plots import slugify, write_plots

    for number, (path, metrics) in enumerate(found.items(), start=1):
        # A folder of its own for each of several sources.
        own = folder / f"{number:03}-{slugify(path)}" if several else folder
        try:
            written = write_plots(metrics, own, progress=True)
        except OSError as error:
            click.echo(f"wwopt: cannot write pictures to {own}: {error.strerror}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("wwopt: interrupted", err=True)
            sys.exit(130)
        # On stderr: stdout may be JSON that another program reads.
        click.echo(f"Pictures: {written[0]} and {len(written) - 1} layers beside it", err=True)


def summarize(result: StudyResult) -> str:
    """The end of a study for a reader: the best trial, its layers, and where to look further."""
    trials = result.study.get_trials(deepcopy=False)
    counts = {
        name: sum(t.state.name == state for t in trials)
        for name, state in (("complete", "COMPLETE"), ("pruned", "PRUNED"), ("failed", "FAIL"))
    }
    tally = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    lines = ["", f"Study {result.spec.name}: {sum(counts.values())} trials ({tally})."]
    best = result.best_trial
    if best is None:
        lines.append("No trial was completed, so there is no best one.")
    else:
        lines += ["", _headline(result, best), "", *_layer_table(best)]
    lines += [
        "",
        f"Optuna: {result.storage}",
        f"MLflow: {hide_password(result.run.uri)}",
    ]
    if result.run.uri.startswith("sqlite"):
        uri = shlex.quote(result.run.uri)
        lines.append(f"Look at it with:  mlflow ui --backend-store-uri {uri}")
    return "\n".join(lines)


def _headline(result: StudyResult, best: optuna.trial.FrozenTrial) -> str:
    terms = best.user_attrs.get("terms", {})
    parts = ", ".join(f"{name} {value:+.3f}" for name, value in terms.items() if value)
    line = f"Best: trial {best.number}, objective {best.value:.4f} ({parts}; lower is better)"
    metrics = best.user_attrs.get("metrics", {})
    shown = [name for name in ("train_loss", result.spec.metric) if name in metrics]
    if shown:
        line += "\n      " + ", ".join(f"{name} {metrics[name]:.4g}" for name in shown)
        if result.spec.metric in shown:
            line += f"  ({result.spec.metric} was not seen by the objective)"
    return line


def _layer_table(best: optuna.trial.FrozenTrial) -> list[str]:
    values = best.user_attrs.get("hyperparameters", {})
    kinds = list(dict.fromkeys(key.partition("/")[0] for key in values))
    rows = {}
    for name, layer in best.user_attrs.get("layers", {}).items():
        row = {kind: _number(values.get(f"{kind}/{name}"), ".3g") for kind in kinds}
        row["alpha"] = _number(layer["alpha"], ".2f")
        if layer["alpha"] is not None and layer["sigma"] is not None:
            row["alpha"] += f" ± {layer['sigma']:.2f}"
        row["D"] = _number(layer["D"], ".3f")
        row["traps"] = _number(layer["traps"], ".0f")
        row["status"] = layer["status"]
        rows[name] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.to_string().splitlines()


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
