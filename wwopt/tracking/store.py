"""Reach an MLflow store: a client of it, its artifacts, and what to say where it cannot be used.

Importing mlflow takes 2 s, so it happens inside functions, and `import wwopt` stays light.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url

from wwopt.tracking.keys import hide_password
from wwopt.tracking.sqlite_files import create_once
from wwopt.wording import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

GATEWAY = ("error code 502", "error code 503", "error code 504")  # of a proxy before the server
DATABASE = "mlflow.db"  # in an --out folder; Optuna's lies beside it


class TrackingError(ValueError):
    """The tracking store cannot be used; the message says why and what to do."""


class AwayError(TrackingError):
    """The tracking server cannot be reached; what is asked may be asked again later."""


def connect(uri: str) -> "MlflowClient":
    """A client of this store. Other modules use it and import nothing of MLflow themselves."""
    _quiet()
    from mlflow import MlflowClient

    uri = _whole(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def reach(uri: str, *, exists: bool = False) -> None:
    """Fail in seconds where MLflow's client would retry for minutes.

    Args:
        uri: of the tracking store.
        exists: fail for a SQLite file that is not there, which MLflow would make.

    Raises:
        AwayError: if nobody listens there.
        TrackingError: if there is no such file.
    """
    path = sqlite_path(uri)
    if exists and path is not None and not path.is_file():
        raise TrackingError(f"there is no tracking store {hide_password(uri)}: no such file")
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=10).close()
    except (OSError, ValueError) as error:
        raise AwayError(
            f"the tracking server {hide_password(uri)} cannot be reached: {error}"
        ) from error


def create_tables(uri: str) -> None:
    """Create the tables of a new database, however many processes do so at once.

    Raises:
        TrackingError: if it cannot be used.
    """
    path = sqlite_path(uri)
    if path is not None and path.parent.is_dir():
        with explained(uri):
            create_once(path, _touch)
        return
    if "://" not in uri or uri.startswith(("http", "file", "databricks")):
        return
    # Two that make the tables of one server's database: the loser finds them at its next attempt.
    for pause in (0.5, 1.0, 2.0, 4.0):
        try:
            with explained(uri):
                _touch(uri)
            return
        except TrackingError:
            time.sleep(pause)
    with explained(uri):
        _touch(uri)


def _touch(uri: str) -> None:
    connect(uri).search_experiments(max_results=1)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn whatever the store raises inside the block into a `TrackingError` of one line."""
    _quiet()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = first_line(error)
        if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            raise TrackingError(f"{hide_password(uri)}: {reason}") from error
        kind = AwayError if is_away(error) else TrackingError
        raise kind(f"the tracking store {hide_password(uri)} cannot be used: {reason}") from error


def is_away(error: BaseException | None) -> bool:
    """Whether a server could not be reached, after all the attempts of MLflow's client."""
    if error is None:
        return False
    from requests.exceptions import RequestException

    if isinstance(error, AwayError | RequestException):
        return True
    said = str(error)
    return any(words in said for words in GATEWAY) or is_away(error.__cause__ or error.__context__)


def download(uri: str, source: str, folder: Path | None = None) -> Path:
    """Fetch an artifact of this store.

    Args:
        uri: of the tracking store.
        source: its URI, as `runs:/RUN_ID/layers.json`, or below a logged model's location.
        folder: to copy it to; None for wherever it can be read, without a copy if it is local.

    Returns:
        The local file or folder.
    """
    _quiet()
    from mlflow.artifacts import download_artifacts

    uri = _whole(uri)
    target = None if folder is None else str(folder)
    path = download_artifacts(
        artifact_uri=source, dst_path=target, tracking_uri=uri, registry_uri=uri
    )
    return Path(path)


def folder_uri(folder: str | Path, *, exists: bool = False) -> str:
    """The tracking URI of the database in an --out folder.

    Args:
        folder: of `wwopt tune`.
        exists: fail where there is none; reading one that is not there would make an empty one.

    Raises:
        TrackingError: if it shall exist and does not.
    """
    database = Path(folder).resolve() / DATABASE
    if exists and not database.is_file():
        raise TrackingError(
            f"{folder} holds no {DATABASE}: `wwopt tune` makes it; name another folder with --out, "
            f"or a server with --tracking-uri"
        )
    return f"sqlite:///{database}"


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    if not uri.startswith("sqlite:"):
        return None
    database = make_url(uri).database
    return Path(database).resolve() if database and database != ":memory:" else None


def _whole(uri: str) -> str:
    """An address that means the same wherever the process goes: MLflow keeps a store for each."""
    path = sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path}"


def _quiet() -> None:
    """Keep migrations, bars and addresses off the terminal; errors are raised, not logged."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # It prints the address of each run that ends, with the server's password.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("alembic", "mlflow.store.db.utils"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
