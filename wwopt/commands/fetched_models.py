"""Sources that lie in MLflow, wherever a path goes: `models:/NAME/VERSION`, `models:/NAME@ALIAS`.

Also `models:/ID` of a logged model and `runs:/ID`. Their weights are copied into a folder that is
removed when the command ends.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

DEFAULT_OUT = "wwopt-runs"  # where `wwopt tune` keeps its store


def tracking_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option --tracking-uri: where models:/NAME/VERSION is looked up."""
    option = click.option(
        "--tracking-uri",
        metavar="URI",
        show_default=f"MLFLOW_TRACKING_URI, else sqlite, {DEFAULT_OUT}/mlflow.db",
        help="MLflow's tracking URI, for models:/NAME/VERSION, models:/NAME@ALIAS, runs:/ID.",
    )
    return option(command)


def find_store(uri: str | None) -> str:
    """The tracking URI that was given, or what stands for it; None given: the environment's.

    Raises:
        TrackingError: if none was given and there is no store where `wwopt tune` keeps one.
    """
    from wwopt.tracking.store import folder_uri

    return uri or os.environ.get("MLFLOW_TRACKING_URI") or folder_uri(DEFAULT_OUT, exists=True)


@contextmanager
def fetch_models(sources: Sequence[str], uri: str | None) -> Iterator[list[str]]:
    """Paths for sources: the addresses of MLflow as files that are here while the block runs.

    Args:
        sources: paths and addresses.
        uri: of the tracking store, as `find_store` takes it.

    Raises:
        TrackingError: if an address stands for no weights, or the store cannot be read.
    """
    # As in wwopt.tracking.addresses, which takes its time to import.
    if not any(source.startswith(("models:/", "runs:/")) for source in sources):
        yield list(sources)
        return
    from wwopt.tracking.addresses import fetch_weights, is_address

    store = find_store(uri)
    with tempfile.TemporaryDirectory(prefix="wwopt-") as folder:
        yield [
            str(fetch_weights(store, source, Path(folder) / str(number)))
            if is_address(source)
            else source
            for number, source in enumerate(sources)
        ]
