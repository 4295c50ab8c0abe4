"""A database appears whole, and once."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from wwopt.tracking import create_once


def make(url: str, name: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        database.execute(f"create table {name} (x)")
        database.commit()


def tables(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute("select name from sqlite_master")]


def test_of_two_that_make_it_at_once_one_wins_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    both = threading.Barrier(2)

    def one(name: str) -> None:
        def slowly(url: str) -> None:
            make(url, name)
            both.wait(30)  # neither is in place before both are made

        create_once(path, slowly)

    threads = [threading.Thread(target=one, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tables(path) in (["first"], ["second"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    create_once(path, lambda url: make(url, "t"))
    create_once(path, lambda url: pytest.fail("made again"))
    assert tables(path) == ["t"]


def test_without_hard_links_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    create_once(tmp_path / "a.db", lambda url: make(url, "t"))
    assert tables(tmp_path / "a.db") == ["t"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a\.db: unable to open database"):
        create_once(tmp_path / "none" / "a.db", lambda url: make(url, "t"))
