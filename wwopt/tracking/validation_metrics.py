"""Which metrics of a study are validation metrics, and which way each of them is better."""

import re
from collections.abc import Sequence

from wwopt.tracking.tracked_trials import TrackedTrial

LOWER = re.compile(r"loss|error|err\b|perplexity|ppl|mae|mse|rmse|nll|brier|regret")
HIGHER = re.compile(r"acc|f1|auc|precision|recall|score|bleu|rouge|map\b|iou|dice|r2|correct")


def find_validation_metrics(trials: Sequence[TrackedTrial]) -> dict[str, float]:
    """Logged metric → +1 where lower is better, -1 where higher is, by its name.

    Metrics whose name tells no direction are left out.
    """
    names = dict.fromkeys(k for t in trials for k in t.metrics if k.startswith("metrics/"))
    signs = {}
    for name in sorted(names):
        if LOWER.search(name.lower()):
            signs[name] = 1.0
        elif HIGHER.search(name.lower().removeprefix("metrics/")):
            signs[name] = -1.0
    return signs
