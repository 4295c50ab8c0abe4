"""Tune: run or resume a study until it has the wanted number of finished trials.

Without a server or configuration: Optuna's SQLite database, MLflow's beside it (the two cannot
share one file: both keep their schema version in the table `alembic_version`), and an artifacts
folder, all under `out`.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState
from tqdm import tqdm

import wwopt.report
from wwopt.metrics.objective import Preset
from wwopt.study.constraints import find_best, is_feasible
from wwopt.study.errors import StudyError
from wwopt.study.identity import study_uuid
from wwopt.study.references import load_study, reference_of
from wwopt.study.spec import NO_PRUNING, StudySpec
from wwopt.tracking import (
    StudyRun,
    TrialRun,
    close_orphan,
    finish_study,
    hide_password,
    open_study,
    reach,
)
from wwopt.tracking.runs import MAX_WEIGHTS
from wwopt.tracking.store import folder_uri
from wwopt.tuning.dashboard_notes import write_notes
from wwopt.tuning.storage import create_study, open_storage
from wwopt.tuning.strata import Size, best_by_size, list_sizes
from wwopt.tuning.trial_runs import FinishedTrial, name_objective, run_trial, run_workers

ORPHANS_ATTR = "wwopt.orphans"  # of the study: dead trials whose runs were seen to
GIVE_UP_AFTER = 3  # failures at the start of a study, without any trial that did not fail


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
        comparable = self.spec.second is None and not self.best_by_size
        return find_best(self.complete_trials) if comparable else None

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

        Scores of different sizes do not compare: see `wwopt.tuning.strata`.
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
    progress: bool = True,
    max_weights: int = MAX_WEIGHTS,
    explain: bool = True,
    objective: Preset | None = None,
) -> StudyResult:
    """Run a study until it has `trials` finished trials; complete, pruned and failed ones count.

    Running it again resumes. The same seed gives the same numbers where trials run one after the
    other; with several jobs their order, and so what the sampler knew, is the machine's.

    Args:
        study: the study, or a reference to it.
        trials: finished trials that the study shall have.
        out: folder for databases and artifacts.
        storage: Optuna's database URL; None for SQLite in `out`.
        tracking: MLflow's tracking URI; None for SQLite in `out`.
        seed: of initialisation, data order, shuffles and sampler.
        jobs: processes on this machine.
        progress: show a bar with the best value so far.
        max_weights: bytes up to which the weights of complete trials are logged in MLflow.
        explain: attach the report to the study's run in MLflow, and pictures to its best trial's.
        objective: preset of the score that guides, in place of what the study names.

    Raises:
        StudyError: if the study cannot run or be resumed, or its first trials all fail.
        TrackingError: if MLflow's store cannot be used.
    """
    spec = load_study(study) if isinstance(study, str) else study
    spec = name_objective(spec, objective)
    reference = ""
    if trials < 1 or jobs < 1:
        raise StudyError(f"trials and jobs must be at least 1, got {trials} and {jobs}")
    if jobs > 1:
        reference = study if isinstance(study, str) else reference_of(spec)
    spec.check()
    folder = Path(out).resolve()
    database = storage or f"sqlite:///{folder / 'optuna.db'}"
    tracking_uri = tracking or folder_uri(folder)
    # What can fail for want of a server fails before anything is created.
    opener = functools.partial(open_storage, database)
    opened = opener() if storage else None
    reach(tracking_uri)
    if storage is None or tracking is None:
        _make_folder(folder)
    optuna_study = create_study(spec, opened or opener(), trials)
    run = open_study(
        tracking_uri,
        name=spec.name,
        study=study_uuid(optuna_study),
        settings={
            "storage": hide_password(database),
            "seed": seed,
            "jobs": jobs,
            **({} if spec.metric is None else {"metric": spec.describe_metric()}),
            **spec.describe(),
        },
        max_weights=max_weights,
    )
    _close_orphans(optuna_study, run)
    _run(spec, optuna_study, run, reference, objective, opener, trials, seed, jobs, progress)
    result = StudyResult(spec, optuna_study, run, hide_password(database), folder)
    best = result.best_trial
    finish_study(
        run,
        best_trial=None if best is None else best.number,
        best=None if best is None else TrialRun(run.uri, best.user_attrs["mlflow_run_id"]),
    )
    write_notes(optuna_study, best)
    if explain:
        wwopt.report.explain_study(run)
    return result


def _run(
    spec: StudySpec,
    study: optuna.Study,
    run: StudyRun,
    reference: str,
    objective: Preset | None,
    storage: Callable[[], optuna.storages.BaseStorage],
    trials: int,
    seed: int,
    jobs: int,
    progress: bool,
) -> None:
    finished = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    failures = sum(t.state == TrialState.FAIL for t in finished)
    worked = len(finished) > failures
    complete = [t for t in finished if t.state == TrialState.COMPLETE]
    best = min((t.values[0] for t in complete if is_feasible(t)), default=None)
    one_order = spec.second is None and not list_sizes(spec.space_at(spec.conditions))
    with tqdm(
        total=trials, initial=min(len(finished), trials), desc=spec.name, unit="trial",
        disable=not progress,
    ) as bar:  # fmt: skip

        def on_trial(trial: FinishedTrial) -> None:
            nonlocal best, failures, worked
            if trial.state == "COMPLETE" and trial.value is not None and trial.feasible:
                best = trial.value if best is None else min(best, trial.value)
            if trial.state == "FAIL":
                failures += 1
                reason = trial.error or "no reason was left"
                bar.write(f"trial {trial.number} failed: {reason}", file=sys.stderr)
            else:
                worked = True
            if best is not None:
                bar.set_postfix_str(f"{'best' if one_order else 'lowest'} {best:.4f}")
            bar.update()
            if not worked and failures >= GIVE_UP_AFTER:
                raise StudyError(
                    f"the first {failures} trials failed, the last with {trial.error}; mend the "
                    f"study and run it again"
                )

        remaining = trials - len(finished)
        if spec.second is not None and remaining > 0:
            bar.write(NO_PRUNING, file=sys.stderr)
        if jobs > 1 and remaining > 0:
            run_workers(
                reference,
                objective=objective,
                storage=storage,
                study_name=spec.name,
                tracking=run,
                seed=seed,
                jobs=jobs,
                trials=remaining,
                on_trial=on_trial,
            )
        else:
            for _ in range(remaining):
                on_trial(run_trial(spec, study, tracking=run, seed=seed))


def _close_orphans(study: optuna.Study, run: StudyRun) -> None:
    """End the MLflow runs of trials whose process died before it could."""
    closed = list(study.user_attrs.get(ORPHANS_ATTR, []))
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    found = [t.number for t in failed if "error" not in t.user_attrs and t.number not in closed]
    for number in found:
        close_orphan(run, number=number)
    if found:
        study.set_user_attr(ORPHANS_ATTR, closed + found)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StudyError(f"cannot write to --out {folder}: {error.strerror or error}") from error
