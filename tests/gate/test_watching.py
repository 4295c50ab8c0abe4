"""Checkpoints are scored once, in order, against the last that passed; broken ones are told."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fixtures.machines.stores import StoreIn
from fixtures.paths import ROOT
from fixtures.weights.damaged_models import State, edited, model, pushed
from mlflow import MlflowClient
from safetensors.torch import save_file

from wwopt.gate.text import describe_watched
from wwopt.gate.watching import Outcome, Watcher, score_arrivals, wait_for_quiet
from wwopt.tracking import watches
from wwopt.tracking.keys import PASSED_TAG
from wwopt.tracking.watches import open_watch, read_watched


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


@pytest.fixture
def uri(tmp_path: Path, store_in: StoreIn) -> str:
    return store_in(tmp_path)


def watcher(uri: str, folder: Path) -> Watcher:
    return Watcher(open_watch(uri, str(folder)), folder=folder, shuffles=0)


def put(folder: Path, name: str, state: State, *, age: float = 1000.0) -> Path:
    path = folder / f"{name}.safetensors"
    save_file(state, path)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def said(watch: Watcher) -> list[str]:
    """What a pass found, each in its first words."""
    return [words(outcome) for outcome in score_arrivals(watch)]


def words(outcome: Outcome) -> str:
    if outcome.waiting:
        return f"{outcome.arrival.name} waits"
    line = describe_watched(outcome).splitlines()[0]
    return line.split(", score")[0] + (f" < {outcome.before}" if outcome.before else "")


def test_each_is_compared_with_the_last_that_passed(uri: str, folder: Path) -> None:
    watch = watcher(uri, folder)
    put(folder, "a", model(), age=900)
    put(folder, "b", edited(lambda w: w * 4.0, "fc2"), age=800)
    put(folder, "c", edited(lambda w: pushed(w, 0.02)), age=700)
    assert said(watch) == [
        "a.safetensors: passed, 4 layers",
        "b.safetensors: 1 of 4 layers broke < a.safetensors",
        "c.safetensors: passed, 4 layers < a.safetensors",
    ]
    assert said(watch) == []
    put(folder, "d", model(), age=600)
    # Another process: what it knows is MLflow's.
    assert said(watcher(uri, folder)) == ["d.safetensors: passed, 4 layers < c.safetensors"]
    assert [w.step for w in read_watched(watch.watch)] == [0, 1, 2, 3]
    history = MlflowClient(uri).get_metric_history(watch.watch.run_id, "gate/broken")
    assert [(point.step, point.value) for point in history] == [(0, 0), (1, 1), (2, 0), (3, 0)]


def test_somebody_may_say_that_what_broke_is_how_it_shall_be(uri: str, folder: Path) -> None:
    watch = watcher(uri, folder)
    put(folder, "a", model(), age=900)
    put(folder, "b", edited(lambda w: w * 4.0, "fc2"), age=800)
    assert len(said(watch)) == 2
    MlflowClient(uri).set_tag(read_watched(watch.watch)[1].run_id, PASSED_TAG, "true")
    put(folder, "c", edited(lambda w: w * 4.0, "fc2"), age=700)
    assert said(watch) == ["c.safetensors: passed, 4 layers < b.safetensors"]


def test_a_first_one_that_is_not_finite_is_nobodys_measure(uri: str, folder: Path) -> None:
    state = model()
    state["fc2.weight"][0] = torch.nan
    put(folder, "a", state, age=900)
    put(folder, "b", model(), age=800)
    assert said(watcher(uri, folder)) == [
        "a.safetensors: 1 of 4 layers broke",
        "b.safetensors: passed, 4 layers",
    ]


def test_a_broken_one_is_told_once_and_an_unfinished_one_is_left(uri: str, folder: Path) -> None:
    watch = watcher(uri, folder)
    whole = put(folder, "a", model()).read_bytes()
    half = folder / "b.safetensors"
    half.write_bytes(whole[: len(whole) // 2])
    then = time.time() - 10
    os.utime(half, (then, then))
    put(folder, "c", model(), age=0.5)
    waiting = ["b.safetensors waits", "c.safetensors waits"]
    assert said(watch) == ["a.safetensors: passed, 4 layers", *waiting]
    then = time.time() - 100
    os.utime(half, (then, then))
    (told,) = [outcome for outcome in score_arrivals(watch) if not outcome.waiting]
    assert "no sound safetensors file" in told.unreadable
    assert describe_watched(told).startswith("b.safetensors: skipped, it cannot be read: ")
    assert said(watch) == ["c.safetensors waits"]
    runs = {checkpoint.name: checkpoint for checkpoint in read_watched(watch.watch)}
    assert not runs["b.safetensors"].scored
    half.write_bytes(whole)  # it was written to its end after all
    os.utime(half, (then + 1, then + 1))
    assert said(watch)[0] == "b.safetensors: passed, 4 layers < a.safetensors"


def test_one_that_changes_while_it_is_read_is_left(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wwopt.gate import watching

    path = put(folder, "a", model())
    judge = watching._judge

    def judge_and_touch(*arguments: object) -> object:
        found = judge(*arguments)  # type: ignore[arg-type]
        os.utime(path, (5000, 5000))
        return found

    monkeypatch.setattr(watching, "_judge", judge_and_touch)
    watch = watcher(uri, folder)
    assert said(watch) == ["a.safetensors waits"]
    monkeypatch.undo()
    assert said(watch) == ["a.safetensors: passed, 4 layers"]


def test_a_last_one_that_is_gone_is_compared_by_its_numbers(uri: str, folder: Path) -> None:
    watch = watcher(uri, folder)
    put(folder, "last", model(), age=900)
    assert len(said(watch)) == 1
    put(folder, "last", edited(lambda w: w * 4.0, "fc2"), age=800)  # written over
    (found,) = score_arrivals(watch)
    assert found.by_numbers and found.result and found.result.broken == {"fc2": "scaled by 4"}
    put(folder, "last", edited(lambda w: w * 4.0, "fc1"), age=700)
    (found,) = score_arrivals(watcher(uri, folder))  # another process has the table alone
    assert found.by_numbers and found.result and list(found.result.broken) == ["fc1"]
    assert "against last.safetensors, whose weights are gone" in describe_watched(found)


def test_drift_is_told_by_the_history(uri: str, folder: Path) -> None:
    for week in range(8):
        put(folder, f"w{week}", edited(lambda w, s=0.02 + 0.001 * (week * week % 11): pushed(w, s)),
            age=900 - week)  # fmt: skip
    assert len(said(watcher(uri, folder))) == 8
    state = edited(lambda w: pushed(w, 0.025))
    put(folder, "w8", state | {"fc2.weight": 1.15 * state["fc2.weight"]}, age=100)
    (found,) = score_arrivals(watcher(uri, folder))
    assert found.result and found.result.passed and not found.passed and found.past == 7
    assert {drift.layer for drift in found.drifts} == {"fc2"}
    assert "  fc2 drifted: " in describe_watched(found)
    assert not read_watched(watcher(uri, folder).watch)[-1].passed


def test_a_watcher_that_dies_before_the_chart_leaves_it_to_the_next(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wwopt.gate import watching

    put(folder, "a", model(), age=900)

    class DiedError(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise DiedError

    with monkeypatch.context() as patched:
        patched.setattr(watching, "chart", die)
        with pytest.raises(DiedError):
            said(watcher(uri, folder))
    watch = watcher(uri, folder)
    assert len(read_watched(watch.watch)) == 1 and not watches.read_charted(watch.watch)
    assert said(watch) == []
    assert watches.read_charted(watch.watch) == {0}


def test_waiting_ends_when_the_youngest_is_old_enough(folder: Path, uri: str) -> None:
    put(folder, "a", model(), age=0.0)
    outcomes = list(score_arrivals(watcher(uri, folder)))
    quiet = outcomes[0].arrival.age + 0.2
    assert wait_for_quiet(outcomes, quiet) and outcomes[0].arrival.age >= quiet
    assert not wait_for_quiet(outcomes, quiet)


@pytest.mark.slow
def test_a_watcher_that_is_killed_again_and_again_scores_each_once() -> None:
    """The small form of the benchmark, whose exit status is its verdict."""
    command = [sys.executable, str(ROOT / "benchmarks" / "kill_watch.py")]
    done = subprocess.run(
        [*command, "--checkpoints", "15", "--kills", "3"],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout
    assert "  not dealt with: 0\n" in done.stdout
