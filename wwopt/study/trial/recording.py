"""The one point where training meets the spectra: `record(trial)` and its `Recorder.step(model)`.

wwopt is pushed to, it does not pull: the training loop stays its owner's. `record` opens a trial's
run in MLflow, hands out its recorder, and ends the run however the block was left. What a step does
is in `wwopt.study.trial.recorder`.
"""

import dataclasses
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args

import optuna
from torch import nn

from wwopt.metrics.guards import Guards
from wwopt.metrics.objective import SpectralObjective
from wwopt.study.conditions import Conditions
from wwopt.study.guides import settled_score
from wwopt.study.identity import study_uuid
from wwopt.study.score_version import keep_score
from wwopt.study.textbook import TEXTBOOK_ATTR
from wwopt.study.trial.history import History
from wwopt.study.trial.kept_networks import Judged
from wwopt.study.trial.observing import describe_observed
from wwopt.study.trial.outcomes import hyperparameters_of
from wwopt.study.trial.recorder import Recorder, has_one_objective
from wwopt.tracking import (
    StudyRun,
    TrackingError,
    TrialRun,
    finish_study,
    hide_passwords,
    mirror_best,
    open_study,
    open_training,
    open_trial,
)
from wwopt.tracking.keys import OBSERVED_TAG
from wwopt.wording import first_line

_GUARDS = Guards()
UNLOGGED_ATTR = "wwopt.unlogged"  # user attribute of a trial: what its run in MLflow lacks


@contextmanager
def record(
    trial: optuna.trial.BaseTrial | None,
    *,
    observe: bool = False,
    epochs: int | None = None,
    objective: SpectralObjective | None = None,
    tracking: str | StudyRun | None = None,
    conditions: Conditions | None = None,
    every: int | None = None,
    max_weights: int | None = None,
    guards: Guards | None = _GUARDS,
    judge: Judged = "last",
    name: str = "trainings",
    params: Mapping[str, Any] | None = None,
) -> Iterator[Recorder]:
    """Record one trial, as in `with wwopt.record(trial, epochs=20) as recorder:`.

    Args:
        trial: Optuna's; values suggested through a `LayerSpace` are logged from it. None for one
            training outside any study, which is observed.
        observe: leave the study alone, which has an objective of its own: report nothing, prune
            nothing, set no constraint, and raise nothing; see docs/observe.md.
        epochs: how many steps there will be; by default those of the conditions.
        objective: None to let the first trial's first step decide (see `wwopt.study.guides`).
        tracking: MLflow's tracking URI, or a study's parent run; None for no MLflow.
        conditions: of this training; their seed is that of the shuffles.
        every: analyse at every so many steps; None for ½, ¾ and the end.
        max_weights: bytes up to which the weights of a complete trial are logged, 0 for never;
            None for what the parent run says, which is 100 MB unless it was opened otherwise.
        guards: limits that become the trial's constraints when it ends, and alarms of one that is
            observed; None for none.
        name: of the experiment in MLflow, where there is no trial.
        params: hyperparameters to log, where there is no trial.
        judge: "last" for the network of the last step; "best" for the best by the score among those
            that are analysed from half-way on. A copy of it is kept, and put back into the model
            when the block is left. Of a trial that is observed the last one is shown.

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
    observe = observe or trial is None
    if judge not in get_args(Judged):
        raise ValueError(f"judge must be 'last' or 'best', got {judge!r}")
    owner = getattr(trial, "study", None)
    if trial is None or observe:
        pass  # whatever the study holds, its values are not ours
    elif objective is None:
        objective = settled_score(trial)
    elif owner is not None:
        objective = keep_score(owner, objective, alone=has_one_objective(trial))
    study = (
        _study_run(trial, tracking, name=name, observe=observe)
        if isinstance(tracking, str)
        else tracking
    )
    seed = 0 if conditions is None else conditions.seed
    run = open_run(study, trial, seed=seed, observe=observe, params=params or {})
    if run is not None:
        run = dataclasses.replace(run, unlogged=[])  # a server that goes away costs no training
    recorder = Recorder(
        trial=trial,
        objective=objective,
        run=run,
        observe=observe,
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
    except optuna.TrialPruned as error:
        recorder.stop_watching("pruned", str(error) or "pruned by its study")
        close_run(run, "KILLED", state="PRUNED")
        raise
    except BaseException as error:
        message = hide_passwords(first_line(error, named=True, longest=1000))
        recorder.stop_watching("failed", message)
        if trial is not None and not observe:
            with suppress(optuna.exceptions.UpdateFinishedTrialError):  # ended from outside
                trial.set_user_attr("error", message)
        close_run(run, "FAILED", state="FAIL", error=message)
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    else:
        close_run(run, "FINISHED", state="COMPLETE", calm=observe)
        if trial is not None and not observe:
            mirror_if_best(study, trial, recorder)
    finally:
        if run is not None and run.unlogged:
            lacking = list(dict.fromkeys(run.unlogged))
            run.tag({UNLOGGED_ATTR: ", ".join(lacking)})  # it may be back
            if trial is not None and not observe:
                with suppress(optuna.exceptions.UpdateFinishedTrialError):
                    trial.set_user_attr(UNLOGGED_ATTR, lacking)
        if study is not None and isinstance(tracking, str):
            with suppress(*((TrackingError,) if observe else ())):
                finish_study(study)


def reopen(
    trial: optuna.Trial,
    run: TrialRun,
    *,
    objective: SpectralObjective | None,
    conditions: Conditions,
    guards: Guards | None,
    told: int,
) -> Recorder:
    """A recorder of a trial that other processes have begun to record; who asks for it ends it.

    Args:
        trial: Optuna's, running.
        run: its own in MLflow, open.
        objective: that the study names; None to let the first trial's first step decide.
        conditions: of this training, with the checkpoint folder that they kept its steps in.
        guards: limits that become its constraints.
        told: the last step that was recorded; -1 before any.
    """
    score = settled_score(trial) if objective is None else keep_score(trial.study, objective)
    reports = trial.study._storage.get_trial(trial._trial_id).intermediate_values
    return Recorder(
        trial=trial,
        objective=score,
        run=run,
        epochs=conditions.epochs,
        every=1,  # each look at it was asked for
        seed=conditions.seed,
        guards=guards,
        history=_history(conditions),
        told=told,
        reported=max(reports, default=-1),
    )


def mirror_if_best(
    study: StudyRun | None, trial: optuna.trial.BaseTrial, recorder: Recorder
) -> None:
    """Show a complete trial on the study's run, if it is the best so far and may be."""
    if study is None or recorder.run is None:
        return
    # Scores of different sizes do not compare (wwopt.tuning.samplers.strata).
    one_size = not {"width", "depth"} & trial.params.keys()
    if one_size and has_one_objective(trial) and recorder.is_feasible:
        run, number, value = recorder.run, trial.number, recorder.value
        run.attempt(
            "the study's best",
            lambda: mirror_best(study, number=number, best=run, value=value),
        )


