"""After a study with an objective of its own: how well the spectral scores agreed with it.

While a trial runs nobody knows what its objective will return. Optuna knows it in the end, so it is
read there, and written into the trials' runs in MLflow, whose report then says the same.
"""

import math
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

import wwopt.report
from wwopt.report.agreement import TRAIN_LOSS, Agreement, compare_orders, tell_agreement
from wwopt.study.errors import StudyError
from wwopt.study.identity import study_uuid
from wwopt.study.trial.observing import OBSERVED_ATTR, describe_observed, log_own_value
from wwopt.tracking import TrialRun, finish_study, open_study, read_study
from wwopt.tracking.keys import VALUE


@dataclass(frozen=True)
class JudgedScores:
    """How each score would have chosen, and how it agrees; printed, it says so in words."""

    study: str  # name
    scores: tuple[Agreement, ...]
    alarms: dict[int, tuple[str, ...]]  # number of a trial → what went wrong in it

    def __str__(self) -> str:
        lines = [f"Study {self.study}, whose objective is its own:"]
        lines += [f"  {told}" for told in tell_agreement(self.scores)]
        lines += [f"  trial {n}: {'; '.join(words)}" for n, words in self.alarms.items()]
        return "\n".join(lines)


def judge_scores(
    study: optuna.Study, *, tracking: str | None = None, explain: bool = True, seed: int = 0
) -> JudgedScores:
    """Judge the scores by the objective that a study has of its own, after it.

    Args:
        study: Optuna's, whose trials were observed (`record(trial, observe=True)` or `observe`).
        tracking: MLflow's tracking URI, as they had it: each trial's run is told its value, and the
            study's run gets the report. None to write nothing.
        explain: attach the report.
        seed: of the resampling behind intervals.

    Raises:
        StudyError: if fewer than two complete trials were observed, or it has several objectives.
        TrackingError: if MLflow's store cannot be used.
    """
    if len(study.directions) > 1:
        raise StudyError(
            f"study {study.study_name!r} has {len(study.directions)} objectives: a score agrees "
            f"with one; compare it with each by what `study.trials` hold in {OBSERVED_ATTR!r}"
        )
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    seen = [trial for trial in complete if OBSERVED_ATTR in trial.user_attrs]
    if len(seen) < 2:
        raise StudyError(
            f"study {study.study_name!r} has {len(complete)} complete trials, of which {len(seen)} "
            f"were observed; two are needed: open each with wwopt.record(trial, observe=True)"
        )
    scores: dict[str, dict[int, float]] = {}
    for trial in seen:
        for name, value in trial.user_attrs[OBSERVED_ATTR]["scores"].items():
            scores.setdefault(name, {})[trial.number] = math.nan if value is None else value
    own = {trial.number: trial.values[0] for trial in seen}
    minimised = study.direction == optuna.study.StudyDirection.MINIMIZE
    ours_first = dict(sorted(scores.items(), key=lambda pair: pair[0] == TRAIN_LOSS))
    found = compare_orders(ours_first, own, lower_is_better=minimised, seed=seed)
    alarms = {
        trial.number: tuple(trial.user_attrs[OBSERVED_ATTR]["alarms"])
        for trial in study.get_trials(deepcopy=False)
        if trial.user_attrs.get(OBSERVED_ATTR, {}).get("alarms")
    }
    if tracking is not None:
        _leave_values(study, seen, tracking, explain=explain)
    return JudgedScores(study.study_name, found, alarms)


def _leave_values(
    study: optuna.Study, seen: list[optuna.trial.FrozenTrial], uri: str, *, explain: bool
) -> None:
    settings = describe_observed(study)
    run = open_study(uri, name=study.study_name, study=study_uuid(study), settings=settings)
    tracked = {trial.run_id: trial for trial in read_study(uri, run_id=run.run_id).trials}
    for trial in seen:
        known = tracked.get(trial.user_attrs[OBSERVED_ATTR]["run"])
        if known is not None and VALUE not in known.metrics:
            log_own_value(TrialRun(uri, known.run_id), trial.values[0], study.direction, step=0)
    sign = 1.0 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1.0
    first = min(seen, key=lambda trial: (sign * trial.values[0], trial.number))
    best = tracked.get(first.user_attrs[OBSERVED_ATTR]["run"])
    finish_study(
        run,
        best_trial=None if best is None else best.number,
        best=None if best is None else TrialRun(uri, best.run_id),
    )
    if explain:
        wwopt.report.explain_study(run)
