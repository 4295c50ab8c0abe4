"""End a trial that was interrupted, in Optuna and in MLflow, and queue another try of it."""

from contextlib import suppress

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from wwopt.study.tries import (
    INTERRUPTED_ATTR,
    MOST_LOSSES,
    Interruption,
    is_replaced,
    losses_of,
    place_of,
)
from wwopt.tracking import StudyRun, TrackingError, close_interrupted, close_left_open
from wwopt.tuning.claims.leases import Worker, ends_at, forget, is_dead, lease_of
from wwopt.tuning.claims.places import list_filled, queue_place

ENDED_BY_ATTR = "wwopt.ended_by"  # user attribute of a lost trial: the command that ended it


def interrupt(
    study: optuna.Study,
    trial: FrozenTrial,
    how: Interruption,
    *,
    worker: Worker,
    run: StudyRun | None,
) -> bool:
    """End a running trial as interrupted, and queue another try unless it was lost too often.

    Args:
        study: Optuna's.
        trial: as it was seen.
        how: it was interrupted.
        worker: who ends it.
        run: the study's in MLflow.

    Returns:
        Whether it was this worker that ended it; several may try.
    """
    storage, trial_id = study._storage, trial._trial_id
    try:
        storage.set_trial_user_attr(trial_id, ENDED_BY_ATTR, worker.owner)
        storage.set_trial_user_attr(trial_id, INTERRUPTED_ATTR, how)
        if how == "lost":
            times = losses_of(trial) + 1
            after = "" if times < MOST_LOSSES else f", {times} times in all"
            ran_out = ends_at(lease_of(trial)) is not None
            what = "its lease ran out" if ran_out else "its process ended"
            storage.set_trial_user_attr(trial_id, "error", f"{what}{after}")
        if not storage.set_trial_state_values(trial_id, state=TrialState.FAIL):
            return False
    except UpdateFinishedTrialError:
        return False
    ended = storage.get_trial(trial_id)
    if is_replaced(ended):
        trials = study.get_trials(deepcopy=False)
        if place_of(ended) not in list_filled(trials):
            queue_place(study, place_of(ended))
    lease = lease_of(trial)
    if how == "lost" and lease is not None and is_dead(lease):
        forget(lease)
    if run is not None:
        with suppress(TrackingError):  # whoever leaves the study looks again
            close_interrupted(run, number=trial.number, how=how)
    return True


def end_dead(study: optuna.Study, *, worker: Worker, run: StudyRun | None) -> int:
    """End the trials whose leases are known to be over, but for the worker's own; how many."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    dead = [
        trial
        for trial in running
        if (lease := lease_of(trial)) is not None
        and is_dead(lease)
        and lease["name"] != worker.name
    ]
    return sum(interrupt(study, trial, "lost", worker=worker, run=run) for trial in dead)


def release(study: optuna.Study, *, worker: Worker, run: StudyRun | None) -> None:
    """End what this worker has begun and will not finish."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lease = lease_of(trial)
        if lease is not None and lease["name"] == worker.name:
            interrupt(study, trial, "stopped", worker=worker, run=run)


def close_runs(study: optuna.Study, run: StudyRun) -> int:
    """Close the MLflow runs of trials that have ended and whose process did not live to; how many.

    Raises:
        TrackingError: if MLflow cannot be used.
    """
    trials = study.get_trials(deepcopy=False)
    ended = {t.number: t.state.name for t in trials if t.state.is_finished()}
    return close_left_open(run, ended)