def observe(
    trial: optuna.trial.BaseTrial,
    model: nn.Module,
    value: float,
    *,
    train_loss: float | None = None,
    tracking: str | StudyRun | None = None,
) -> float:
    """Show wwopt the network of a trial whose study has an objective of its own; its last line.

    As in `return wwopt.observe(trial, model, accuracy, tracking="sqlite:///mlflow.db")`. What it
    does not see, the steps before, `record(trial, observe=True)` does.

    Args:
        trial: Optuna's, of a study with one objective.
        model: as it was trained.
        value: that the objective returns.
        train_loss: the last one, which the better one of the two scores reads.
        tracking: MLflow's tracking URI, or a study's parent run; None for no MLflow.

    Returns:
        The value, as it was given.
    """
    with record(trial, observe=True, epochs=1, tracking=tracking) as recorder:
        recorder.step(model, train_loss=train_loss)
        recorder.keep_value(value)
    return value


def open_run(
    study: StudyRun | None,
    trial: optuna.trial.BaseTrial | None,
    *,
    seed: int,
    observe: bool,
    params: Mapping[str, Any],
) -> TrialRun | None:
    """Open a trial's run in MLflow; None where there is no MLflow."""
    if study is None:
        return None
    if trial is None:
        return open_training(study, hyperparameters=params, seed=seed)
    run = open_trial(
        study,
        number=trial.number,
        hyperparameters=hyperparameters_of(trial),
        suggested=trial.params,
        seed=seed,
    )
    if not observe:
        trial.set_user_attr("mlflow_run_id", run.run_id)
    if trial.user_attrs.get(TEXTBOOK_ATTR):
        run.tag({TEXTBOOK_ATTR: "true"})
    return run


def close_run(
    run: TrialRun | None,
    status: str,
    *,
    state: str,
    error: str | None = None,
    calm: bool = False,
) -> None:
    """End a run; a failure to is raised, unless there is a worse one or the caller is calm."""
    if run is None:
        return
    try:
        if error is not None:
            run.tag({"wwopt.error": error})
            run.log_text(hide_passwords(traceback.format_exc()), "error.txt")
        run.close(status, state=state)
    except Exception as failure:
        if error is None and not calm:
            raise TrackingError(
                f"the run of this trial could not be closed: {failure}"
            ) from failure
        # The training's own error matters more than MLflow's, and is on its way up.


def _study_run(
    trial: optuna.trial.BaseTrial | None, uri: str, *, name: str, observe: bool
) -> StudyRun:
    study = getattr(trial, "study", None)
    settings = describe_observed(study) if observe else None
    if study is not None:
        identity, name = study_uuid(study), study.study_name
    elif trial is not None:
        identity, name = str(uuid.uuid4()), "wwopt"
    else:  # all trainings of one name lie together
        identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"wwopt:{name}"))
    run = open_study(uri, name=name, study=identity, settings=settings)
    if observe:
        TrialRun(uri, run.run_id).tag({OBSERVED_TAG: "true"})
    return run


def _history(conditions: Conditions | None) -> History | None:
    folder = None if conditions is None else conditions.checkpoint_dir
    return None if folder is None else History(Path(folder))


def _choose_limit(study: StudyRun | None, max_weights: int | None) -> int:
    if max_weights is not None or study is None:
        return max_weights or 0
    return study.max_weights
