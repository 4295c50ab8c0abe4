"""Watch a study that keeps an objective of its own: spectra, alarms and MLflow, and no say in it.

Whoever has a validation set need not believe a score: it is computed beside his objective, and in
the end the report says how well the two agree on his networks (`wwopt.report.agreement`). What was
seen of a trial is one user attribute in Optuna; in MLflow its objective is the study's own, as a
loss, and the scores stand beside it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import optuna

from wwopt.metrics.objective import SpectralObjective
from wwopt.plain_data import make_plain
from wwopt.study.trial.outcomes import Outcome, hyperparameters_of
from wwopt.study.trial.trial_log import log_spectra
from wwopt.study.trial.trial_summary import summarize_layer
from wwopt.tracking import TrialRun
from wwopt.tracking.keys import ALARM_TAG, ALARMS, OWN, SCORES, VALUE
from wwopt.tracking.validation_metrics import Metric

OBSERVED_ATTR = "wwopt.observed"  # user attribute of an observed trial: all that was seen of it


def choose_watching_score(train_loss: float | None) -> SpectralObjective:
    """The score that watches: validation-free where a loss that it can read is logged."""
    reads = train_loss is not None and train_loss >= 0.0
    return SpectralObjective("validation-free" if reads else "weights-only")


def own_metric(direction: optuna.study.StudyDirection) -> Metric:
    """A study's own objective, as its report shows it."""
    return Metric(OWN, lower_is_better=direction == optuna.study.StudyDirection.MINIMIZE)


def describe_observed(study: optuna.Study | None) -> dict[str, Any]:
    """What is known of a study that is observed, as plain data for its run in MLflow."""
    if study is None or len(study.directions) > 1:
        return {"observed": True}
    return {"observed": True, "metric": dataclasses.asdict(own_metric(study.direction))}


def log_own_value(
    run: TrialRun, value: float, direction: optuna.study.StudyDirection, *, step: int
) -> None:
    """Log what a study's own objective returned: as it is, and as a loss, which orders trials."""
    metric = own_metric(direction)
    run.log({metric.key: value, VALUE: float(metric.to_loss(value))}, step=step)


def leave_observation(
    outcome: Outcome,
    trial: optuna.trial.BaseTrial | None,
    run: TrialRun | None,
    *,
    alarms: Sequence[str],
) -> None:
    """Store what was seen of a trial: in one user attribute, where it has one, and in MLflow."""
    spectra, guards = outcome.spectra, outcome.guards or {}
    if trial is not None:
        layers = () if spectra is None else spectra.layers
        seen = {
            "ending": outcome.ending,
            "status": outcome.status,
            "metrics": dict(outcome.metrics),
            "scores": dict(outcome.scores),
            "guards": dict(guards),
            "alarms": list(alarms),
            "layers": {layer.name: summarize_layer(layer) for layer in layers},
            "run": None if run is None else run.run_id,
        }
        trial.set_user_attr(OBSERVED_ATTR, make_plain(seen))
    if run is None:
        return
    if alarms:
        run.tag({ALARM_TAG: "\n".join(alarms)})
    numbers = {f"{SCORES}/{name}": value for name, value in outcome.scores.items()}
    numbers |= {f"{ALARMS}/{name}": value for name, value in guards.items()}
    run.log(numbers, step=outcome.step)
    log_spectra(
        run,
        None,  # its objective is not ours to tell
        spectra,
        ending=outcome.ending,
        status=outcome.status,
        hyperparameters={} if trial is None else hyperparameters_of(trial),
        step=outcome.analysed,
    )
