"""`wwopt analyze`: the spectra of checkpoints, as a table, in words, as data, in pictures."""

import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wwopt.commands.analysis_options import analysis_options
from wwopt.commands.fetched_models import fetch_models, tracking_option
from wwopt.wording import first_line

if TYPE_CHECKING:
    from wwopt.metrics import BaseComparison, ModelMetrics


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--base",
    help="Compare with the checkpoint that it was made of; --json, --csv and --plot also hold the "
    "spectra of the difference.",
)
@analysis_options(seed_of="the shuffles behind the traps")
@tracking_option
@click.option("--dtype", default="float64", type=click.Choice(["float64", "float32"]))
@click.option("--max-size", default=8192, help="Smaller dimension; larger layers are estimated.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    show_default="as many as torch has threads and memory allows",
    help="Layers computed at once, whatever memory they need.",
)
@click.option(
    "--resume",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep each layer here when it is done, and take those that are here.",
)
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
    layers: list[str] | None,
    key: str | None,
    seed: int,
    shuffles: int,
    quick: bool,
    device: str | None,
    tracking_uri: str | None,
    dtype: str,
    max_size: int,
    workers: int | None,
    resume: Path | None,
    dask: str | None,
    as_json: bool,
    as_csv: bool,
    plot: Path | None,
) -> None:
    """Spectra of checkpoints: safetensors, Hugging Face folders, torch.save's files, GGUF, NumPy's.

    A PATH may also be models:/NAME/VERSION or models:/NAME@ALIAS of MLflow. With --base: what kind
    of change it was, and how far each layer moved; of an adapter's folder also the adapted model.
    """
    import pandas as pd
    import torch

    from wwopt.metrics.analysis import analyze as run
    from wwopt.metrics.base.base_comparison import compare_with_base
    from wwopt.metrics.base.change_text import format_comparison
    from wwopt.metrics.parallel import LostWorkerError
    from wwopt.metrics.text import describe, format_table
    from wwopt.tracking.keys import hide_password
    from wwopt.tracking.store import TrackingError
    from wwopt.weights.stored_tensors import WeightsError

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if workers is not None and dask is not None:
        raise click.UsageError("--workers is for this process; a Dask cluster has its own")
    if device is not None and dask is None:  # a cluster's workers have devices of their own
        _try_device(device)
    if plot is not None:
        _make_folder(plot)
    found: dict[str, ModelMetrics] = {}
    comparisons: dict[str, BaseComparison] = {}
    wants_spectra = as_json or as_csv or plot is not None
    bases = [] if base is None else [base]
    with _open_dask(dask) as executor, fetch_models(bases, tracking_uri) as fetched:
        for path in paths:
            try:
                with fetch_models([path], tracking_uri) as (file,):
                    shown, compared = hide_password(path), None
                    if fetched:
                        compared = compare_with_base(
                            file, fetched[0], layers=layers, key=key, device=device, progress=True
                        )
                    # The terminal shows no spectrum of a difference; an adapted model is none.
                    if compared is None or compared.of_adapter or wants_spectra:
                        found[shown] = run(
                            file,
                            base=fetched[0] if fetched else None,
                            layers=layers,
                            key=key,
                            seed=seed,
                            shuffles=shuffles,
                            quick=quick,
                            executor=executor,
                            workers=workers,
                            device=device,
                            dtype=torch.float32 if dtype == "float32" else torch.float64,
                            max_size=max_size,
                            full_shuffle=None if plot is None else True,  # pictures show it
                            resume=resume,
                            progress=True,
                        )
                    if compared is not None:
                        comparisons[shown] = compared
            # The others can be read all the same.
            except (WeightsError, TrackingError, LostWorkerError) as error:
                click.echo(f"wwopt: {error}", err=True)
    if as_json:
        documents = {path: metrics.to_dict() for path, metrics in found.items()}
        for path, compared in comparisons.items():
            documents[path]["base"] = compared.to_dict()
        click.echo(json.dumps(documents, indent=2, allow_nan=False))
    elif as_csv and found:
        frames = {path: metrics.to_frame() for path, metrics in found.items()}
        for path, compared in comparisons.items():
            columns = compared.to_frame().drop(columns=["N", "M"])
            columns = columns.rename(columns={"name": "longname"})
            frames[path] = frames[path].merge(columns, how="left", on="longname")
        table = pd.concat(frames, names=["source"]).droplevel(1).reset_index()
        click.echo(table.to_csv(index=False), nl=False)
    else:
        for path in dict.fromkeys([*comparisons, *found]):
            click.echo(f"{path}\n")
            if path in comparisons:
                click.echo(f"{format_comparison(comparisons[path])}\n")
            if path not in comparisons or comparisons[path].of_adapter:
                click.echo(f"{format_table(found[path])}\n\n{describe(found[path])}\n")
    if plot is not None:
        _write_pictures(found, plot, several=len(paths) > 1)
    read = comparisons or found
    sys.exit(0 if len(read) == len(paths) else 1 if read else 2)


@contextmanager
def _open_dask(address: str | None) -> Iterator[Executor | None]:
    """The executor of a Dask cluster, or None for this process."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        message = "--dask needs Dask: pip install 'wwopt[dask]'"
        raise click.ClickException(message) from error
    try:
        connect: Any = Client  # without types
        client = connect(address, timeout=10)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"no Dask scheduler at {address}: {error}") from error
    with client, client.get_executor() as executor:
        yield executor


def _try_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        message = f"cannot compute on device {device!r}: {first_line(error)}"
        raise click.ClickException(message) from error


def _make_folder(folder: Path) -> None:
    """Before the work and not after it: a folder that cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot write pictures to {folder}: {error.strerror}"
        raise click.ClickException(message) from error


def _write_pictures(found: Mapping[str, "ModelMetrics"], folder: Path, *, several: bool) -> None:
    from wwopt.metrics.pictures.plots import slugify, write_plots

    for number, (path, metrics) in enumerate(found.items(), start=1):
        # A folder of its own for each of several sources.
        own = folder / f"{number:03}-{slugify(path)}" if several else folder
        try:
            written = write_plots(metrics, own, progress=True)
        except OSError as error:
            message = f"cannot write pictures to {own}: {error.strerror}"
            raise click.ClickException(message) from error
        # On stderr: stdout may be JSON that another program reads.
        click.echo(f"Pictures: {written[0]} and {len(written) - 1} layers beside it", err=True)
