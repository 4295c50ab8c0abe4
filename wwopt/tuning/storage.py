"""Open Optuna's storage: a database, one beside its proxy, or a journal in a shared folder."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from wwopt.study.errors import StudyError
from wwopt.tracking import create_once, hide_password, hide_passwords
from wwopt.tuning.patience import make_patient
from wwopt.wording import first_line

LOCK_SECONDS = 60  # that SQLite waits for another process; a write takes milliseconds
ATTEMPTS = (0.2, 0.5, 1.0, 2.0)  # pauses in seconds; two that make the tables of one database


def open_storage(url: str) -> BaseStorage:
    """Open a storage, which from then on waits through outages (`wwopt.tuning.patience`).

    Args:
        url: of a database as SQLAlchemy has it, `grpc://host:port` of Optuna's proxy, or
            `journal:///path/of/a/file`, which processes that share a folder may use.

    Raises:
        StudyError: if it cannot be reached, its schema is another one, or its driver is missing.
    """
    kind, _, rest = url.partition("://")
    try:
        with warnings.catch_warnings():
            # Optuna's proxy is experimental there, and what there is.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if kind == "grpc":
                return make_patient(_open_proxy(rest))
            if kind == "journal":
                return make_patient(_open_journal(rest))
        return make_patient(_open_database(url))
    except (SQLAlchemyError, ImportError, ValueError, OSError, RuntimeError) as error:
        reason = hide_passwords(first_line(error))
        raise StudyError(f"the storage {hide_password(url)} cannot be reached: {reason}") from error


@contextmanager
def explain_storage(url: str) -> Iterator[None]:
    """Turn what the storage raises inside the block into a `StudyError` of one line."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ConnectionError) as error:
        reason = hide_passwords(first_line(error.__cause__ or error))
        raise StudyError(
            f"the storage {hide_password(url)} failed: {reason}; what is finished is kept, and the "
            f"same command resumes"
        ) from error


def _open_database(url: str) -> RDBStorage:
    sqlite = _sqlite_path(url)
    if sqlite is None:
        return _open_twice(url, {"pool_pre_ping": True})  # not an error for each idle connection
    if sqlite.parent.is_dir():
        create_once(sqlite, lambda draft: RDBStorage(draft).engine.dispose())
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}})
    _lock_before_reading(storage)
    return storage


def _open_twice(url: str, options: dict[str, Any]) -> RDBStorage:
    """Open, and open again where another process made the same tables at the same moment."""
    for pause in ATTEMPTS:
        try:
            return RDBStorage(url, engine_kwargs=dict(options))
        except SQLAlchemyError as error:
            said = str(error)
            if "already exists" not in said and "duplicate" not in said.lower():
                raise
            time.sleep(pause)
    return RDBStorage(url, engine_kwargs=dict(options))


def _lock_before_reading(storage: RDBStorage) -> None:
    """Make SQLite lock before it reads.

    Otherwise two processes read the same waiting trial and both take it: 10 to 19 of 100, and none
    with this, which is not slower.
    """

    def leave_to_us(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(storage.engine, "connect", leave_to_us)
    event.listen(storage.engine, "begin", begin)
    storage.engine.dispose()  # connections that were opened without it


def _sqlite_path(url: str) -> Path | None:
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    if not parsed.drivername.startswith("sqlite") or not parsed.database:
        return None
    return None if parsed.database == ":memory:" else Path(parsed.database).absolute()


def _open_proxy(address: str) -> BaseStorage:
    host, _, port = address.partition(":")
    proxy = optuna.storages.GrpcStorageProxy(host=host, port=int(port or 13000))
    proxy.wait_server_ready(timeout=10)
    return proxy


def _open_journal(path: str) -> BaseStorage:
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    # Absolute, and not by symbolic links: with a relative path Optuna's other lock spins for ever
    # once a process died that held it.
    file = str(Path(path).absolute())
    return JournalStorage(JournalFileBackend(file, lock_obj=JournalFileOpenLock(file)))
