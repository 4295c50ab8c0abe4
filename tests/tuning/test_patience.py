"""A call waits through an outage, for a while, and through nothing else."""

from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError, PendingRollbackError

from wwopt.tuning.patience import FIRST_PAUSE, is_outage, list_pauses, make_patient


def outage(said: str = "the server closed the connection") -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = OperationalError("select 1", {}, Exception(said))
    return error


class Unsteady(optuna.storages.InMemoryStorage):
    """A storage that is away for some calls, before or after it does what it is asked for."""

    def __init__(self, *, errors: list[Exception], after: bool = False) -> None:
        super().__init__()
        self.errors, self.after = errors, after

    def set_trial_state_values(self, *arguments: Any, **options: Any) -> bool:
        if self.errors and not self.after:
            raise self.errors.pop()
        done = super().set_trial_state_values(*arguments, **options)
        if self.errors:
            raise self.errors.pop()
        return done


@pytest.mark.parametrize("after", [False, True])
def test_a_call_is_repeated_and_what_had_arrived_is_not_done_twice(after: bool) -> None:
    study = optuna.create_study(storage=make_patient(Unsteady(errors=[outage()], after=after)))
    study.tell(study.ask(), 0.5)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE]


def test_a_trial_that_another_one_ended_is_no_answer_that_was_lost() -> None:
    inner = Unsteady(errors=[])
    storage = make_patient(inner)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    study.tell(trial, state=TrialState.FAIL)
    inner.errors = [outage()]
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])


def test_patience_has_an_end() -> None:
    inner = Unsteady(errors=[outage() for _ in range(9)])
    study = optuna.create_study(storage=make_patient(inner, seconds=2 * FIRST_PAUSE))
    with pytest.raises(StorageInternalError):
        study.tell(study.ask(), 0.5)
    assert len(inner.errors) == 6  # asked three times


def test_pauses_grow_and_add_up() -> None:
    pauses = list(list_pauses(300.0))
    assert pauses[:3] == [0.25, 0.5, 1.0] and max(pauses) == 10.0
    assert 300.0 <= sum(pauses) < 310.0


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (outage(), True),
        (ConnectionRefusedError(), True),
        (PendingRollbackError("Can't reconnect until invalid transaction is rolled back"), True),
        (outage("database or disk is full"), False),
        (outage("attempt to write a readonly database"), False),
        (outage('password authentication failed for user "me"'), False),
        (ValueError("a bug"), False),
        (StorageInternalError("too long"), False),
    ],
)
def test_only_what_may_pass_is_waited_for(error: Exception, passes: bool) -> None:
    assert is_outage(error) is passes
