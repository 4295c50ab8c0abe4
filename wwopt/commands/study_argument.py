"""The argument STUDY that commands share: a file, a folder or a name → a tracked study."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import wwopt.study
import wwopt.tracking

if TYPE_CHECKING:
    from wwopt.tracking import TrackedStudy


def study_argument(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument STUDY and the options --out and --tracking-uri."""
    decorators: tuple[Any, ...] = (
        click.argument("study", required=False),
        click.option(
            "--out",
            default="wwopt-runs",
            type=click.Path(path_type=Path),
            help="Folder that the study was tuned into.",
        ),
        click.option(
            "--tracking-uri", show_default="sqlite, OUT/mlflow.db", help="MLflow's tracking URI."
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def names_code(study: str) -> bool:
    """Whether STUDY is a study file or a module's attribute, not a folder or a name."""
    return ".py" in study or ":" in study


def find_study(study: str | None, *, out: Path, tracking_uri: str | None) -> "TrackedStudy":
    """Read the study that the argument means.

    Args:
        study: something with `.py` or `:` is a study file or module attribute, a folder is an
            --out folder, anything else a study's name; None for the latest.
        out: folder with MLflow's database, unless a folder or a URI was given.
        tracking_uri: MLflow's, instead of the folder.

    Raises:
        StudyError: if a study file cannot be loaded.
        TrackingError: if there is no such study.
    """
    name = None
    if study is not None and names_code(study):
        name = wwopt.study.load_study(study).name
    elif study is not None and tracking_uri is None and Path(study).is_dir():
        out = Path(study)
    else:
        name = study
    uri = tracking_uri or wwopt.tracking.folder_uri(out, exists=True)
    return wwopt.tracking.read_study(uri, name)
