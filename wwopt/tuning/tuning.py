"""Tune: run or resume a study until it has the wanted number of finished trials.

Without a server or configuration: Optuna's SQLite database, MLflow's beside it (the two cannot
share one file: both keep their schema version in the table `alembic_version`), and an artifacts
folder, all under `out`.
"""

import os
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState

from wwopt.metrics.objective import Preset
from wwopt.study.constraints import is_feasible
from wwopt.study.errors import StudyError
from wwopt.study.identity import study_uuid
from wwopt.study.references import hash_code, load_study, reference_of
from wwopt.study.spec import NO_PRUNING, StudySpec
from wwopt.tracking import (
    StudyRun,
    create_tables,
    hide_password,
    open_study,
    reach,
)
from wwopt.tracking.runs import MAX_WEIGHTS
from wwopt.tracking.store import folder_uri
from wwopt.tuning.claims.joining import join_study
from wwopt.tuning.claims.leases import Worker, join
from wwopt.tuning.claims.places import list_finished, raise_target
from wwopt.tuning.ending import find_best_trial, is_last, lacks_report, leave_study
from wwopt.tuning.progress import Progress
from wwopt.tuning.samplers.strata import Size, best_by_size, list_sizes
from wwopt.tuning.storage import explain_storage, open_storage
from wwopt.tuning.workers.dask_workers import run_on_dask
from wwopt.tuning.workers.interruptions import close_runs, end_dead
from wwopt.tuning.workers.stopping import Stop, stoppable
from wwopt.tuning.workers.trial_runs import check_trains_here, name_objective
from wwopt.tuning.workers.worker import DEADLINE_ATTR, check_failures, is_complete, work
from wwopt.tuning.workers.worker_processes import run_processes

CODE_ATTR = "wwopt.code"  # user attribute of the study: hash of its file when it was last run
RUN_ATTR = "wwopt.run"  # user attribute of the study: how `tune` runs it, for workers elsewhere
OWNER = "WWOPT_OWNER"  # environment variable: the command that a worker belongs to


