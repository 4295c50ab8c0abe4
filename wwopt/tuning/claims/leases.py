"""Which trials still run: a lease that each worker renews in the storage, and what it looks like.

A worker writes a number into the trial that it runs, another one every 20 s. Whoever has seen the
same number at six looks in a row, as far apart, takes the trial for lost. Nobody compares clocks,
and a look that finds no storage does not count: an outage ends no trial, however long, since after
it the number moves before five more looks have passed. All of it are plain user attributes, so that
it works over every storage of Optuna, its gRPC proxy included, whose own heartbeat ends at the
first error and does not pass the proxy.

On one machine nobody waits. A worker locks a file of its own for as long as it lives, and the
kernel unlocks it however the process ends; the lease names the file.

A trial that was handed out (`wwopt ask`) is no process of ours: its lease says until when, by the
clock of whoever handed it out, and each `wwopt tell --step` moves that on.
"""

import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

fcntl: Any
try:
    import fcntl
except ImportError:  # on Windows the dead are told by their lease alone
    fcntl = None

LEASE_ATTR = "wwopt.lease"  # user attribute of a trial that runs
BEAT = float(
    os.environ.get("WWOPT_BEAT_SECONDS", "20")
)  # between two renewals; the same everywhere
LOOKS = 6  # of one number, so that five renewals were missed: 100 s

_held: set[str] = set()  # files that this process has locked; it could lock them again


@dataclass(frozen=True)
class Worker:
    """Who runs trials: one process, or one thread of it."""

    owner: str  # the command that started it, which leaves the study's report if it is the last
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=socket.gethostname)
    lock: str | None = None  # the file that it holds locked; None where files cannot be

    def lease(self, beat: int) -> dict[str, Any]:
        """What stands in a trial that it runs."""
        return {**vars(self), "pid": os.getpid(), "beat": beat}


@contextmanager
def join(owner: str) -> Iterator[Worker]:
    """Be a worker: inside the block its file is locked."""
    if fcntl is None:
        yield Worker(owner)
        return
    name = uuid.uuid4().hex
    path = Path(tempfile.gettempdir()) / f"wwopt-{name}.lock"
    with path.open("w") as file:
        # A record lock: unlike flock's, a forked child of DataLoader does not go on holding it.
        fcntl.lockf(file, fcntl.LOCK_EX)
        _held.add(str(path))
        try:
            yield Worker(owner, name, lock=str(path))
        finally:
            path.unlink(missing_ok=True)
            _held.discard(str(path))


def hand_out(worker: Worker, *, seconds: float, beat: int = 0) -> dict[str, Any]:
    """The lease of a trial that is trained elsewhere, for so many seconds from now."""
    until = {"until": time.time() + seconds, "seconds": seconds}
    return {**worker.lease(beat), "lock": None, **until}


def ends_at(lease: dict[str, Any] | None) -> float | None:
    """When a lease ends that was handed out, in seconds since 1970; None of a process's own."""
    until: float | None = None if lease is None else lease.get("until")
    return until


def is_dead(lease: dict[str, Any] | None) -> bool:
    """Whether a lease is known to be over: its time, or the process here that held it."""
    until = ends_at(lease)
    if until is not None:
        return time.time() > until
    path = None if lease is None else lease.get("lock")
    if fcntl is None or lease is None or path is None or path in _held:
        return False
    if lease.get("host") != socket.gethostname():
        return False
    try:
        with open(path, "r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held; or not there, as in another container of the same name
        return False
    return True


def forget(lease: dict[str, Any]) -> None:
    """Remove what a dead process left on this machine."""
    if lease.get("lock") is not None:
        with suppress(OSError):
            Path(lease["lock"]).unlink()


def lease_of(trial: FrozenTrial) -> dict[str, Any] | None:
    """The lease of a trial; None of one that was not begun by a worker."""
    lease: dict[str, Any] | None = trial.user_attrs.get(LEASE_ATTR)
    return lease


def is_running(trial: FrozenTrial) -> bool:
    """Whether a worker runs the trial; one without a lease is plain Optuna's, or long dead."""
    return trial.state == TrialState.RUNNING and lease_of(trial) is not None


class Keeper:
    """Renews the lease of one worker's trial, and looks at those of the others, in a thread."""

    def __init__(
        self,
        study: optuna.Study,
        worker: Worker,
        *,
        on_lost: Callable[[FrozenTrial], None],
        beat: float = BEAT,
    ) -> None:
        """Begin without a trial.

        Args:
            study: whose trials are kept.
            worker: who holds the leases.
            on_lost: called, in the thread, with each trial that nobody runs any more.
            beat: seconds between two renewals, and two looks.
        """
        self._study, self._worker, self._beat = study, worker, beat
        self._on_lost = on_lost
        self._trial_id: int | None = None
        self._number = 0  # of the next renewal
        self._seen: dict[int, tuple[object, int]] = {}  # trial → what stood in it, looks
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="wwopt-leases")

    def __enter__(self) -> "Keeper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @contextmanager
    def hold(self, trial_id: int) -> Iterator[None]:
        """Renew the lease of this trial inside the block."""
        self.renew(trial_id)
        self._trial_id = trial_id
        try:
            yield
        finally:
            self._trial_id = None

    def renew(self, trial_id: int) -> bool:
        """Write the next number; False where somebody has ended the trial."""
        self._number += 1
        lease = self._worker.lease(self._number)
        try:
            self._study._storage.set_trial_user_attr(trial_id, LEASE_ATTR, lease)
        except UpdateFinishedTrialError:
            return False
        return True

    def look(self) -> None:
        """Look once at all trials that run, and tell of those that are lost."""
        running = self._study._storage.get_all_trials(
            self._study._study_id, deepcopy=False, states=(TrialState.RUNNING,)
        )
        self._seen = {t._trial_id: self._count(t) for t in running}
        for trial in running:
            if trial._trial_id == self._trial_id:
                continue
            lease = lease_of(trial)
            still = ends_at(lease) is None and self._seen[trial._trial_id][1] >= LOOKS
            if still or is_dead(lease):
                self._on_lost(trial)

    def _count(self, trial: FrozenTrial) -> tuple[object, int]:
        found = lease_of(trial)
        before, looks = self._seen.get(trial._trial_id, (found, 0))
        return found, looks + 1 if before == found else 1

    def _keep(self) -> None:
        while not self._done.wait(self._beat):
            # Whatever the storage raises: a thread that died of it would look like a dead worker.
            with suppress(Exception):
                if self._trial_id is not None:
                    self.renew(self._trial_id)
                self.look()
        self._study._storage.remove_session()
