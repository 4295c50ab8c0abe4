"""What may come of more data, size, epochs and trials, as percentiles: the fans of a picture."""

import math
from typing import Any

import numpy as np

from wwopt.recommendation.gains import Action
from wwopt.recommendation.recommendation import Recommendation

BAND = (10, 50, 90)  # percentiles of a fan
FAR = 4.0  # of today's, as far as the forecast reaches


def fan_of_curve(r: Recommendation, action: Action) -> tuple[Any, Any] | None:
    """Multiples of today's (49,), and percentiles of the metric there (3, 49); None without.

    Args:
        r: the recommendation.
        action: "data", "bigger" or "longer".
    """
    curve = r.gains.curves.get(action)
    if curve is None or curve.ill_behaved:
        return None
    shares = np.geomspace(float(curve.shares.min()), FAR * float(curve.shares.max()), 49)
    return shares, np.percentile(r.measure.to_metric(curve.predict(shares)), BAND, axis=0)


def best_so_far(r: Recommendation) -> tuple[Any, Any]:
    """Places (n,) of the trials that gave a value, counted from 1, and the best until each."""
    known = [(i + 1, v) for i, v in enumerate(r.trials) if math.isfinite(v)]
    places = np.array([place for place, _ in known])
    return places, r.measure.to_metric(np.minimum.accumulate([v for _, v in known] or [math.nan]))


def fan_of_trials(r: Recommendation) -> Any | None:
    """Percentiles (3,) of the metric after the further trials; None without."""
    draws = r.gains.draws.get("tune")
    return None if draws is None else np.percentile(r.measure.to_metric(r.gains.now - draws), BAND)
