"""A trial's child run: opened once, found again, ended where its process could not."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wwopt.tracking.keys import (
    CODE_TAG,
    INTERRUPTED_TAG,
    KIND_TAG,
    ORPHAN_TAG,
    PARENT_TAG,
    SEED_TAG,
    STATE_TAG,
    STUDY_TAG,
    SUGGESTED,
    TRIAL_TAG,
)
from wwopt.tracking.runs import StudyRun, TrialRun, log_params, open_run
from wwopt.tracking.store import connect, explained

if TYPE_CHECKING:
    from mlflow.entities import Run

STATUSES = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}  # Optuna's → MLflow's


def open_trial(
    study: StudyRun,
    *,
    number: int,
    hyperparameters: Mapping[str, Any],
    suggested: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> TrialRun:
    """Find or create the child run of a trial, with its hyperparameters as parameters.

    Args:
        study: the parent.
        number: Optuna's trial number.
        hyperparameters: each layer's own, as {"lr/fc1": .1}.
        suggested: what Optuna suggested; what is not among the hyperparameters (knots of a tied
            space, a batch size) is logged in the group `tuned`.
        seed: of the shuffles; the same gives the same traps when weights are analysed again.

    Raises:
        TrackingError: if the store does not accept the run.
    """
    with explained(study.uri):
        client = connect(study.uri)
        query = f"tags.`{STUDY_TAG}` = '{study.study}' and tags.`{TRIAL_TAG}` = '{number}'"
        runs = client.search_runs([study.experiment_id], query, max_results=1)
        if runs:
            return TrialRun(study.uri, runs[0].info.run_id)
        tags = {
            PARENT_TAG: study.run_id,
            STUDY_TAG: study.study,
            TRIAL_TAG: str(number),
            STATE_TAG: "RUNNING",
            KIND_TAG: "trial",
        }
        if seed is not None:
            tags[SEED_TAG] = str(seed)
        if study.code is not None:
            tags[CODE_TAG] = study.code
        run = open_run(study.uri, study.experiment_id, f"trial {number}", tags)
        others = {k: v for k, v in (suggested or {}).items() if k not in hyperparameters}
        knots = {f"{SUGGESTED}/{key}": value for key, value in others.items()}
        log_params(study.uri, run.run_id, {**hyperparameters, **knots})
        return run


def open_training(
    study: StudyRun, *, hyperparameters: Mapping[str, Any], seed: int | None = None
) -> TrialRun:
    """Create the child run of a training that is no trial of a study; each call makes another.

    Raises:
        TrackingError: if the store does not accept the run.
    """
    tags = {PARENT_TAG: study.run_id, STUDY_TAG: study.study, STATE_TAG: "RUNNING"}
    tags |= {KIND_TAG: "trial"} | ({} if seed is None else {SEED_TAG: str(seed)})
    with explained(study.uri):
        run = open_run(study.uri, study.experiment_id, "training", tags)
        log_params(study.uri, run.run_id, hyperparameters)
    return run


def close_orphan(study: StudyRun, *, number: int) -> None:
    """End the run of a trial whose process died before it could."""
    with explained(study.uri):
        for run in _find_runs(study, f"tags.`{TRIAL_TAG}` = '{number}'"):
            if run.info.status == "RUNNING":
                _close(study, run, {ORPHAN_TAG: "true"}, state="FAIL")


def close_interrupted(study: StudyRun, *, number: int, how: str) -> None:
    """End the run of a trial that is tried again, also where it had been closed as a good one.

    A process may die after it closed the run and before it told Optuna: its result then does not
    count, and must not stand here beside that of the next try.

    Args:
        study: the parent.
        number: Optuna's trial number.
        how: it was interrupted, "stopped" or "lost".
    """
    tags = {INTERRUPTED_TAG: how} | ({ORPHAN_TAG: "true"} if how == "lost" else {})
    with explained(study.uri):
        for run in _find_runs(study, f"tags.`{TRIAL_TAG}` = '{number}'"):
            _close(study, run, tags, state="FAIL")


def close_left_open(study: StudyRun, ended: Mapping[int, str]) -> int:
    """End the runs that are open although their trials have ended; returns how many.

    Args:
        study: the parent.
        ended: number of each trial that has ended in Optuna → its state there.
    """
    closed = 0
    with explained(study.uri):
        for run in _find_runs(study, "attributes.status = 'RUNNING'"):
            state = ended.get(int(run.data.tags.get(TRIAL_TAG, -1)))
            if state is not None:
                _close(study, run, {ORPHAN_TAG: "true"}, state=state)
                closed += 1
    return closed


def _find_runs(study: StudyRun, condition: str) -> list["Run"]:
    client = connect(study.uri)
    query = f"tags.`{STUDY_TAG}` = '{study.study}' and tags.`{KIND_TAG}` = 'trial' and {condition}"
    return list(client.search_runs([study.experiment_id], query))


def _close(study: StudyRun, run: "Run", tags: Mapping[str, str], *, state: str) -> None:
    trial = TrialRun(study.uri, run.info.run_id)
    trial.tag(tags)
    trial.close(STATUSES[state], state=state)
