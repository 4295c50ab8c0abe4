"""The one point where training meets the spectra: `record(trial)` and its `Recorder.step(model)`.

wwopt is pushed to, it does not pull: the training loop stays its owner's. `record` opens a trial's
run in MLflow, hands out its recorder, and ends the run however the block was left. What a step does
is in `wwopt.study.recorder`.
"""

import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import get_args

import optuna

from wwopt.metrics.guards import Guards
from wwopt.metrics.objective import SpectralObjective
from wwopt.study.conditions import Conditions
from wwopt.study.guides import settled_score
from wwopt.study.history import History
from wwopt.study.identity import study_uuid
from wwopt.study.kept_networks import Judged
from wwopt.study.outcomes import hyperparameters_of
from wwopt.study.recorder import Recorder, has_one_objective
from wwopt.study.score_version import keep_score
from wwopt.study.textbook import TEXTBOOK_ATTR
from wwopt.tracking import (
    StudyRun,
    TrackingError,
    TrialRun,
    finish_study,
    hide_passwords,
    mirror_best,
    open_study,
    open_trial,
)
from wwopt.wording import first_line

_GUARDS = Guards()


@contextmanager
def record(
    trial: optuna.trial.BaseTrial,
    *,
    epochs: int | None = None,
    objective: SpectralObjective | None = None,
    tracking: str | StudyRun | None = None,
    conditions: Conditions | None = None,
    every: int | None = None,
    max_weights: int | None = None,
    guards: Guards | None = _GUARDS,
    judge: Judged = "last",
) -> Iterator[Recorder]:
    """Record one trial, as in `with wwopt.record(trial, epochs=20) as recorder:`.

    Args:
        trial: Optuna's; values suggested through a `LayerSpace` are logged from it.
        epochs: how many steps there will be; by default those of the conditions.
        objective: None to let the first trial's first step decide (see `wwopt.study.guides`).
        tracking: MLflow's tracking URI, or a study's parent run; None for no MLflow.
        conditions: of this training; their seed is that of the shuffles.
        every: analyse at every so many steps; None for ½, ¾ and the end.
        max_weights: bytes up to which the weights of a complete trial are logged, 0 for never;
            None for what the parent run says, which is 100 MB unless it was opened otherwise.
        guards: limits that become the trial's constraints when it ends; None for no constraints.
        judge: "last" for the network of the last step; "best" for the best by the score among those
            that are analysed from half-way on. A copy of it is kept, and put back into the model
            when the block is left.

    Raises:
        KeyboardInterrupt: if training was interrupted, also where a framework made a SystemExit of
            that, as Lightning does: Optuna would leave the trial running for ever.
        ScoreError: if the study holds values of another objective, or of another version of it.
        TrackingError: if MLflow cannot be reached.
    """
    length = epochs if epochs is not None or conditions is None else conditions.epochs
    if length is not None and length < 1:
        raise ValueError(f"epochs must be at least 1, got {length}")
    if every is not None and every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    if judge not in get_args(Judged):
        raise ValueError(f"judge must be 'last' or 'best', got {judge!r}")
    owner = getattr(trial, "study", None)
    if objective is None:
        objective = settled_score(trial)
    elif owner is not None:
        objective = keep_score(owner, objective, alone=has_one_objective(trial))
    study = _study_run(trial, tracking) if isinstance(tracking, str) else tracking
    seed = 0 if conditions is None else conditions.seed
    run = None
    if study is not None:
        run = open_trial(
            study,
            number=trial.number,
            hyperparameters=hyperparameters_of(trial),
            suggested=trial.params,
            seed=seed,
        )
        trial.set_user_attr("mlflow_run_id", run.run_id)
        if trial.user_attrs.get(TEXTBOOK_ATTR):
            run.tag({TEXTBOOK_ATTR: "true"})
    recorder = Recorder(
        trial=trial,
        objective=objective,
        run=run,
        epochs=length,
        every=every,
        seed=seed,
        max_weights=_choose_limit(study, max_weights),
        guards=guards,
        history=_history(conditions),
        judge=judge,
    )
    try:
        yield recorder
        recorder.finish()
    except optuna.TrialPruned:
        _close(run, "KILLED", state="PRUNED")
        raise
    except BaseException as error:
        message = hide_passwords(first_line(error, named=True, longest=1000))
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # ended from outside
            trial.set_user_attr("error", message)
        _close(run, "FAILED", state="FAIL", error=message)
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    else:
        _close(run, "FINISHED", state="COMPLETE")
        # Scores of different sizes do not compare (wwopt.tuning.strata).
        one_size = not {"width", "depth"} & trial.params.keys()
        comparable = one_size and has_one_objective(trial) and recorder.is_feasible
        if study is not None and run is not None and comparable:
            mirror_best(study, number=trial.number, best=run, value=recorder.value)
    finally:
        if study is not None and isinstance(tracking, str):
            finish_study(study)


def _close(run: TrialRun | None, status: str, *, state: str, error: str | None = None) -> None:
    if run is None:
        return
    try:
        if error is not None:
            run.tag({"wwopt.error": error})
            run.log_text(hide_passwords(traceback.format_exc()), "error.txt")
        run.close(status, state=state)
    except Exception as failure:
        if error is None:
            raise TrackingError(
                f"the run of this trial could not be closed: {failure}"
            ) from failure
        # The training's own error matters more than MLflow's, and is on its way up.


def _study_run(trial: optuna.trial.BaseTrial, uri: str) -> StudyRun:
    study = getattr(trial, "study", None)
    if study is None:
        return open_study(uri, name="wwopt", study=str(uuid.uuid4()))
    return open_study(uri, name=study.study_name, study=study_uuid(study))


def _history(conditions: Conditions | None) -> History | None:
    folder = None if conditions is None else conditions.checkpoint_dir
    return None if folder is None else History(Path(folder))


def _choose_limit(study: StudyRun | None, max_weights: int | None) -> int:
    if max_weights is not None or study is None:
        return max_weights or 0
    return study.max_weights
