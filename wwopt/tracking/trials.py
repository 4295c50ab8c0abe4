"""A trial's child run: opened once, found again, ended where its process could not."""

from collections.abc import Mapping
from typing import Any

from wwopt.tracking.keys import (
    KIND_TAG,
    PARENT_TAG,
    SEED_TAG,
    STATE_TAG,
    STUDY_TAG,
    SUGGESTED,
    TRIAL_TAG,
)
from wwopt.tracking.runs import StudyRun, TrialRun, context_tags, log_params
from wwopt.tracking.store import connect, explained


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
        run = client.create_run(
            study.experiment_id, run_name=f"trial {number}", tags=context_tags() | tags
        )
        others = {k: v for k, v in (suggested or {}).items() if k not in hyperparameters}
        knots = {f"{SUGGESTED}/{key}": value for key, value in others.items()}
        log_params(study.uri, run.info.run_id, {**hyperparameters, **knots})
        return TrialRun(study.uri, run.info.run_id)


def close_orphan(study: StudyRun, *, number: int) -> None:
    """End the run of a trial whose process died before it could."""
    with explained(study.uri):
        client = connect(study.uri)
        query = f"tags.`{STUDY_TAG}` = '{study.study}' and tags.`{TRIAL_TAG}` = '{number}'"
        for run in client.search_runs([study.experiment_id], query, max_results=1):
            if run.info.status == "RUNNING":
                trial = TrialRun(study.uri, run.info.run_id)
                trial.tag({"wwopt.orphan": "true"})
                trial.close("FAILED", state="FAIL")
