"""Take what a job has trained: judge its checkpoint, report and prune, and end the trial.

Everything is refused before anything is changed: a file of another study, a checkpoint that cannot
be read or is of another network, a step that goes back, a lease that ran out. The job can then tell
again. Two that tell the same trial at once: Optuna takes one of them.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from wwopt.metrics.analysis import analyze
from wwopt.metrics.expected_layers import match_layers
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.study.errors import StudyError
from wwopt.study.identity import study_uuid
from wwopt.study.references import load_study
from wwopt.study.spec import StudySpec
from wwopt.study.trial.history import STEPS
from wwopt.study.trial.recorder import Recorder
from wwopt.study.trial.recording import close_run, mirror_if_best, reopen
from wwopt.study.trial.trial_log import log_checkpoint
from wwopt.study.tries import INTERRUPTED_ATTR, place_of
from wwopt.tracking import StudyRun, TrialRun, open_trial
from wwopt.tuning.ask_and_tell.asked_trials import AskedTrial, read_asked
from wwopt.tuning.claims.leases import LEASE_ATTR, Worker, ends_at, hand_out, lease_of
from wwopt.tuning.claims.places import raise_target
from wwopt.tuning.ending import is_last, leave_study
from wwopt.tuning.samplers.study_samplers import (
    make_study_pruner,
    make_study_sampler,
    sampler_kind_of,
    show_in_order,
)
from wwopt.tuning.storage import explain_storage
from wwopt.tuning.tuning import Joined, enter, find_places
from wwopt.tuning.workers.trial_runs import tell_optuna
from wwopt.tuning.workers.worker import is_complete
from wwopt.wording import first_line

TOLD_ATTR = "wwopt.told"  # user attribute of a trial: the last step that was told of it


@dataclass(frozen=True)
class Told:
    """What has become of a trial."""

    trial: int  # Optuna's number
    state: str  # RUNNING, COMPLETE, PRUNED or FAIL
    value: float | None  # of the objective, as far as the checkpoint was judged
    status: str  # "ok", or why it ended otherwise, in words
    completes: bool = False  # whether the study has all of its trials, and its report

    @property
    def goes_on(self) -> bool:
        """Whether the training is to go on."""
        return self.state == "RUNNING"


def tell(
    study: StudySpec | str,
    asked: str | Path | AskedTrial,
    checkpoint: str | Path | None = None,
    *,
    train_loss: float | None = None,
    step: int | None = None,
    failed: str | None = None,
    metrics: Mapping[str, float] | None = None,
    key: str | None = None,
    late: bool = False,
    out: str | Path = "wwopt-runs",
    storage: str | None = None,
    tracking: str | None = None,
    explain: bool = True,
) -> Told:
    """Tell what has become of a trial that was handed out: its end, a step of it, or its failure.

    Args:
        study: the study, or a reference to it.
        asked: what `ask` wrote.
        checkpoint: of the network; at a step it may be left out, then only numbers are logged.
        train_loss: the last one, in nats.
        step: of the training, which goes on after it; None for its end.
        failed: why the training failed; it counts as a failed trial, and is not tried again.
        metrics: anything else to log, never seen by the objective.
        key: dotted path of the model in a checkpoint that holds several.
        late: take the result though the lease has run out, if nobody has ended the trial yet.
        out: folder for what has no address, and for checkpoints, as `ask` had it.
        storage: Optuna's database URL; None for SQLite in `out`.
        tracking: MLflow's tracking URI; None for SQLite in `out`.
        explain: attach the report, if this was the study's last trial.

    Raises:
        StudyError: if it cannot be taken; the message says why and what to do.
        WeightsError: if the checkpoint cannot be read, or is of another network.
        ScoreError: if a training loss is missing that the study's score reads.
        TrackingError: if MLflow's store cannot be used.
    """
    spec = load_study(study) if isinstance(study, str) else study
    handed = asked if isinstance(asked, AskedTrial) else read_asked(asked)
    if failed is None and checkpoint is None and step is None:
        raise StudyError("name the checkpoint, or --step, or --failed REASON")
    if failed is not None and (checkpoint is not None or step is not None):
        raise StudyError("a training that failed has no checkpoint and no step to tell")
    if step is not None and step < 0:
        raise StudyError(f"steps count from 0, got {step}")
    places = find_places(out, storage=storage, tracking=tracking)
    worker = Worker(handed.owner, handed.holder)
    with explain_storage(places.storage):
        joined = enter(spec, places, worker=worker, trials=None)
        frozen = _find(joined.study, handed, late=late)
        told = int(frozen.user_attrs.get(TOLD_ATTR, -1))
        if step is not None and step <= told:
            raise StudyError(
                f"step {step} of trial {handed.trial} was told already, the last was {told}: "
                f"numbers of steps go up"
            )
        found = None if checkpoint is None else _analyse(spec, handed, checkpoint, key)
        trial = _take_up(spec, joined, frozen)
        run = open_trial(joined.run, number=handed.trial, hyperparameters={})
        if failed is not None:
            return _fail(spec, joined, trial, run, handed, failed, explain=explain)
        recorder = reopen(
            trial, run, objective=spec.objective, conditions=handed.conditions,
            guards=spec.guards, told=told,
        )  # fmt: skip
        at = max(handed.conditions.epochs, told) if step is None else step
        ended: optuna.TrialPruned | ValueError | None = None
        try:
            if found is None:
                recorder.note(train_loss=train_loss, step=at, **(metrics or {}))
            else:
                recorder.step(found, train_loss=train_loss, step=at, **(metrics or {}))
            if step is None:
                recorder.finish()
        except optuna.TrialPruned as pruned:
            ended = pruned
        except ValueError as error:
            if not recorder.has_ended:  # refused; nothing has changed, and it may be told again
                raise
            ended = error
        if ended is None and step is not None:
            _renew(joined.study, trial, frozen, worker, at)
            return Told(handed.trial, "RUNNING", recorder.last_value, "ok")
        return _end(
            spec, joined, trial, recorder, handed, ended,
            checkpoint=checkpoint, explain=explain,
        )  # fmt: skip


def _find(study: optuna.Study, asked: AskedTrial, *, late: bool) -> FrozenTrial:
    """The trial that was handed out, still running under its lease.

    Raises:
        StudyError: if it is of another study, has ended, or its lease has.
    """
    ours = study_uuid(study)
    if asked.study != ours:
        raise StudyError(
            f"trial {asked.trial} was asked of study {asked.name!r} ({asked.study}), and this is "
            f"{study.study_name!r} ({ours}): name the same study, --out, --storage"
        )
    trials = study.get_trials(deepcopy=False)
    trial = next((t for t in trials if t.number == asked.trial), None)
    if trial is None:
        raise StudyError(f"study {study.study_name!r} has no trial {asked.trial}")
    lease = lease_of(trial) or {}
    until = ends_at(lease)
    ran_out = "" if until is None else f" at {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S}"
    if INTERRUPTED_ATTR in trial.user_attrs and trial.state == TrialState.FAIL:
        again = [
            t.number for t in trials if place_of(t) == place_of(trial) and t.number > trial.number
        ]
        other = f"; trial {again[-1]} tries the same values" if again else ""
        raise StudyError(
            f"the lease of trial {trial.number} ran out{ran_out} UTC, and it was ended: its result "
            f"is not taken{other}. Ask with a longer --lease, or renew it by `wwopt tell --step`"
        )
    if trial.state.is_finished():
        raise StudyError(
            f"trial {trial.number} was told already: it is {trial.state.name}, and stays so"
        )
    if lease.get("name") != asked.holder or trial.state != TrialState.RUNNING:
        raise StudyError(
            f"trial {trial.number} is not out under this lease; it is {trial.state.name}"
        )
    if until is not None and time.time() > until and not late:
        raise StudyError(
            f"the lease of trial {trial.number} ran out{ran_out} UTC, so that whoever looks at the "
            f"study next ends it; --late takes the result if nobody has yet"
        )
    return trial


def _analyse(
    spec: StudySpec, asked: AskedTrial, checkpoint: str | Path, key: str | None
) -> ModelMetrics:
    found = analyze(checkpoint, seed=asked.conditions.seed, key=key)
    layers = spec.space_at(asked.conditions).eigenvalues
    return match_layers(found, layers, source=str(checkpoint))


def _take_up(spec: StudySpec, joined: Joined, frozen: FrozenTrial) -> optuna.Trial:
    """The trial with the pruner and the sampler of its study, of which nothing is drawn any more.

    Some samplers note what they are about to draw when a trial is made; hence another one first.
    """
    study = joined.study
    kind = sampler_kind_of(study)
    space = spec.space_at(spec.conditions)
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    trial = optuna.Trial(study, frozen._trial_id)
    study.sampler = show_in_order(make_study_sampler(spec, space, seed=0, kind=kind))
    study.pruner = make_study_pruner(spec, space, kind=kind)
    return trial


def _renew(
    study: optuna.Study, trial: optuna.Trial, frozen: FrozenTrial, worker: Worker, step: int
) -> None:
    lease = lease_of(frozen) or {}
    beat = int(lease.get("beat", 0)) + 1
    longer = hand_out(worker, seconds=float(lease["seconds"]), beat=beat)
    study._storage.set_trial_user_attr(trial._trial_id, TOLD_ATTR, step)
    study._storage.set_trial_user_attr(trial._trial_id, LEASE_ATTR, longer)


def _end(
    spec: StudySpec,
    joined: Joined,
    trial: optuna.Trial,
    recorder: Recorder,
    asked: AskedTrial,
    ended: optuna.TrialPruned | ValueError | None,
    *,
    checkpoint: str | Path | None,
    explain: bool,
) -> Told:
    run = recorder.run
    assert run is not None
    values: list[float] | None = None
    state, status, error = TrialState.PRUNED, str(ended or "ok"), None
    if isinstance(ended, ValueError):
        state, error = TrialState.FAIL, first_line(ended, named=True)
        trial.set_user_attr("error", error)
    elif ended is None:
        state = TrialState.COMPLETE
        second = spec.second_value(recorder)
        values = [recorder.value] if second is None else [recorder.value, second]
        if checkpoint is not None:
            limit = joined.run.max_weights
            log_checkpoint(run, Path(checkpoint), limit=limit, step=asked.conditions.epochs)
    statuses = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    close_run(run, statuses[state.name], state=state.name, error=error)
    if not tell_optuna(joined.study, trial, state, values):
        raise StudyError(
            f"trial {trial.number} was ended by somebody else meanwhile; this result is not taken"
        )
    if state == TrialState.COMPLETE:
        mirror_if_best(joined.run, trial, recorder)
    completes = _leave(spec, joined.study, joined.run, asked, explain=explain)
    return Told(asked.trial, state.name, recorder.last_value, status, completes)


def _fail(
    spec: StudySpec,
    joined: Joined,
    trial: optuna.Trial,
    run: TrialRun,
    asked: AskedTrial,
    reason: str,
    *,
    explain: bool,
) -> Told:
    trial.set_user_attr("error", reason)
    close_run(run, "FAILED", state="FAIL", error=reason)
    if not tell_optuna(joined.study, trial, TrialState.FAIL, None):
        raise StudyError(f"trial {trial.number} was ended by somebody else meanwhile")
    completes = _leave(spec, joined.study, joined.run, asked, explain=explain)
    return Told(asked.trial, "FAIL", None, reason, completes)


def _leave(
    spec: StudySpec, study: optuna.Study, run: StudyRun, asked: AskedTrial, *, explain: bool
) -> bool:
    """Forget what was kept of the trial's steps; leave the study, if this was its last trial."""
    folder = Path(asked.conditions.checkpoint_dir or "")
    if asked.conditions.checkpoint_dir and folder.is_dir():
        # What else lies there is the job's own.
        for file in (STEPS, "wwopt-initial.npz", "wwopt-last.npz"):
            (folder / file).unlink(missing_ok=True)
        _remove_empty(folder)
    if not (is_complete(study, raise_target(study, None)) and is_last(study, asked.owner)):
        return False
    leave_study(spec, study, run, status="FINISHED", explain=explain)
    return True


def _remove_empty(folder: Path) -> None:
    for empty in (folder, folder.parent, folder.parent.parent):
        try:
            empty.rmdir()
        except OSError:
            return
