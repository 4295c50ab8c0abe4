"""Every place of a study is filled once, whoever claims, dies or queues it twice."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from wwopt.study.textbook import TEXTBOOK_ATTR
from wwopt.study.tries import INTERRUPTED_ATTR, LOSSES_ATTR, PLACE_ATTR, SEED_ATTR, place_of
from wwopt.tuning.claims.leases import Worker
from wwopt.tuning.claims.places import (
    TARGET_ATTR,
    claim,
    find_gaps,
    list_filled,
    list_finished,
    median_seconds,
    queue_place,
    raise_target,
)
from wwopt.tuning.storage import open_storage
from wwopt.tuning.workers.interruptions import interrupt

ME = Worker("me")


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def queued(study: optuna.Study) -> optuna.Study:
    queue_place(study, 0)
    return study


def end(study: optuna.Study, trial: FrozenTrial, state: TrialState = TrialState.COMPLETE) -> None:
    study.tell(trial.number, 0.5 if state == TrialState.COMPLETE else None, state)


def states(study: optuna.Study) -> list[tuple[int, str]]:
    return [(place_of(t), t.state.name) for t in study.trials]


def test_whoever_claims_a_place_queues_the_next_one_up_to_the_target() -> None:
    study = queued(optuna.create_study())
    for place in range(3):
        claimed = claim(study, ME, target=3)
        assert claimed is not None and place_of(claimed) == place == claimed.number
        assert claimed.state == TrialState.RUNNING
    assert states(study) == [(place, "RUNNING") for place in range(3)]
    assert claim(study, ME, target=3) is None
    assert find_gaps(study.trials, 3) == []
    assert find_gaps(study.trials, 5) == [3]  # the target was raised


def test_a_lost_trial_is_tried_again_with_what_it_had_and_nothing_that_it_left() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.25, "y": 0.5}, user_attrs={TEXTBOOK_ATTR: True, "note": "mine"})
    claimed = claim(study, ME, target=2)
    assert claimed is not None
    trial = optuna.Trial(study, claimed._trial_id)
    assert trial.suggest_float("x", 0.0, 1.0) == 0.25
    trial.set_constraint("guards/traps", 1.0)
    for name, value in {
        SEED_ATTR: 7,
        "mlflow_run_id": "old",
        "constraints": {"traps": 1.0},
    }.items():
        trial.set_user_attr(name, value)
    assert interrupt(study, claimed, "lost", worker=ME, run=None)
    assert not interrupt(study, claimed, "lost", worker=ME, run=None)  # once
    again = claim(study, ME, target=2)
    assert again is not None and place_of(again) == 0 and again.number == 2
    assert again.constraints == {} and "mlflow_run_id" not in again.user_attrs
    kept = {k: again.user_attrs[k] for k in (TEXTBOOK_ATTR, "note", SEED_ATTR, LOSSES_ATTR)}
    assert kept == {TEXTBOOK_ATTR: True, "note": "mine", SEED_ATTR: 7, LOSSES_ATTR: 1}
    resumed = optuna.Trial(study, again._trial_id)
    assert (resumed.suggest_float("x", 0.0, 1.0), resumed.suggest_float("y", 0.0, 1.0)) == (
        0.25,
        0.5,
    )
    end(study, again)
    assert [t.number for t in list_finished(study)] == [2]


def test_values_that_were_drawn_in_part_are_drawn_again() -> None:
    study = queued(optuna.create_study())
    for complete in (False, True):
        claimed = claim(study, ME, target=1)
        assert claimed is not None and claimed.params == {}
        trial = optuna.Trial(study, claimed._trial_id)
        trial.suggest_float("x", 0.0, 1.0)
        if complete:
            trial.set_user_attr("hyperparameters", {"x": 0.5})
        interrupt(study, claimed, "stopped", worker=ME, run=None)
    assert set(study.trials[-1].params) == {"x"}


def test_a_place_is_lost_three_times_and_then_counts_as_failed() -> None:
    study = queued(optuna.create_study())
    for _ in range(3):
        claimed = claim(study, ME, target=1)
        assert claimed is not None
        interrupt(study, claimed, "lost", worker=ME, run=None)
    assert claim(study, ME, target=1) is None
    (failed,) = list_finished(study)
    assert failed.number == 2 and failed.user_attrs["error"] == (
        "its process ended, 3 times in all"
    )


def test_a_stopped_trial_is_tried_again_however_often() -> None:
    study = queued(optuna.create_study())
    for number in range(6):
        claimed = claim(study, ME, target=1)
        assert claimed is not None and claimed.number == number
        interrupt(study, claimed, "stopped", worker=ME, run=None)
    assert [t.user_attrs[INTERRUPTED_ATTR] for t in study.trials[:-1]] == ["stopped"] * 6


def test_a_place_that_was_queued_twice_is_filled_once() -> None:
    study = queued(queued(optuna.create_study()))
    assert [place_of(t) for t in study.trials] == [0, 0] or study.trials[1].params == {}
    first = claim(study, ME, target=1)
    assert first is not None and first.number == 0
    assert claim(study, ME, target=1) is None
    end(study, first)
    assert claim(study, ME, target=1) is None
    assert states(study) == [(0, "COMPLETE"), (0, "WAITING")]


def test_trials_without_a_place_have_that_of_their_number() -> None:
    """Of plain Optuna, and of wwopt before it counted places."""
    study = optuna.create_study()
    study.add_trials([optuna.trial.create_trial(value=1.0), optuna.trial.create_trial(value=2.0)])
    assert sorted(list_filled(study.trials)) == [0, 1]
    assert find_gaps(study.trials, 4) == [2]
    queue_place(study, 2)
    assert study.trials[2].user_attrs == {PLACE_ATTR: 2}


def test_a_trial_that_no_worker_runs_fills_no_place() -> None:
    """Left running by wwopt before there were leases; nobody waits for it."""
    study = optuna.create_study()
    study.ask()
    assert list_filled(study.trials) == {} and find_gaps(study.trials, 2) == [0, 1]


def test_the_target_is_raised_and_never_lowered() -> None:
    study = optuna.create_study()
    assert raise_target(study, None) == 0
    assert [raise_target(study, n) for n in (5, 3, None, 8)] == [5, 5, 5, 8]
    assert study.user_attrs[TARGET_ATTR] == 8


def test_what_a_trial_takes_is_known_from_the_complete_ones() -> None:
    study = queued(optuna.create_study())
    assert median_seconds(study.trials) != median_seconds(study.trials)  # NaN
    claimed = claim(study, ME, target=1)
    assert claimed is not None
    end(study, claimed)
    assert median_seconds(study.trials) >= 0.0


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_eight_workers_at_once_claim_every_place_once(kind: str, tmp_path: Path) -> None:
    url = f"{kind}:///{tmp_path / 'optuna'}"
    optuna.create_study(study_name="shared", storage=open_storage(url))
    target = 24

    def take(_index: int) -> list[int]:
        study = optuna.load_study(study_name="shared", storage=open_storage(url))
        mine = []
        while len(list_finished(study)) < target:
            claimed = claim(study, Worker("owner"), target=target)
            if claimed is not None:
                end(study, claimed)
                mine.append(claimed.number)
        return mine

    study = optuna.load_study(study_name="shared", storage=open_storage(url))
    queue_place(study, 0)
    with ThreadPoolExecutor(8) as threads:
        taken = [number for mine in threads.map(take, range(8)) for number in mine]
    assert sorted(taken) == list(range(target))
    assert states(study) == [(place, "COMPLETE") for place in range(target)]
