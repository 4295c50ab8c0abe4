"""Leave a study: the last worker ends its run in MLflow and attaches its report, once."""

from contextlib import suppress

import optuna
from optuna.trial import TrialState

import wwopt.report
from wwopt.study.choice import find_best, find_lowest
from wwopt.study.spec import StudySpec
from wwopt.tracking import StudyRun, TrackingError, TrialRun, finish_study
from wwopt.tuning.claims.leases import is_running, lease_of
from wwopt.tuning.claims.places import list_finished
from wwopt.tuning.dashboard_notes import write_notes
from wwopt.tuning.samplers.strata import best_by_size
from wwopt.tuning.workers.interruptions import ENDED_BY_ATTR, close_runs

REPORTED_ATTR = "wwopt.reported"  # user attribute of the study: trials that its report has


def is_last(study: optuna.Study, owner: str) -> bool:
    """Whether nobody runs a trial any more, and the one that ended last was this command's.

    Everybody who looks when all have ended sees the same one, so that one command is the last.
    """
    trials = study.get_trials(deepcopy=False)
    if any(is_running(trial) for trial in trials):
        return False
    ended = [trial for trial in trials if trial.datetime_complete is not None]
    if not ended:
        return True
    last = max(ended, key=lambda t: (t.datetime_complete, t.number))
    lease = lease_of(last) or {}
    return owner == last.user_attrs.get(ENDED_BY_ATTR, lease.get("owner"))


def lacks_report(study: optuna.Study) -> bool:
    """Whether nobody runs a trial any more, and the last one to end did not leave the report."""
    if any(is_running(trial) for trial in study.get_trials(deepcopy=False)):
        return False
    return study.user_attrs.get(REPORTED_ATTR) != len(list_finished(study))


def find_best_trial(spec: StudySpec, study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    """The best trial; None where there is none, or several that do not compare."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if spec.second is not None or best_by_size(complete):
        return None
    return find_best(complete)


def leave_study(
    spec: StudySpec, study: optuna.Study, run: StudyRun, *, status: str, explain: bool
) -> None:
    """End the parent run, close what dead processes left open, and attach the report.

    Args:
        spec: the study.
        study: Optuna's.
        run: the parent run.
        status: FINISHED, KILLED (interrupted, to be resumed) or FAILED.
        explain: whether to attach the report.

    Raises:
        TrackingError: if MLflow cannot be used, unless what ends the study is told already.
    """
    if status != "FINISHED":
        with suppress(TrackingError):
            close_runs(study, run)
            finish_study(run, status=status)
        return
    close_runs(study, run)
    best = find_best_trial(spec, study)
    lowest = find_lowest(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    finish_study(
        run,
        kept=best is not None and lowest is not None and best.number != lowest.number,
        best_trial=None if best is None else best.number,
        best=None if best is None else TrialRun(run.uri, best.user_attrs["mlflow_run_id"]),
    )
    write_notes(study, best)
    if explain:
        wwopt.report.explain_study(run)
        study.set_user_attr(REPORTED_ATTR, len(list_finished(study)))
