"""A store that cannot be used is one line that says why, and none is made by reading."""

from pathlib import Path

import pytest
from fixtures.machines.processes import unused_port

from wwopt import TrackingError
from wwopt.tracking.store import connect, explained
from wwopt.tracking.tracked_studies import find_runs, read_study


@pytest.mark.parametrize(
    "error", [OSError(), OSError("\n"), OSError("the disk is full\nat 3 bytes")]
)
def test_whatever_the_store_raises_is_one_line_even_without_words(error: OSError) -> None:
    said = "the disk is full" if "full" in str(error) else "OSError"
    with pytest.raises(TrackingError, match=f"cannot be used: {said}$"), explained("sqlite:///x"):
        raise error


def test_reading_makes_no_store(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'none.db'}"
    with pytest.raises(TrackingError, match="no such file"):
        read_study(uri)
    with pytest.raises(TrackingError, match="no such file"):
        find_runs(uri, run_id="0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_said_at_once() -> None:
    with pytest.raises(TrackingError, match=r"http://me:\*\*\*@127.0.0.1:\d+ cannot be reached"):
        read_study(f"http://me:s3cret@127.0.0.1:{unused_port()}")


def test_a_relative_address_means_the_folder_that_the_process_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        connect("sqlite:///mlflow.db").search_experiments(max_results=1)
        assert (tmp_path / name / "mlflow.db").is_file()
