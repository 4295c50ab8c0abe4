"""Hand out a trial to a training job that is no process of ours, under a lease.

The trial is claimed as a worker claims one: until it is handed out the lease is this process's own,
so that whoever dies in between loses nothing. From then on it ends at a time, and whoever looks at
the study later than that ends the trial and queues its values again.
"""

import time
import uuid
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from wwopt.metrics.objective import Preset
from wwopt.study.errors import StudyError
from wwopt.study.identity import study_uuid
from wwopt.study.references import load_study
from wwopt.study.second_objectives import OF_A_MODULE
from wwopt.study.spec import StudySpec
from wwopt.study.trial.recording import open_run
from wwopt.tracking import hide_password, reopen_study
from wwopt.tuning.ask_and_tell.asked_trials import AskedTrial
from wwopt.tuning.claims.leases import LEASE_ATTR, Worker, hand_out, join
from wwopt.tuning.claims.places import claim, raise_target
from wwopt.tuning.storage import explain_storage
from wwopt.tuning.tuning import Joined, enter, find_places
from wwopt.tuning.workers.interruptions import interrupt
from wwopt.tuning.workers.trial_runs import name_objective, prepare
from wwopt.tuning.workers.worker import REPAIR, check_failures, fill_gaps, is_complete, is_over

LEASE = 24.0 * 3600.0  # seconds: what many clusters give a job
LOOK = 0.2  # seconds between two looks at a place whose worker died before it was queued


class NothingToAskError(StudyError):
    """No trial is left to hand out; the message says whether others still run."""


def ask(
    study: StudySpec | str,
    path: str | Path = "hp.json",
    *,
    lease: float = LEASE,
    trials: int | None = None,
    out: str | Path = "wwopt-runs",
    storage: str | None = None,
    tracking: str | None = None,
    seed: int | None = None,
    objective: Preset | None = None,
) -> AskedTrial:
    """Claim the next trial of a study, and write what it is to be trained with.

    Args:
        study: the study, or a reference to it.
        path: of the file that is written for the job.
        lease: seconds after which the trial is taken for lost, unless `tell` renews it.
        trials: that the study shall have, which also creates it; None for what is kept with it.
        out: folder for what has no address, and for checkpoints.
        storage: Optuna's database URL; None for SQLite in `out`.
        tracking: MLflow's tracking URI; None for SQLite in `out`.
        seed: of the study, where this creates it; None for what is kept with it, or 0.
        objective: preset of the score that guides, in place of what the study names.

    Raises:
        NothingToAskError: if no trial is left.
        StudyError: if there is no such study, it cannot be told, or its first trials all failed.
        TrackingError: if MLflow's store cannot be used.
    """
    if not lease > 0.0:
        raise StudyError(f"the lease must be longer than 0 s, got {lease:g}")
    if trials is not None and trials < 1:
        raise StudyError(f"trials must be at least 1, got {trials}")
    spec = name_objective(load_study(study) if isinstance(study, str) else study, objective)
    if spec.second in OF_A_MODULE:
        raise StudyError(
            f'study {spec.name!r} has second="{spec.second}", which a checkpoint does not tell; '
            f'use "train_loss", or `wwopt tune`'
        )
    path = Path(path).absolute()
    _check_writable(path)
    places = find_places(out, storage=storage, tracking=tracking)
    with join(uuid.uuid4().hex) as worker, explain_storage(places.storage):
        joined = enter(spec, places, worker=worker, trials=trials, seed=seed)
        check_failures(joined.study)
        claimed = _claim(joined.study, worker)
        try:
            reference = study if isinstance(study, str) else ""
            asked = _draw(spec, joined, claimed, worker, lease=lease, reference=reference)
            asked.write(path)
            until = hand_out(worker, seconds=lease)
            joined.study._storage.set_trial_user_attr(claimed._trial_id, LEASE_ATTR, until)
        except BaseException:
            interrupt(joined.study, claimed, "stopped", worker=worker, run=joined.run)
            raise
    return asked


def _claim(study: optuna.Study, worker: Worker) -> FrozenTrial:
    target = raise_target(study, None)
    gaps: dict[int, float] = {}
    begun = time.monotonic()
    while not is_over(study):
        gaps = fill_gaps(study, target, gaps)
        claimed = claim(study, worker, target=target)
        if claimed is not None:
            return claimed
        if not gaps or time.monotonic() - begun > 2.0 * REPAIR:
            break
        time.sleep(LOOK)
    if is_complete(study, target):
        raise NothingToAskError(f"study {study.study_name!r} has all of its {target} trials")
    if is_over(study):
        raise NothingToAskError(f"study {study.study_name!r} ends before another trial would")
    raise NothingToAskError(
        f"all {target} trials of study {study.study_name!r} are finished or run; ask again when a "
        f"lease has run out, or raise --trials"
    )


def _draw(
    spec: StudySpec,
    joined: Joined,
    claimed: FrozenTrial,
    worker: Worker,
    *,
    lease: float,
    reference: str,
) -> AskedTrial:
    reopen_study(joined.run)  # nobody can have left the study since
    trial, space = prepare(spec, joined.study, claimed, seed=joined.seed)
    hp, conditions = spec.draw(trial, seed=joined.seed, space=space, checkpoints=joined.checkpoints)
    run = open_run(joined.run, trial, seed=conditions.seed, observe=False, params={})
    known = {} if run is None else {"tracking_uri": hide_password(run.uri), "run_id": run.run_id}
    return AskedTrial(
        spec.name,
        study_uuid(joined.study),
        claimed.number,
        hp,
        conditions,
        owner=worker.owner,
        holder=worker.name,
        until=time.time() + lease,
        reference=reference,
        run=known,
    )


def _check_writable(path: Path) -> None:
    """Before a trial is claimed and not after it: a file that cannot be written."""
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        draft = path.with_name(f".{path.name}.new")
        draft.touch()
        draft.unlink()
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror or error}") from error
