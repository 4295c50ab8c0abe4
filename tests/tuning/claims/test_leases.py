"""Who still runs is told by what moves, and on one machine by who lives."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial

from wwopt.tuning.claims.leases import (
    LEASE_ATTR,
    LOOKS,
    Keeper,
    Worker,
    forget,
    hand_out,
    is_dead,
    join,
    lease_of,
)
from wwopt.tuning.claims.places import claim, queue_place

CHILD = """
import sys
from wwopt.tuning.claims.leases import join
with join("owner") as worker:
    print(worker.lock, worker.host, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def child() -> Iterator["subprocess.Popen[str]"]:
    """A worker in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def running(study: optuna.Study, worker: Worker) -> FrozenTrial:
    queue_place(study, len(study.trials))
    claimed = claim(study, worker, target=len(study.trials))
    assert claimed is not None
    return claimed


def test_a_worker_that_was_killed_is_dead_at_once_and_one_that_lives_is_not(
    child: "subprocess.Popen[str]",
) -> None:
    assert child.stdout is not None
    lock, host = child.stdout.readline().split()
    lease = {"lock": lock, "host": host}
    assert not is_dead(lease)
    assert not is_dead({**lease, "host": "elsewhere"})
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert is_dead(lease)
    assert not is_dead({**lease, "host": "elsewhere"})  # of that nothing is known here
    forget(lease)
    assert not Path(lock).exists() and not is_dead(lease)


def test_a_worker_of_this_process_is_alive_and_leaves_no_file() -> None:
    with join("owner") as worker:
        assert worker.lock is not None and not is_dead(worker.lease(1))
    assert not Path(worker.lock).exists()
    assert not is_dead(None) and not is_dead(Worker("owner").lease(0))


def test_a_trial_whose_lease_does_not_move_is_lost_after_as_many_looks() -> None:
    study = optuna.create_study()
    still, moving = running(study, Worker("a")), running(study, Worker("b"))
    lost: list[int] = []
    keeper = Keeper(study, Worker("me"), on_lost=lambda trial: lost.append(trial.number))
    holder = Keeper(study, Worker("b"), on_lost=lambda trial: None)
    for _ in range(LOOKS - 1):
        holder.renew(moving._trial_id)
        keeper.look()
    assert lost == []
    holder.renew(moving._trial_id)
    keeper.look()
    assert lost == [still.number]


def test_a_trial_without_a_lease_is_looked_at_as_the_others() -> None:
    study = optuna.create_study()
    study.ask()
    lost: list[int] = []
    keeper = Keeper(study, Worker("me"), on_lost=lambda trial: lost.append(trial.number))
    for _ in range(LOOKS):
        keeper.look()
    assert lost == [0]


def test_the_lease_is_renewed_through_an_outage_of_the_storage() -> None:
    study = optuna.create_study()
    worker = Worker("me")
    trial = running(study, worker)
    beats: list[int] = []
    enough = threading.Event()
    real = study._storage.set_trial_user_attr

    def fail_twice(trial_id: int, key: str, value: dict[str, int]) -> None:
        beats.append(value["beat"])
        if len(beats) in (2, 3):
            raise ConnectionError("the server is away")
        real(trial_id, key, value)
        if len(beats) >= 5:
            enough.set()

    study._storage.set_trial_user_attr = fail_twice  # type: ignore[method-assign, assignment]
    with (
        Keeper(study, worker, on_lost=lambda trial: None, beat=0.01) as keeper,
        keeper.hold(trial._trial_id),
    ):
        assert enough.wait(60)
    assert beats[:5] == [1, 2, 3, 4, 5]
    lease = lease_of(study.trials[0])
    assert lease is not None and lease["beat"] >= 5 and lease["name"] == worker.name


def test_a_worker_learns_that_its_trial_was_ended() -> None:
    study = optuna.create_study()
    trial = running(study, Worker("me"))
    keeper = Keeper(study, Worker("me"), on_lost=lambda trial: None)
    assert keeper.renew(trial._trial_id)
    study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    assert not keeper.renew(trial._trial_id)
    assert study.trials[0].user_attrs[LEASE_ATTR]["beat"] == 1


def test_a_trial_that_was_handed_out_is_lost_when_its_time_is_over_and_not_before() -> None:
    study = optuna.create_study()
    trials = [running(study, Worker(name)) for name in "ab"]
    for trial, seconds in zip(trials, (3600.0, -1.0), strict=True):
        lease = hand_out(Worker("a"), seconds=seconds)
        study._storage.set_trial_user_attr(trial._trial_id, LEASE_ATTR, lease)
        assert is_dead(lease) == (seconds < 0.0)
        forget(lease)  # there is no file
    lost: list[int] = []
    keeper = Keeper(study, Worker("me"), on_lost=lambda trial: lost.append(trial.number))
    for _ in range(LOOKS):
        keeper.look()
    assert set(lost) == {trials[1].number}
