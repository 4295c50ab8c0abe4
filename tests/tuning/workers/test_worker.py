"""A worker runs what there is to run, waits for the others, and leaves nothing running.

About `interruptions` too: what ends a trial in both stores.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import nn

import wwopt
from wwopt.study.errors import StudyError
from wwopt.study.spec import derive_seed
from wwopt.study.tries import INTERRUPTED_ATTR, place_of
from wwopt.tracking import StudyRun, open_study, open_trial, read_study
from wwopt.tuning.claims.leases import LEASE_ATTR, Worker
from wwopt.tuning.claims.places import claim, list_finished, queue_place, raise_target
from wwopt.tuning.workers.interruptions import close_runs, end_dead, interrupt, release
from wwopt.tuning.workers.stopping import Stop
from wwopt.tuning.workers.worker import (
    DEADLINE_ATTR,
    PARENT,
    OnlyFailuresError,
    fill_gaps,
    is_complete,
    is_orphan,
    is_over,
    work,
)


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 10))


def spec_of(train: Any = None, **options: Any) -> wwopt.StudySpec:
    def plain(hp: Any, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder) -> None:
        recorder.step(make(), train_loss=1.0)

    space = wwopt.LayerSpace.from_model(make(), lr=(0.1, 1.0), dropout=None, momentum=None)
    options.setdefault("sampler", lambda seed: optuna.samplers.RandomSampler(seed))
    conditions = wwopt.Conditions(seed=0, epochs=1)
    return wwopt.StudySpec("mine", train or plain, space, conditions=conditions, **options)


def begin(trials: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="mine")
    raise_target(study, trials)
    return study


def run(spec: wwopt.StudySpec, study: optuna.Study, **options: Any) -> int:
    given: dict[str, Any] = {"worker": Worker("me"), "run": None, "seed": 0, "stop": Stop()}
    return work(spec, study, **(given | options))


def test_a_worker_runs_until_the_study_is_complete(tmp_path: Path) -> None:
    seen: list[str] = []

    def train(hp: Any, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder) -> None:
        assert conditions.checkpoint_dir is not None
        seen.append(conditions.checkpoint_dir)
        (Path(conditions.checkpoint_dir) / "state").touch()
        recorder.step(make(), train_loss=1.0)

    study = begin(3)
    assert run(spec_of(train), study, checkpoints=tmp_path / "a" / "b") == 3
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 3
    assert [Path(folder).name for folder in seen] == ["trial-0", "trial-1", "trial-2"]
    assert list(tmp_path.iterdir()) == []  # what is finished needs no checkpoint
    assert run(spec_of(train), study) == 0 and is_complete(study, 3)


def test_an_interrupted_study_ends_with_the_values_of_one_that_was_not() -> None:
    whole, parts = begin(4), begin(4)
    run(spec_of(), whole)
    once: list[int] = []

    def train(hp: Any, conditions: wwopt.Conditions, recorder: wwopt.Recorder) -> None:
        if place_of(recorder.trial) == 2 and not once:
            once.append(conditions.seed)
            raise KeyboardInterrupt
        recorder.step(make(), train_loss=1.0)

    with pytest.raises(KeyboardInterrupt):
        run(spec_of(train), parts)
    (stopped,) = [t for t in parts.trials if INTERRUPTED_ATTR in t.user_attrs]
    assert stopped.user_attrs[INTERRUPTED_ATTR] == "stopped" and stopped.state == TrialState.FAIL
    assert not [t for t in parts.trials if t.state == TrialState.RUNNING]
    run(spec_of(train), parts, seed=9)  # another seed: those of places that were begun stay
    assert [(t.params, t.values) for t in list_finished(parts)[:3]] == [
        (t.params, t.values) for t in list_finished(whole)[:3]
    ]
    assert len(list_finished(parts)) == 4 and once == [derive_seed(0, 2)]


@pytest.mark.parametrize("error", [SystemExit(1), ValueError("made of it in C++")])
def test_what_a_signal_was_made_into_is_an_interruption(error: BaseException) -> None:
    stop = Stop()

    def train(hp: Any, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder) -> None:
        stop.signal = 15
        raise error

    study = begin(2)
    with pytest.raises(KeyboardInterrupt):
        run(spec_of(train), study, stop=stop)
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING", "WAITING"]


def test_a_training_that_swallows_the_signal_keeps_its_result() -> None:
    stop = Stop()

    def train(hp: Any, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder) -> None:
        recorder.step(make(), train_loss=1.0)
        stop.signal = 15

    study = begin(2)
    with pytest.raises(KeyboardInterrupt):
        run(spec_of(train), study, stop=stop)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "WAITING"]


def test_a_training_that_exits_by_itself_fails_alone() -> None:
    def train(hp: Any, conditions: wwopt.Conditions, recorder: wwopt.Recorder) -> None:
        if recorder.trial.number == 1:
            raise SystemExit(3)
        recorder.step(make(), train_loss=1.0)

    study = begin(3)
    run(spec_of(train), study)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[1].user_attrs["error"] == "SystemExit: 3"


def test_a_study_that_only_fails_is_given_up_by_whoever_runs_it() -> None:
    def train(hp: Any, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder) -> None:
        raise OSError("no data")

    study = begin(9)
    with pytest.raises(OnlyFailuresError, match="the first 3 trials failed, the last with OSError"):
        run(spec_of(train), study)
    assert len(list_finished(study)) == 3 and issubclass(OnlyFailuresError, StudyError)


def test_a_worker_waits_for_the_others_and_does_what_they_leave() -> None:
    study = begin(2)
    queue_place(study, 0)
    other = Worker("them")
    theirs = claim(study, other, target=2)
    assert theirs is not None
    waits = threading.Event()

    def look() -> None:
        if len(list_finished(study)) == 1 and not waits.is_set():
            waits.set()
            release(study, worker=other, run=None)  # the other one is stopped

    assert run(spec_of(), study, on_look=look) == 2
    assert waits.is_set() and [place_of(t) for t in list_finished(study)] == [0, 1]


def test_the_dead_of_this_machine_are_ended_at_once(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()  # nobody holds it
    study = begin(1)
    queue_place(study, 0)
    assert claim(study, Worker("dead", lock=str(lock)), target=1) is not None
    assert end_dead(study, worker=Worker("me"), run=None) == 1
    assert not lock.exists()
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]
    assert study.trials[0].user_attrs[INTERRUPTED_ATTR] == "lost"


def test_a_place_that_nobody_queued_is_queued_when_nobody_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = begin(3)
    queue_place(study, 0)
    trial = claim(study, Worker("a"), target=1)  # and the target is raised while it runs
    assert trial is not None
    watched = fill_gaps(study, 3, {})
    assert list(watched) == [1] and len(study.trials) == 1
    monkeypatch.setattr("wwopt.tuning.workers.worker.REPAIR", -1.0)
    assert fill_gaps(study, 3, watched) == {}
    assert [place_of(t) for t in study.trials] == [0, 1]


def test_hours_end_a_study_in_time() -> None:
    study = begin(5)
    queue_place(study, 0)
    assert not is_over(study)
    study.set_user_attr(DEADLINE_ATTR, time.time() + 3600.0)
    assert not is_over(study)
    study.set_user_attr(DEADLINE_ATTR, time.time() - 1.0)
    assert is_over(study) and run(spec_of(), study) == 0


def test_a_worker_whose_parent_has_ended_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT, str(os.getppid()))
    assert not is_orphan()
    monkeypatch.setenv(PARENT, "1" if os.getppid() != 1 else "2")
    assert is_orphan() and run(spec_of(), begin(1)) == 0


@pytest.fixture
def tracked(tmp_path: Path) -> StudyRun:
    return open_study(f"sqlite:///{tmp_path / 'mlflow.db'}", name="mine", study="u")


def test_an_interrupted_trial_leaves_no_run_open_or_good(tracked: StudyRun) -> None:
    study = begin(2)
    queue_place(study, 0)
    first, second = (claim(study, Worker("a"), target=2) for _ in range(2))
    assert first is not None and second is not None
    for trial in (first, second):
        open_trial(tracked, number=trial.number, hyperparameters={})
    # One died after it had closed its run as good, and before it told Optuna.
    open_trial(tracked, number=first.number, hyperparameters={}).close("FINISHED", state="COMPLETE")
    for trial in (first, second):
        interrupt(study, trial, "lost", worker=Worker("b"), run=tracked)
    runs = read_study(tracked.uri, "mine").trials
    assert [(run.state, run.tags["wwopt.interrupted"]) for run in runs] == [("FAIL", "lost")] * 2


def test_runs_of_trials_that_have_ended_are_closed_as_they_ended(tracked: StudyRun) -> None:
    study = begin(2)
    for state in (TrialState.PRUNED, TrialState.RUNNING):
        trial = study.ask()
        open_trial(tracked, number=trial.number, hyperparameters={})
        if state == TrialState.PRUNED:
            study.tell(trial, state=state)
    assert close_runs(study, tracked) == 1
    runs = read_study(tracked.uri, "mine").trials
    assert [run.state for run in runs] == ["PRUNED", "RUNNING"]
    assert runs[0].tags["wwopt.orphan"] == "true"


def test_a_result_that_comes_after_its_trial_was_given_away_does_not_count() -> None:
    study = begin(1)

    def train(hp: Any, conditions: wwopt.Conditions, recorder: wwopt.Recorder) -> None:
        recorder.step(make(), train_loss=1.0)
        if recorder.trial.number == 0:  # another worker takes this one for dead
            (trial,) = [t for t in study.trials if t.state == TrialState.RUNNING]
            interrupt(study, trial, "lost", worker=Worker("them"), run=None)

    torch.manual_seed(0)
    assert run(spec_of(train), study) == 2
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"]
    assert [t.number for t in list_finished(study)] == [1]
    assert all(LEASE_ATTR in t.user_attrs for t in study.trials)
