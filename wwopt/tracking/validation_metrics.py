"""The validation metrics of a study: which way each is better, what it can reach, what it counts.

A study may state its metric (`wwopt.Metric`). Of one that it only names, and of the metrics of
other people's runs, the name and the logged values tell as much as they do.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from wwopt.tracking.keys import safe_key
from wwopt.tracking.tracked_trials import TrackedTrial

LOWER = re.compile(r"loss|error|err\b|perplexity|ppl|mae|mse|rmse|nll|brier|regret")
HIGHER = re.compile(r"acc|f1|auc|precision|recall|score|bleu|rouge|map\b|iou|dice|r2|correct")
RIGHT_OR_WRONG = re.compile(r"acc|err|correct")  # a share of examples, where it has a bound
GROUP = "metrics/"  # before a metric's name, in MLflow


@dataclass(frozen=True)
class Metric:
    """A validation metric, and what its numbers mean; wwopt's objectives never see it."""

    name: str  # as in `recorder.step(model, name=...)`
    _: KW_ONLY
    lower_is_better: bool
    top: float = 0.0  # the largest value there can be: 1 of a share, 100 of per cent; 0: no bound
    is_share: bool = False  # of examples that are right, or wrong, and so binomial; up to `top`

    def __post_init__(self) -> None:
        if not (math.isfinite(self.top) and self.top >= 0.0):
            raise ValueError(f"metric {self.name!r}: top must be 0 or positive, got {self.top}")
        if self.is_share and self.top == 0.0:
            raise ValueError(
                f"metric {self.name!r} is a share of examples: its top must be 1, or 100 for per "
                f"cent"
            )

    @property
    def key(self) -> str:
        """Its name in MLflow."""
        return safe_key(GROUP + self.name)

    @property
    def better(self) -> str:
        """Which way: "lower" or "higher"."""
        return "lower" if self.lower_is_better else "higher"

    @property
    def counts_errors(self) -> bool:
        """Whether its loss is what is missing to a bound, or a share of mistakes."""
        return self.is_share or (not self.lower_is_better and self.top > 0.0)

    def to_loss(self, value: Any) -> Any:
        """A value, or an array, as a loss, lower is better: what is missing to the top."""
        return value if self.lower_is_better else self.top - value

    def to_metric(self, loss: Any) -> Any:
        """The inverse of `to_loss`."""
        return loss if self.lower_is_better else self.top - loss


def read_metric(settings: Mapping[str, Any]) -> Metric | str | None:
    """The metric that a study's settings state, or only name; None where they do neither.

    Args:
        settings: as `wwopt.tracking.read_settings` reads them.
    """
    stated = settings.get("metric")
    return Metric(**stated) if isinstance(stated, Mapping) else stated


def guess_metric(name: str, values: Iterable[float]) -> Metric | None:
    """What a metric's name and values tell of it; None where the name tells no direction.

    Args:
        name: without the group.
        values: seen so far; those up to 1 look like shares, those up to 100 like per cent.
    """
    word = name.lower()
    lower = LOWER.search(word) is not None
    if not lower and HIGHER.search(word) is None:
        return None
    highest = max((value for value in values if math.isfinite(value)), default=0.0)
    top = 1.0 if highest <= 1.0 else 100.0 if highest <= 100.0 else 0.0
    # A loss between 0 and 1 is no share, and an error beyond 1 may be a distance.
    counts = ("err" in word and top == 1.0) if lower else top > 0.0
    is_share = counts and RIGHT_OR_WRONG.search(word) is not None
    return Metric(name, lower_is_better=lower, top=top, is_share=is_share)


def find_validation_metrics(
    trials: Sequence[TrackedTrial], *, stated: Metric | str | None = None
) -> tuple[Metric, ...]:
    """The validation metrics that trials logged, by name.

    Args:
        trials: of one study.
        stated: what the study says of one of them, where it says more than its name; the others
            are guessed, and left out where their name tells no direction.
    """
    keys = sorted({k for t in trials for k in t.metrics if k.startswith(GROUP)})
    known = []
    for key in keys:
        name = key.removeprefix(GROUP)
        if isinstance(stated, Metric) and stated.key == key:
            known.append(stated)
            continue
        metric = guess_metric(name, (trial.metrics.get(key, math.nan) for trial in trials))
        if metric is not None:
            known.append(metric)
    return tuple(known)
