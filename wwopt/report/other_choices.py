"""How other scores would have chosen among complete trials, and how well each orders them.

The validation metrics that a study logs are shown beside the choices. No spectral score sees them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wwopt.metrics.objective import PRESETS
from wwopt.report.rank_correlation import kendall
from wwopt.tracking.keys import GUIDE_TAG, LAYER_ALPHA, SCORES, VALUE
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial
from wwopt.tracking.validation_metrics import Metric, find_validation_metrics

IDEAL_ALPHA = 2.0  # of a well trained layer (Martin & Mahoney 2021)


Loss = Callable[[TrackedTrial], float]  # what a score makes of a trial; lower is better


@dataclass(frozen=True)
class Choice:
    """What one score would have chosen."""

    score: str  # in words
    trial: TrackedTrial
    seen: bool  # whether a spectral objective could have known it; False for validation metrics
    taus: dict[str, float]  # key of a validation metric → tau, positive where the score orders it


def choose_by_scores(
    study: TrackedStudy, *, stated: Metric | str | None = None
) -> tuple[Choice, ...]:
    """The trial that each score would choose, among the complete ones that have it.

    Args:
        study: tracked in MLflow.
        stated: what its settings say of its validation metric.

    Returns:
        wwopt's objective, the training loss, spectral means, then the validation metrics whose
        direction their name tells. Scores that fewer than two trials have are left out.
    """
    judged, guide = study.judged, study.tags.get(GUIDE_TAG)
    metrics = find_validation_metrics(judged, stated=stated)
    ours: dict[str, tuple[Loss, bool]] = {"wwopt's objective": (_metric(VALUE), True)}
    scores: dict[str, tuple[Loss, bool]] = {
        **({} if study.is_observed else ours),  # its own objective is among the metrics below
        "training loss": (_metric("train/loss"), True),
        **{preset: (_metric(f"{SCORES}/{preset}"), True) for preset in PRESETS if preset != guide},
        "mean alpha": (_metric("alpha/mean"), True),
        f"mean |alpha - {IDEAL_ALPHA:g}|": (_distance, True),
        "mean Hill estimate": (_metric("alpha/hill"), True),
    }
    for metric in metrics:
        how = "lowest" if metric.lower_is_better else "highest"
        scores[f"{how} {metric.name}"] = (_loss(metric), False)
    found = []
    for words, (score, seen) in scores.items():
        values = np.array([score(trial) for trial in judged])
        known = np.isfinite(values)
        if known.sum() < 2:
            continue
        taus = {
            metric.key: kendall(values[known & there], column[known & there])
            for metric in metrics
            for column in [np.array([_loss(metric)(trial) for trial in judged])]
            for there in [np.isfinite(column)]
        }
        chosen = judged[int(np.nanargmin(np.where(known, values, np.nan)))]
        found.append(Choice(words, chosen, seen, taus))
    return tuple(found)


def _metric(key: str) -> Loss:
    return lambda trial: trial.metrics.get(key, math.nan)


def _loss(metric: Metric) -> Loss:
    return lambda trial: float(metric.to_loss(trial.metrics.get(metric.key, math.nan)))


def _distance(trial: TrackedTrial) -> float:
    """Mean distance of the counted layers' alphas from the ideal."""
    alphas = [v for k, v in trial.metrics.items() if k.startswith(f"{LAYER_ALPHA}/")]
    known = [abs(alpha - IDEAL_ALPHA) for alpha in alphas if math.isfinite(alpha)]
    return math.fsum(known) / len(known) if known else math.nan
