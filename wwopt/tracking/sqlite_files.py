"""A SQLite database appears with all of its tables, however many processes make it at once.

Neither Optuna's nor MLflow's schema can be made by two processes at the same time in one file: one
of them dies of a table or column that is there already, and may leave the other half-way. So each
makes it in a file of its own, and the first to put that in place wins.
"""

import os
import sqlite3
import tempfile
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path


def create_once(path: Path, make: Callable[[str], None]) -> None:
    """Create a SQLite file unless it is there.

    Args:
        path: of the database; its folder exists.
        make: creates the tables of the database whose URL it is given.

    Raises:
        OSError: if the folder cannot be written to.
    """
    if path.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        make(f"sqlite:///{draft}")
        whole = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            # A copy: connections to the draft may be open yet.
            with closing(sqlite3.connect(draft)) as connection:
                connection.execute("VACUUM INTO ?", (str(whole),))
            _put_in_place(whole, path)
        except sqlite3.OperationalError as error:
            raise OSError(f"{path}: {error}") from error
        finally:
            whole.unlink(missing_ok=True)


def _put_in_place(whole: Path, path: Path) -> None:
    with suppress(FileExistsError):  # another process was first
        try:
            os.link(whole, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if not path.exists():
                whole.rename(path)
