"""Which places of a study are filled, and how a worker claims the next one.

Whoever has claimed a place queues the next one, as a waiting trial of Optuna's. Claiming is
Optuna's own change from WAITING to RUNNING, which one worker wins over whatever storage; so each
place is queued by one worker and filled by one. Where two queue the same place all the same (one of
them was taken for dead), the trial of lower number counts and the other one waits for ever: no
place is filled twice, and the count is exact.
"""

import math
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from wwopt.study.textbook import TEXTBOOK_ATTR
from wwopt.study.tries import (
    LOSSES_ATTR,
    PLACE_ATTR,
    SEED_ATTR,
    is_replaced,
    losses_of,
    place_of,
)
from wwopt.tuning.claims.leases import LEASE_ATTR, Worker, is_running

TARGET_ATTR = "wwopt.trials"  # user attribute of the study: how many places it has
GIVEN_ATTR = "wwopt.given"  # of a trial: names of the attributes that it was queued with
FIXED = "fixed_params"  # Optuna's system attribute of an enqueued trial


def list_filled(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Place → the trial that fills it, or is to; trials whose place another one takes are left out.

    Args:
        trials: all of the study, in the order of their numbers.
    """
    filled: dict[int, FrozenTrial] = {}
    for trial in trials:
        abandoned = trial.state == TrialState.RUNNING and not is_running(trial)
        if not is_replaced(trial) and not abandoned:
            filled.setdefault(place_of(trial), trial)
    return filled


def list_finished(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials that count, in the order of their places."""
    filled = list_filled(study.get_trials(deepcopy=False))
    return [trial for _, trial in sorted(filled.items()) if trial.state.is_finished()]


def find_gaps(trials: Sequence[FrozenTrial], target: int) -> list[int]:
    """Places that no trial fills or waits for: whoever was to queue them has died before it did.

    The first place that was never queued is one of them only where none waits at all.
    """
    filled = list_filled(trials)
    begun = 1 + max(map(place_of, trials), default=-1)
    waits = any(t.state == TrialState.WAITING and p < target for p, t in filled.items())
    end = min(begun if waits else begun + 1, target)
    return [place for place in range(end) if place not in filled]


def queue_place(study: optuna.Study, place: int) -> None:
    """Queue a trial for a place: another try of the one that was interrupted there, if any."""
    tries = [t for t in study.get_trials(deepcopy=False) if place_of(t) == place]
    before = max(tries, key=lambda t: t.number, default=None)
    attributes: dict[str, Any] = {PLACE_ATTR: place}
    if before is None:
        study.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs=attributes))
        return
    # What a try left behind (its run in MLflow, constraints, results) is not the next one's.
    kept = [SEED_ATTR, TEXTBOOK_ATTR, GIVEN_ATTR, *before.user_attrs.get(GIVEN_ATTR, [])]
    attributes |= {name: before.user_attrs[name] for name in kept if name in before.user_attrs}
    attributes[LOSSES_ATTR] = losses_of(before)
    # With a part of its values it had not begun to train, and the same seed draws all of them.
    suggested = "hyperparameters" in before.user_attrs
    fixed = {k: v for k, v in before.system_attrs.items() if k == FIXED}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=before.params if suggested else {},
            distributions=before.distributions if suggested else {},
            user_attrs=attributes,
            system_attrs=fixed,
        )
    )


def claim(study: optuna.Study, worker: Worker, *, target: int) -> FrozenTrial | None:
    """Claim the lowest place that waits, and queue the next one; None where none waits.

    Args:
        study: in its storage.
        worker: who runs the trial.
        target: places that the study has.
    """
    trials = study.get_trials(deepcopy=False)
    filled = list_filled(trials)
    waiting = [
        (place, trial)
        for place, trial in sorted(filled.items())
        if trial.state == TrialState.WAITING and place < target
    ]
    for place, trial in waiting:
        if not _win(study, trial, worker):
            continue
        if place + 1 < target and not any(place_of(t) > place for t in trials):
            queue_place(study, place + 1)
        return study._storage.get_trial(trial._trial_id)
    return None


def _win(study: optuna.Study, trial: FrozenTrial, worker: Worker) -> bool:
    storage, trial_id = study._storage, trial._trial_id
    ours = {PLACE_ATTR, SEED_ATTR, LOSSES_ATTR, TEXTBOOK_ATTR, GIVEN_ATTR, LEASE_ATTR}
    given = sorted(set(trial.user_attrs) - ours)
    try:
        if given and GIVEN_ATTR not in trial.user_attrs:
            storage.set_trial_user_attr(trial_id, GIVEN_ATTR, given)
        # Before the claim: whoever dies right after it is known by it.
        storage.set_trial_user_attr(trial_id, LEASE_ATTR, worker.lease(0))
        return storage.set_trial_state_values(trial_id, state=TrialState.RUNNING)
    except UpdateFinishedTrialError:
        return False


def raise_target(study: optuna.Study, trials: int | None) -> int:
    """Keep how many trials the study shall have; a lower number than before changes nothing.

    Returns:
        What it shall have; 0 where nobody has said it yet.
    """
    kept: int = study.user_attrs.get(TARGET_ATTR, 0)
    if trials is not None and trials > kept:
        study.set_user_attr(TARGET_ATTR, trials)
        return trials
    return kept


def median_seconds(trials: Sequence[FrozenTrial]) -> float:
    """What a complete trial took, in the middle; NaN where there is none."""
    took = sorted(
        t.duration.total_seconds()
        for t in trials
        if t.state == TrialState.COMPLETE and t.duration is not None
    )
    return took[len(took) // 2] if took else math.nan
