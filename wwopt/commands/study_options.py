"""What commands that run trials share: where databases and data lie, and a quiet start."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def study_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --out, --storage, --tracking-uri and --data.

    The command gets `out`, `storage` and `tracking_uri`. --data it does not: study files, here and
    in worker processes, read it as the variable WWOPT_DATA.
    """
    options: tuple[Any, ...] = (
        click.option(
            "--out",
            default="wwopt-runs",
            type=click.Path(path_type=Path),
            help="Folder for databases, artifacts and checkpoints.",
        ),
        click.option(
            "--storage", show_default="sqlite, OUT/optuna.db", help="Optuna's database URL."
        ),
        click.option(
            "--tracking-uri", show_default="sqlite, OUT/mlflow.db", help="MLflow's tracking URI."
        ),
        click.option(
            "--data",
            envvar="WWOPT_DATA",
            type=click.Path(path_type=Path),
            callback=_hand_data_on,
            expose_value=False,
            help="Folder of data, for studies that read one; they see it as WWOPT_DATA.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _hand_data_on(_: click.Context, __: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        os.environ["WWOPT_DATA"] = str(folder.resolve())


def keep_quiet() -> None:
    """Trials that fail are told in one line each by us; their traceback lies in MLflow."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
