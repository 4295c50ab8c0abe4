"""Run one trial that a worker has claimed, and leave how it ended in Optuna."""

import dataclasses
import errno
import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from wwopt.metrics.objective import Preset, SpectralObjective
from wwopt.study.constraints import is_feasible
from wwopt.study.errors import StudyError
from wwopt.study.space.layer_space import LayerSpace
from wwopt.study.spec import ELSEWHERE, StudySpec, derive_seed, train_elsewhere
from wwopt.study.tries import SEED_ATTR, Interruption, LostProcess, place_of
from wwopt.tracking import AwayError, StudyRun, close_interrupted, hide_passwords
from wwopt.tuning.claims.leases import Keeper, Worker
from wwopt.tuning.samplers.study_samplers import (
    make_study_pruner,
    make_study_sampler,
    sampler_kind_of,
    show_in_order,
)
from wwopt.tuning.workers.interruptions import interrupt
from wwopt.tuning.workers.stopping import Stop
from wwopt.wording import first_line


@dataclass(frozen=True)
class FinishedTrial:
    """What is told of a trial when it ends."""

    number: int
    state: str  # COMPLETE, PRUNED or FAIL
    value: float | None
    error: str | None
    feasible: bool = True  # no guard is violated


def describe_finished(trial: FrozenTrial) -> FinishedTrial:
    """What is told of a finished trial."""
    value = trial.values[0] if trial.values else None
    error = trial.user_attrs.get("error")
    feasible = is_feasible(trial)
    return FinishedTrial(trial.number, trial.state.name, value, error, feasible=feasible)


def name_objective(spec: StudySpec, preset: Preset | None) -> StudySpec:
    """The study under the score of that preset; None for what it names itself.

    Raises:
        StudyError: if there is no such preset.
    """
    if preset is None:
        return spec
    try:
        return dataclasses.replace(spec, objective=SpectralObjective(preset))
    except ValueError as error:
        raise StudyError(str(error)) from error


def run_trial(
    spec: StudySpec,
    study: optuna.Study,
    claimed: FrozenTrial,
    *,
    worker: Worker,
    tracking: StudyRun | None,
    seed: int,
    checkpoints: Path | None = None,
    keeper: Keeper | None = None,
    stop: Stop | None = None,
) -> None:
    """Run a trial; whatever it raises, short of an interruption, only fails the trial.

    The sampler is made anew from (seed, place): a resumed study draws what it would have drawn
    without the interruption, and no two workers draw the same.

    Args:
        spec: the study.
        study: Optuna's.
        claimed: the trial, RUNNING.
        worker: who claimed it.
        tracking: the study's parent run.
        seed: of the study.
        checkpoints: folder in which each place has one; None for none.
        keeper: renews the trial's lease while it runs.
        stop: tells an interruption from a failure.

    Raises:
        KeyboardInterrupt: if it was interrupted; the trial will be tried again.
        StudyError: if nothing can be written any more; likewise.
    """
    stop = stop or Stop()
    place = place_of(claimed)
    with keeper.hold(claimed._trial_id) if keeper is not None else nullcontext():
        try:
            trial, space = prepare(spec, study, claimed, seed=seed)
            objective = spec.optuna_objective(
                tracking=tracking, seed=seed, space=space, checkpoints=checkpoints
            )
            state, values = _train(trial, objective, stop)
            if not tell_optuna(study, trial, state, values) and tracking is not None:
                close_interrupted(tracking, number=trial.number, how="lost")
        except AwayError as error:  # before it trained; the next trial would begin no better
            interrupt(study, claimed, "stopped", worker=worker, run=None)
            raise StudyError(f"{error}; the same command resumes") from error
        except BaseException as error:
            if is_full(error):  # the next trial would end no better
                with suppress(Exception):  # Optuna's database may lie on the same disk
                    interrupt(study, claimed, "stopped", worker=worker, run=tracking)
                raise StudyError(
                    f"nothing can be written any more ({hide_passwords(first_line(error))}): make "
                    f"room, and the same command resumes"
                ) from error
            if not stop.caused(error):
                raise
            how: Interruption = "lost" if is_lost(error) else "stopped"
            interrupt(study, claimed, how, worker=worker, run=tracking)
            raise KeyboardInterrupt from error
    if checkpoints is not None:  # what is finished needs none
        shutil.rmtree(checkpoints / f"trial-{place}", ignore_errors=True)
        for folder in (checkpoints, checkpoints.parent):
            with suppress(OSError):
                folder.rmdir()