@dataclass(frozen=True)
class StudyResult:
    """A study after `tune`."""

    spec: StudySpec
    study: optuna.Study
    run: StudyRun  # MLflow's parent run
    storage: str  # Optuna's URL, password hidden
    out: Path

    @property
    def best_trial(self) -> optuna.trial.FrozenTrial | None:
        """The complete trial with the lowest objective that violates no guard.

        The textbook configuration where all trials memorise their labels.

        None without any, in a study of two objectives, where `best_trials` is the answer, and in
        one that samples sizes, where `best_by_size` is.
        """
        return find_best_trial(self.spec, self.study)

    @property
    def best_trials(self) -> list[optuna.trial.FrozenTrial]:
        """The front: feasible trials that no other one beats in both objectives, lowest first.

        In a study of one objective the best trial alone, or that of each size.
        """
        if self.spec.second is None:
            best = [] if self.best_trial is None else [self.best_trial]
            return [*best, *filter(is_feasible, self.best_by_size.values())]
        return sorted(self.study.best_trials, key=lambda trial: trial.values)

    @property
    def best_by_size(self) -> dict[Size, optuna.trial.FrozenTrial]:
        """Sampled size → its best trial, as far as feasible; empty where no size is sampled.

        Scores of different sizes do not compare: see `wwopt.tuning.samplers.strata`.
        """
        return best_by_size(self.complete_trials)

    @property
    def complete_trials(self) -> list[optuna.trial.FrozenTrial]:
        """Trials that trained to the end, feasible or not."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def tune(
    study: StudySpec | str,
    *,
    trials: int,
    out: str | Path = "wwopt-runs",
    storage: str | None = None,
    tracking: str | None = None,
    seed: int = 0,
    jobs: int = 1,
    dask: str | None = None,
    hours: float | None = None,
    progress: bool = True,
    max_weights: int = MAX_WEIGHTS,
    explain: bool = True,
    objective: Preset | None = None,
) -> StudyResult:
    """Run a study until it has `trials` finished trials; complete, pruned and failed ones count.

    Running it again resumes, and running it in several places at once shares the work. A trial that
    was interrupted does not count and is tried again. The same seed gives the same numbers where
    trials run one after the other, interrupted or not; with several workers their order, and so
    what the sampler knew, is the machine's.

    Args:
        study: the study, or a reference to it.
        trials: finished trials that the study shall have. It is kept with the study; fewer than
            before change nothing.
        out: folder for databases, artifacts and checkpoints.
        storage: Optuna's database URL; None for SQLite in `out`.
        tracking: MLflow's tracking URI; None for SQLite in `out`.
        seed: of initialisation, data order, shuffles and sampler.
        jobs: processes on this machine. Where there are GPUs, each sees one.
        dask: address of a cluster, each of whose workers runs trials in place of `jobs`; the study
            file and the addresses must mean the same there.
        hours: after which the study shall have ended, for all of its workers: no trial begins that
            would take longer, as the middle one of those before did. None for no end.
        progress: show a bar with the best value so far.
        max_weights: bytes up to which the weights of complete trials are logged in MLflow.
        explain: attach the report to the study's run in MLflow, and pictures to its best trial's.
        objective: preset of the score that guides, in place of what the study names.

    Raises:
        StudyError: if the study cannot run or be resumed, or its first trials all fail.
        TrackingError: if MLflow's store cannot be used.
        KeyboardInterrupt: at Ctrl-C or SIGTERM. The trial that ran then is tried again.
    """
    spec = load_study(study) if isinstance(study, str) else study
    reference = ""
    if trials < 1 or jobs < 1:
        raise StudyError(f"trials and jobs must be at least 1, got {trials} and {jobs}")
    if hours is not None and not hours > 0.0:
        raise StudyError(f"hours must be positive, got {hours:g}")
    if jobs > 1 or dask is not None:
        reference = study if isinstance(study, str) else reference_of(spec)
    check_trains_here(spec)
    spec = name_objective(spec, objective)
    places = find_places(out, storage=storage, tracking=tracking)
    owner = uuid.uuid4().hex
    with stoppable() as stop, join(owner) as worker, explain_storage(places.storage):
        joined = enter(
            spec, places, worker=worker, trials=trials, seed=seed, jobs=jobs,
            max_weights=max_weights, hours=hours,
        )  # fmt: skip
        status = "FAILED"
        try:
            _run(spec, joined, worker, stop, reference, places, jobs, dask, progress)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            if is_last(joined.study, owner) or lacks_report(joined.study):
                leave_study(spec, joined.study, joined.run, status=status, explain=explain)
    return StudyResult(spec, joined.study, joined.run, hide_password(places.storage), places.folder)


def run_worker(
    study: str,
    *,
    out: str | Path = "wwopt-runs",
    storage: str | None = None,
    tracking: str | None = None,
    trials: int | None = None,
    explain: bool = True,
) -> int:
    """Take part in a study until it has all of its trials; returns how many were run here.

    Args:
        study: reference to it.
        out: folder for what has no address, and for checkpoints.
        storage: Optuna's database URL; None for SQLite in `out`.
        tracking: MLflow's tracking URI; None for SQLite in `out`.
        trials: that the study shall have, which also creates it; None for what is kept with it.
        explain: attach the report, if this is the last worker.

    Raises:
        StudyError: if there is no such study, or it cannot run.
        TrackingError: if MLflow's store cannot be used.
        KeyboardInterrupt: at Ctrl-C or SIGTERM. The trial that ran then is tried again.
    """
    spec = load_study(study)
    check_trains_here(spec)
    if trials is not None and trials < 1:
        raise StudyError(f"trials must be at least 1, got {trials}")
    places = find_places(out, storage=storage, tracking=tracking)
    started = os.environ.get(OWNER)
    belongs_to = started or uuid.uuid4().hex
    with stoppable() as stop, join(belongs_to) as worker, explain_storage(places.storage):
        joined = enter(spec, places, worker=worker, trials=trials)
        if joined.warning is not None and started is None:
            print(f"warning: {joined.warning}", file=sys.stderr)
        status = "FAILED"
        try:
            done = work(
                spec, joined.study, worker=worker, run=joined.run, seed=joined.seed, stop=stop,
                trials=trials, checkpoints=joined.checkpoints,
            )  # fmt: skip
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            # Of a `tune` that started it, that one is the last.
            if started is None and is_last(joined.study, worker.owner):
                leave_study(spec, joined.study, joined.run, status=status, explain=explain)
    return done


@dataclass(frozen=True)
class Addresses:
    """Where a study lies."""

    folder: Path
    storage: str  # Optuna's URL
    tracking: str  # MLflow's URI
    stores_trials: bool  # whether Optuna's database lies in the folder
    is_local: bool  # whether something of it does


def find_places(out: str | Path, *, storage: str | None, tracking: str | None) -> Addresses:
    """Where a study lies: in a folder, as far as it has no other address."""
    folder = Path(out).resolve()
    return Addresses(
        folder,
        storage or f"sqlite:///{folder / 'optuna.db'}",
        tracking or folder_uri(folder),
        stores_trials=storage is None,
        is_local=storage is None or tracking is None,
    )


@dataclass(frozen=True)
class Joined:
    """A study that this process takes part in."""

    study: optuna.Study
    run: StudyRun
    seed: int
    checkpoints: Path  # folder in which each place of the study has one
    warning: str | None = None  # in words


def enter(
    spec: StudySpec,
    places: Addresses,
    *,
    worker: Worker,
    trials: int | None,
    seed: int | None = None,
    jobs: int = 1,
    max_weights: int | None = None,
    hours: float | None = None,
) -> Joined:
    """Open the stores, join the study, and end what died here before.

    Args:
        spec: the study.
        places: where it lies.
        worker: who joins.
        trials: that it shall have; None for what is kept with it.
        seed: of the study; None for what is kept with it, as for `max_weights`.
        jobs: processes, for the record.
        max_weights: bytes up to which weights are logged.
        hours: from now until the study shall have ended.

    Raises:
        StudyError: if the study or its storage cannot be used.
        TrackingError: if MLflow's store cannot.
    """
    spec.check()
    # What can fail for want of a server fails before anything is created.
    opened = None if places.stores_trials else open_storage(places.storage)
    reach(places.tracking)
    if places.is_local:
        _make_folder(places.folder)
    opened = opened or open_storage(places.storage)
    create_tables(places.tracking)
    settings: dict[str, int] = {"seed": 0, "max_weights": MAX_WEIGHTS}

    def open_run(study: optuna.Study) -> StudyRun:
        settings.update(study.user_attrs.get(RUN_ATTR, {}))
        given = {"seed": seed, "max_weights": max_weights}
        settings.update({name: value for name, value in given.items() if value is not None})
        return open_study(
            places.tracking,
            name=spec.name,
            study=study_uuid(study),
            settings={
                "storage": hide_password(places.storage),
                "seed": settings["seed"],
                "jobs": jobs,
                **({} if spec.metric is None else {"metric": spec.describe_metric()}),
                **spec.describe(),
            },
            max_weights=settings["max_weights"],
            code=code,
        )

    code = hash_code(spec)
    study, run = join_study(spec, opened, worker=worker, trials=trials, open_run=open_run)
    if seed is not None:
        study.set_user_attr(RUN_ATTR, settings)
        _set_deadline(study, hours)
    end_dead(study, worker=worker, run=run)
    close_runs(study, run)
    checkpoints = places.folder / "checkpoints" / study_uuid(study)
    return Joined(study, run, settings["seed"], checkpoints, _note_code(study, code))


def _note_code(study: optuna.Study, code: str | None) -> str | None:
    """Keep the hash of the study's file; what to say where it is another one than before."""
    before = study.user_attrs.get(CODE_ATTR)
    if code is not None and code != before:
        study.set_user_attr(CODE_ATTR, code)
    if before is None or code is None or code == before or not list_finished(study):
        return None
    return (
        f"the file of study {study.study_name!r} has changed since its last trial (hash {before}, "
        f"now {code}): trials from before and after may not compare; their runs in MLflow have the "
        f"tag {CODE_ATTR}"
    )


