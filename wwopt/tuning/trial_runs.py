"""Run trials of a study, in this process or in several on one machine.

Spawned workers get a reference to the study, URLs and a seed. The parent hands out one trial at a
time, so their number is exact however unequal they are, and a worker that dies takes only its own
trial with it. Workers on other machines would join the same Optuna storage.
"""

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from wwopt.metrics.objective import Preset, SpectralObjective
from wwopt.study.constraints import is_feasible
from wwopt.study.errors import StudyError
from wwopt.study.references import load_study
from wwopt.study.spec import StudySpec, derive_seed
from wwopt.tracking import StudyRun
from wwopt.tuning.study_samplers import make_study_pruner, make_study_sampler, sampler_kind_of


@dataclass(frozen=True)
class FinishedTrial:
    """What is told of a trial when it ends."""

    number: int
    state: str  # COMPLETE, PRUNED or FAIL
    value: float | None
    error: str | None
    feasible: bool = True  # no guard is violated


OnTrial = Callable[[FinishedTrial], None]


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
    spec: StudySpec, study: optuna.Study, *, tracking: StudyRun | None, seed: int, worker: int = 0
) -> FinishedTrial:
    """Run the next trial; whatever it raises, short of an interrupt, only fails the trial.

    The sampler is made anew from (seed, worker, trials so far): a resumed sequential study draws
    what it would have drawn without the interruption.
    """
    space = spec.space_at(spec.conditions)  # may make a model: once a trial is enough
    objective = spec.optuna_objective(tracking=tracking, seed=seed, space=space)
    begun = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
    number = len(begun)
    kind = sampler_kind_of(study)
    seed_of_sampler = derive_seed(seed, worker, number)
    study.sampler = make_study_sampler(spec, space, seed=seed_of_sampler, kind=kind)
    study.pruner = make_study_pruner(spec, space, kind=kind)
    finished: list[optuna.trial.FrozenTrial] = []
    running: list[int] = []

    def run(trial: optuna.Trial) -> float | tuple[float, float]:
        running.append(trial.number)
        return objective(trial)

    try:
        study.optimize(
            run, n_trials=1, catch=(Exception,), callbacks=[lambda _, trial: finished.append(trial)]
        )
    except KeyboardInterrupt:
        # Optuna leaves an interrupted trial running for ever.
        for trial_number in running:
            state = optuna.trial.TrialState.FAIL
            study.tell(trial_number, state=state, skip_if_finished=True)
        raise
    trial = finished[0]
    value = trial.values[0] if trial.state.is_finished() and trial.values else None
    return FinishedTrial(
        trial.number,
        trial.state.name,
        value,
        trial.user_attrs.get("error"),
        feasible=is_feasible(trial),
    )


def run_workers(
    reference: str,
    *,
    objective: Preset | None,
    storage: Callable[[], optuna.storages.BaseStorage],
    study_name: str,
    tracking: StudyRun | None,
    seed: int,
    jobs: int,
    trials: int,
    on_trial: OnTrial,
) -> None:
    """Run trials in spawned processes until the given number has ended.

    Args:
        reference: of the study.
        objective: preset of the score that guides, in place of what the study names.
        storage: opens Optuna's storage in the worker; picklable.
        study_name: in that storage.
        tracking: the study's parent run.
        seed: of the study; each worker's sampler derives its own from it.
        jobs: processes; each gets its share of the machine's cores.
        trials: to run.
        on_trial: called in this process as trials end.

    Raises:
        StudyError: if every worker died before the trials were done.
    """
    context = multiprocessing.get_context("spawn")
    links: dict[Connection, Any] = {}
    for worker in range(min(jobs, trials)):
        ours, theirs = context.Pipe()
        arguments = (
            theirs,
            reference,
            objective,
            storage,
            study_name,
            tracking,
            seed,
            worker,
            jobs,
        )
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        links[ours] = process
    remaining = trials
    try:
        for link in links:
            link.send(True)
            remaining -= 1
        while links:
            for ready in wait(list(links)):
                assert isinstance(ready, Connection)
                try:
                    outcome = ready.recv()
                except EOFError:  # the worker died, and its trial with it
                    process = links.pop(ready)
                    process.join()
                    remaining += 1
                    if not links:
                        raise StudyError(
                            f"all workers died, the last with exit code {process.exitcode}; "
                            f"{remaining} trials were not run"
                        ) from None
                    continue
                if isinstance(outcome, str):
                    raise StudyError(f"a worker could not start: {outcome}")
                on_trial(outcome)
                if remaining > 0:
                    remaining -= 1
                    ready.send(True)
                else:
                    ready.send(False)
                    links.pop(ready).join()
    finally:
        for process in links.values():
            process.terminate()
        for process in links.values():
            process.join(30)  # they mark their trials as failed and close their runs
            process.kill()
            process.join()


def _work(
    link: Connection,
    reference: str,
    objective: Preset | None,
    storage: Callable[[], optuna.storages.BaseStorage],
    study_name: str,
    tracking: StudyRun | None,
    seed: int,
    worker: int,
    jobs: int,
) -> None:
    # A terminal interrupts workers and parent alike, and the parent then ends its workers: once is
    # enough, or the second signal would break what the first one cleans up.
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    try:
        spec = name_objective(load_study(reference), objective)
        study = optuna.load_study(study_name=study_name, storage=storage())
    except Exception as error:
        link.send(f"{type(error).__name__}: {error}")
        return
    except KeyboardInterrupt:
        return
    try:
        while link.recv():
            link.send(run_trial(spec, study, tracking=tracking, seed=seed, worker=worker))
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        return  # the parent was interrupted, and says so


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Not SIG_IGN: Python complains of a signal that arrived before and is handled after.
    signal.signal(signal.SIGINT, _pass)
    signal.signal(signal.SIGTERM, _pass)
    raise KeyboardInterrupt


def _pass(_number: int, _frame: FrameType | None) -> None:
    pass
