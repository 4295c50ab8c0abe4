"""How well the spectral scores agree with a study's own objective, trial by trial.

Whoever has a validation set learns here whether to trust a score where he has none: on his own
networks, by the trials of his own study.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wwopt.metrics.objective import PRESETS
from wwopt.report.rank_correlation import bootstrap_interval, chance_level, kendall
from wwopt.tracking.keys import SCORES
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.validation_metrics import Metric
from wwopt.wording import count, number

TRAIN_LOSS = "training loss"  # the score that everybody has, beside the presets
RESAMPLES = 2000  # of the trials, behind an interval
FEWEST = 5  # trials; of fewer no order can be told from chance

# Whether the interval of tau lies above 0 and tau beyond what chance alone would bring; below it;
# or neither.
Verdict = Literal["agrees", "disagrees", "unclear"]


@dataclass(frozen=True)
class Agreement:
    """How one score orders the trials of a study, compared with the study's own objective."""

    score: str  # preset of wwopt's, or "training loss"
    trials: int  # that have both
    chosen: int  # number of the trial that the score would have chosen
    value: float  # of that trial by the own objective
    place: int  # of that trial by the own objective; 1 is the best
    tau: float  # Kendall's, positive where the two agree; NaN where one does not vary
    low: float  # of its 95 % interval, by bootstrap over trials
    high: float
    verdict: Verdict


def compare_orders(
    scores: Mapping[str, Mapping[int, float]],
    own: Mapping[int, float],
    *,
    lower_is_better: bool,
    seed: int = 0,
) -> tuple[Agreement, ...]:
    """Compare what scores say of trials with what the study's own objective says.

    Args:
        scores: name → number of a trial → value, lower is better.
        own: number of a trial → value of the own objective.
        lower_is_better: whether the own objective is minimised.
        seed: of the resampling behind intervals.

    Returns:
        Of each score that two trials have, in their order.
    """
    found = []
    sign = 1.0 if lower_is_better else -1.0
    for score, values in scores.items():
        known = sorted(n for n in own if math.isfinite(values.get(n, math.nan)))
        known = [n for n in known if math.isfinite(own[n])]
        if len(known) < 2:
            continue
        x = np.array([values[n] for n in known])
        y = sign * np.array([own[n] for n in known])
        tau = kendall(x, y)
        low, high = bootstrap_interval(x, y, resamples=RESAMPLES, seed=seed)
        chosen = int(x.argmin())
        place = 1 + int((y < y[chosen]).sum())
        verdict: Verdict = "unclear"
        if len(known) >= FEWEST and abs(tau) > chance_level(len(known), 1):
            verdict = "agrees" if low > 0.0 else "disagrees" if high < 0.0 else "unclear"
        found.append(
            Agreement(
                score, len(known), known[chosen], own[known[chosen]], place, tau, low, high, verdict
            )
        )
    return tuple(found)


def measure_agreement(
    study: TrackedStudy, *, metric: Metric, seed: int = 0
) -> tuple[Agreement, ...]:
    """The same of a study in MLflow.

    Args:
        study: whose trials logged a metric of their own.
        metric: that is to be agreed with.
        seed: of the resampling behind intervals.
    """
    judged = study.judged
    keys = {preset: f"{SCORES}/{preset}" for preset in PRESETS} | {TRAIN_LOSS: "train/loss"}
    scores = {
        name: {t.number: t.metrics[key] for t in judged if key in t.metrics}
        for name, key in keys.items()
    }
    own = {t.number: t.metrics[metric.key] for t in judged if metric.key in t.metrics}
    return compare_orders(scores, own, lower_is_better=metric.lower_is_better, seed=seed)


def tell_agreement(found: tuple[Agreement, ...]) -> tuple[str, ...]:
    """A sentence for each score: how it would have chosen, and whether to trust it here."""
    return tuple(_tell(agreement) for agreement in found)


def _tell(a: Agreement) -> str:
    interval = f" [{a.low:+.2f}, {a.high:+.2f}]" if math.isfinite(a.low) else ""
    means = {
        "agrees": "it orders these networks as your objective does",
        "disagrees": "it orders these networks against your objective: do not trust it here",
        "unclear": "that is no evidence for it or against it",
    }
    if a.trials < FEWEST:
        means["unclear"] = f"{count(a.trials, 'trial')} are too few to tell"
    best = "the best" if a.place == 1 else f"place {a.place}"
    return (
        f"{a.score}: would have chosen trial {a.chosen}, {best} of {a.trials} by your objective "
        f"({a.value:.4g}); Kendall's tau {number(a.tau, '+.2f')}{interval}: {means[a.verdict]}."
    )
