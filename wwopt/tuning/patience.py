"""A storage that waits for its database: what a worker asks during an outage is asked again.

A database that is restarted, or a network that is gone for a while, must not cost a trial that has
trained for hours. Every call of Optuna's storage is repeated while the database cannot be reached,
for at most five minutes; any other error is raised at once.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError

PATIENCE = 300.0  # seconds; a failover of a managed PostgreSQL takes one or two minutes
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0  # seconds; doubled in between


def make_patient(storage: BaseStorage, *, seconds: float = PATIENCE) -> BaseStorage:
    """The same storage, each of whose calls waits through an outage.

    Args:
        storage: Optuna's.
        seconds: that a call waits at most; then it raises what the last attempt raised.
    """
    if not isinstance(storage, optuna.storages.RDBStorage):
        return cast(BaseStorage, _Patient(storage, seconds))
    cached = optuna.storages.get_storage(storage)  # as Optuna itself has it
    patient = _Patient(cached, seconds)
    patient.engine = storage.engine  # for whoever closes its connections
    return cast(BaseStorage, patient)


def is_outage(error: BaseException) -> bool:
    """Whether the database could not be reached, so that asking again may help."""
    if isinstance(error, StorageInternalError):
        return error.__cause__ is not None and is_outage(error.__cause__)
    if isinstance(error, PendingRollbackError):
        return True  # the connection was lost in the middle of a transaction, which is over
    if isinstance(error, DBAPIError):
        # A full disk and a read-only mount are operational errors too, and do not pass.
        said = str(error.orig)
        lasting = ("disk is full", "readonly", "no such table", "unable to open", "authentication")
        away = isinstance(error, OperationalError) or error.connection_invalidated
        return away and not any(words in said for words in lasting)
    code = getattr(error, "code", None)  # of gRPC, which may not be installed
    return isinstance(error, ConnectionError) or (
        callable(code) and getattr(code(), "name", "") == "UNAVAILABLE"
    )


def list_pauses(seconds: float) -> Iterator[float]:
    """Seconds to wait between attempts, each twice the one before, until they add up."""
    pause, waited = FIRST_PAUSE, 0.0
    while waited < seconds:
        yield pause
        waited += pause
        pause = min(2.0 * pause, LONGEST_PAUSE)


def _ask(call: Callable[..., Any], seconds: float, *arguments: Any, **options: Any) -> Any:
    pauses = list_pauses(seconds)
    repeated = False
    while True:
        try:
            return call(*arguments, **options)
        except UpdateFinishedTrialError:
            # The attempt before may have arrived, and only its answer was lost.
            if repeated and call.__name__ == "set_trial_state_values":
                trial: FrozenTrial = call.__self__.get_trial(arguments[0])  # type: ignore[attr-defined]
                if trial.state == options.get("state", arguments[1:2] and arguments[1]):
                    return True
            raise
        except Exception as error:
            pause = next(pauses, None) if is_outage(error) else None
            if pause is None:
                raise
        repeated = True
        time.sleep(pause)


def _method(name: str) -> Callable[..., Any]:
    def patiently(self: Any, *arguments: Any, **options: Any) -> Any:
        return _ask(getattr(self.inner, name), self.seconds, *arguments, **options)

    patiently.__name__ = name
    return patiently


def _begin(self: Any, storage: BaseStorage, seconds: float) -> None:
    self.inner, self.seconds = storage, seconds


# One method for each of Optuna's interface, whatever its version has.
_NAMES = [
    name
    for name in dir(BaseStorage)
    if not name.startswith("_") and callable(getattr(BaseStorage, name))
]
_Patient: Any = type(
    "PatientStorage",
    (BaseStorage,),
    {"__init__": _begin, **{name: _method(name) for name in _NAMES}},
)