def _set_deadline(study: optuna.Study, hours: float | None) -> None:
    """Keep when the study shall end; one that has passed ends no study that is run again."""
    before = study.user_attrs.get(DEADLINE_ATTR)
    if hours is not None:
        study.set_user_attr(DEADLINE_ATTR, time.time() + 3600.0 * hours)
    elif before is not None and before < time.time():
        study.set_user_attr(DEADLINE_ATTR, None)


def _run(
    spec: StudySpec,
    joined: Joined,
    worker: Worker,
    stop: Stop,
    reference: str,
    places: Addresses,
    jobs: int,
    dask: str | None,
    progress: bool,
) -> None:
    study = joined.study
    target = raise_target(study, None)
    one_order = spec.second is None and not list_sizes(spec.space_at(spec.conditions))
    with Progress(study, target=target, shown=progress, one_order=one_order) as told:
        if is_complete(study, target):
            return
        if joined.warning is not None:
            told.say(f"warning: {joined.warning}")
        if spec.second is not None:
            told.say(NO_PRUNING)
        if jobs == 1 and dask is None:
            work(
                spec, study, worker=worker, run=joined.run, seed=joined.seed, stop=stop,
                checkpoints=joined.checkpoints, on_look=told.look,
            )  # fmt: skip
            return

        def look() -> int:
            told.look()
            return len(list_finished(study))

        arguments = [reference, "--out", str(places.folder)]
        variables = {
            OWNER: worker.owner,
            "WWOPT_WORKER_STORAGE": places.storage,
            "WWOPT_WORKER_TRACKING_URI": places.tracking,
        }
        if dask is not None:
            run_on_dask(dask, arguments, variables, owner=worker.owner, on_look=look)
        else:
            jobs = min(jobs, max(1, target - len(list_finished(study))))
            run_processes(arguments, variables, jobs=jobs, on_look=look)
        check_failures(study)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StudyError(f"cannot write to --out {folder}: {error.strerror or error}") from error
