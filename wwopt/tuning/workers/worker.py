"""What a worker does: claim a trial, run it, claim the next, until the study has all of them.

There is one kind, whoever starts it: `wwopt tune`, its `--jobs`, `wwopt worker` on another machine,
a task on a Dask cluster. Workers know of each other by the storage alone. One that finds nothing to
claim waits while others still run, since one of those may die.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import TrialState

from wwopt.study.errors import StudyError
from wwopt.study.spec import StudySpec
from wwopt.tracking import StudyRun, reopen_study
from wwopt.tuning.claims.leases import Keeper, Worker, is_running
from wwopt.tuning.claims.places import (
    claim,
    find_gaps,
    list_filled,
    list_finished,
    median_seconds,
    queue_place,
    raise_target,
)
from wwopt.tuning.workers.interruptions import end_dead, interrupt, release
from wwopt.tuning.workers.stopping import Stop
from wwopt.tuning.workers.trial_runs import run_trial

DEADLINE_ATTR = "wwopt.deadline"  # user attribute of the study: seconds since 1970
PARENT = "WWOPT_PARENT"  # environment variable: the process without which a worker stops
GIVE_UP_AFTER = 3  # failures at the start of a study, without any trial that did not fail
SHORTEST, LONGEST = 0.05, 2.0  # seconds between two looks of a worker that waits, doubled each time
REPAIR = 3.0  # seconds; whoever has claimed a trial queues the next one within milliseconds


class OnlyFailuresError(StudyError):
    """All trials of a study fail."""


def work(
    spec: StudySpec,
    study: optuna.Study,
    *,
    worker: Worker,
    run: StudyRun | None,
    seed: int,
    stop: Stop,
    trials: int | None = None,
    checkpoints: Path | None = None,
    on_look: Callable[[], None] = lambda: None,
) -> int:
    """Run trials until the study has all of them; returns how many were run here.

    Args:
        spec: the study.
        study: Optuna's.
        worker: who runs them.
        run: the study's parent run in MLflow.
        seed: of the study.
        stop: whether a signal asked to stop.
        trials: that the study shall have; None for what is kept with it.
        checkpoints: folder of the trials' checkpoints.
        on_look: called after each trial, and now and then while waiting.

    Raises:
        KeyboardInterrupt: if a signal asked to stop; no trial of this worker is left running.
        OnlyFailuresError: if the study's first trials all failed.
    """
    done = 0
    pause = SHORTEST
    gaps: dict[int, float] = {}  # place → when it was first seen empty
    with Keeper(study, worker, on_lost=lambda t: interrupt_lost(study, t, worker, run)) as keeper:
        try:
            while not is_orphan():
                target = raise_target(study, trials)
                if is_over(study):
                    break
                gaps = fill_gaps(study, target, gaps)
                claimed = claim(study, worker, target=target)
                if claimed is not None:
                    if done == 0 and run is not None:  # nobody can have left the study since
                        reopen_study(run)
                    run_trial(
                        spec,
                        study,
                        claimed,
                        worker=worker,
                        tracking=run,
                        seed=seed,
                        checkpoints=checkpoints,
                        keeper=keeper,
                        stop=stop,
                    )
                    done += 1
                    pause = SHORTEST
                    on_look()
                    check_failures(study)
                    if stop.requested:  # the training has swallowed it
                        raise KeyboardInterrupt
                    continue
                if is_complete(study, target):
                    break
                end_dead(study, worker=worker, run=run)
                on_look()
                time.sleep(pause)
                pause = min(2.0 * pause, LONGEST)
        finally:
            release(study, worker=worker, run=run)
    return done


def interrupt_lost(
    study: optuna.Study, trial: optuna.trial.FrozenTrial, worker: Worker, run: StudyRun | None
) -> None:
    """End a trial that nobody runs any more."""
    interrupt(study, trial, "lost", worker=worker, run=run)


def is_complete(study: optuna.Study, target: int) -> bool:
    """Whether every place is filled by a finished trial."""
    filled = list_filled(study.get_trials(deepcopy=False))
    return all(p in filled and filled[p].state.is_finished() for p in range(target))


def is_over(study: optuna.Study) -> bool:
    """Whether another trial would not end before the study's deadline, by what they take."""
    deadline = study.user_attrs.get(DEADLINE_ATTR)
    if deadline is None:
        return False
    takes = median_seconds(study.get_trials(deepcopy=False))
    return time.time() + (0.0 if math.isnan(takes) else takes) > float(deadline)


def is_orphan() -> bool:
    """Whether the process that started this worker has ended, if it said that this matters."""
    parent = os.environ.get(PARENT)
    return parent is not None and int(parent) != os.getppid()


def fill_gaps(study: optuna.Study, target: int, seen: dict[int, float]) -> dict[int, float]:
    """Queue places whose worker died before it did; returns those that are watched on."""
    trials = study.get_trials(deepcopy=False)
    now = time.monotonic()
    found = {place: seen.get(place, now) for place in find_gaps(trials, target)}
    alone = not any(is_running(t) for t in trials)
    for place, since in list(found.items()):
        if alone or now - since > REPAIR:
            queue_place(study, place)
            del found[place]
            break  # the next one is queued by whoever claims this one
    return found


def check_failures(study: optuna.Study) -> None:
    """Give up a study none of whose first trials went well.

    Raises:
        OnlyFailuresError: that names the reason of the last one.
    """
    finished = list_finished(study)
    failed = [trial for trial in finished if trial.state == TrialState.FAIL]
    if len(failed) >= GIVE_UP_AFTER and len(failed) == len(finished):
        last = max(failed, key=lambda trial: trial.number)
        reason = last.user_attrs.get("error", "no reason was left")
        raise OnlyFailuresError(
            f"the first {len(failed)} trials failed, the last with {reason}; mend the study and "
            f"run it again"
        )