def prepare(
    spec: StudySpec, study: optuna.Study, claimed: FrozenTrial, *, seed: int
) -> tuple[optuna.Trial, LayerSpace]:
    """Give a claimed trial its seed, and the study the sampler and pruner that it is drawn by.

    Args:
        spec: the study.
        study: Optuna's.
        claimed: the trial, RUNNING.
        seed: of the study.

    Returns:
        The trial, ready to suggest, and the space under the study's own conditions.
    """
    place = place_of(claimed)
    if SEED_ATTR not in claimed.user_attrs:
        own = derive_seed(seed, place)
        study._storage.set_trial_user_attr(claimed._trial_id, SEED_ATTR, own)
    space = spec.space_at(spec.conditions)  # may make a model: once a trial is enough
    kind = sampler_kind_of(study)
    sampler = make_study_sampler(spec, space, seed=derive_seed(seed, 0, place), kind=kind)
    study.sampler = show_in_order(sampler)
    study.pruner = make_study_pruner(spec, space, kind=kind)
    return optuna.Trial(study, claimed._trial_id), space


def check_trains_here(spec: StudySpec) -> None:
    """Refuse to run a study whose networks are trained elsewhere.

    Raises:
        StudyError: that says what to do instead.
    """
    if spec.train is train_elsewhere:
        raise StudyError(f"study {spec.name!r} cannot be run here: {ELSEWHERE}")


Objective = Callable[[optuna.Trial], float | tuple[float, float]]


def _train(
    trial: optuna.Trial, objective: Objective, stop: Stop
) -> tuple[TrialState, list[float] | None]:
    """Call the objective; the state that the trial ends in, and its values."""
    try:
        found = objective(trial)
    except optuna.TrialPruned as error:
        if stop.requested:
            raise KeyboardInterrupt from error
        return TrialState.PRUNED, None
    except AwayError:
        raise
    except (Exception, SystemExit) as error:
        if stop.caused(error) or is_full(error):
            raise
        _note(trial, first_line(error, named=True, longest=1000))
        return TrialState.FAIL, None
    values = list(found) if isinstance(found, tuple) else [found]
    if any(math.isnan(value) for value in values):
        _note(trial, f"the objective is not a number: {values}")
        return TrialState.FAIL, None
    return TrialState.COMPLETE, values


def is_full(error: BaseException | None) -> bool:
    """Whether a disk is full or not to be written to, which is no fault of a trial."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return True
    said = str(error)
    if "disk is full" in said or "readonly database" in said or "No space left" in said:
        return True
    return is_full(error.__cause__ or error.__context__)


def is_lost(error: BaseException | None) -> bool:
    """Whether a process that the trial needs has died; a signal may have followed at once."""
    if error is None:
        return False
    return isinstance(error, LostProcess) or is_lost(error.__cause__ or error.__context__)


def _note(trial: optuna.Trial, message: str) -> None:
    """Leave why it failed, where the recorder has not."""
    with suppress(UpdateFinishedTrialError):
        if "error" not in trial.user_attrs:
            trial.set_user_attr("error", hide_passwords(message))


def tell_optuna(
    study: optuna.Study, trial: optuna.Trial, state: TrialState, values: list[float] | None
) -> bool:
    """Tell Optuna; False where another worker took this one for dead, whose retry then counts."""
    try:
        study.tell(trial, values, state)
    except (ValueError, UpdateFinishedTrialError):
        if study._storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
            raise
        return False
    return True
