"""What gains are measured in: a validation metric or the score, of trials and of probes."""

import math
from collections.abc import Iterable

from wwopt.recommendation.probes import ProbeResult
from wwopt.study.errors import StudyError
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial
from wwopt.tracking.validation_metrics import Metric, find_validation_metrics, guess_metric

# The study's objective, where there is no validation metric.
SCORE = Metric("score", lower_is_better=True)


def choose_measure(
    study: TrackedStudy, wanted: str | Metric | None, *, stated: str | Metric | None
) -> Metric:
    """The validation metric that counts, `SCORE` where none was logged.

    Args:
        study: tracked in MLflow.
        wanted: by the one who asks: a name, or all that there is to say of it.
        stated: by the study; counts where nothing else is wanted, and says what a name means.

    Raises:
        StudyError: if it was not logged, nothing tells which way it is better, or several were
            logged and none is wanted.
    """
    if not study.judged:
        return SCORE  # no trial, no metric; `find_best` says so
    counts = stated if wanted is None else wanted
    said = wanted if isinstance(wanted, Metric) else stated
    known = {metric.name: metric for metric in find_validation_metrics(study.judged, stated=said)}
    if counts is not None:
        name = counts if isinstance(counts, str) else counts.name
        if name not in known:
            listed = ", ".join(known) or "none"
            raise StudyError(
                f"study {study.name!r} logged no metric {name!r} whose name tells whether lower "
                f"is better; it has {listed}"
            )
        return known[name]
    if len(known) > 1:
        raise StudyError(
            f"study {study.name!r} logged {', '.join(known)}: say which one counts with --metric"
        )
    return next(iter(known.values()), SCORE)


def guess_again(metric: Metric, study: TrackedStudy, results: Iterable[ProbeResult]) -> Metric:
    """A metric that was guessed from the trials, with what probes showed of its range."""
    values = [value_of_trial(trial, metric) for trial in study.judged]
    values += [value_of_probe(result, metric) for result in results]
    return guess_metric(metric.name, values) or metric


def find_best(study: TrackedStudy, metric: Metric) -> TrackedTrial:
    """The complete trial that is best by a metric, or by `SCORE`.

    Raises:
        StudyError: if no trial is complete.
    """
    sound = [trial for trial in study.judged if not trial.violated]
    judged = [trial for trial in sound if math.isfinite(value_of_trial(trial, metric))]
    if not judged:
        states = ", ".join(sorted({trial.state.lower() for trial in study.trials})) or "none"
        named = "a score" if metric == SCORE else metric.name
        raise StudyError(
            f"study {study.name!r} has no complete trial that violates no guard and has "
            f"{named} (trials: {states}); run `wwopt tune` first"
        )
    return min(judged, key=lambda trial: metric.to_loss(value_of_trial(trial, metric)))


def value_of_trial(trial: TrackedTrial, metric: Metric) -> float:
    """Infinite for a trial that was not trained to its end, NaN where it logged none."""
    if trial.state != "COMPLETE":
        return math.inf
    return trial.value if metric == SCORE else trial.metrics.get(metric.key, math.nan)


def value_of_probe(result: ProbeResult, metric: Metric) -> float:
    """Infinite for a probe that failed, NaN where it logged none."""
    if result.status != "ok":
        return math.inf
    return result.score if metric == SCORE else result.metrics.get(metric.name, math.nan)


def to_loss(value: float, metric: Metric) -> float:
    """A value as a loss; infinite where there is none."""
    return float(metric.to_loss(value)) if math.isfinite(value) else math.inf
