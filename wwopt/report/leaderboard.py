"""The leaderboard of a tracked study: its trials, best first, and what was chosen in each.

Everything is read from MLflow alone, so it works on a colleague's study, and on runs that wwopt did
not write as far as their metrics allow.
"""

import math
import statistics
from collections.abc import Sequence

import pandas as pd

from wwopt.tracking.hyperparameters import Setting, read_knobs
from wwopt.tracking.keys import LAYER_ALPHA, VALUE
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial

STATES = ("COMPLETE", "RUNNING", "PRUNED", "FAIL")  # in the leaderboard's order
MAIN = {"train/loss": "train_loss", "alpha/mean": "alpha", "traps/count": "trap_count"}


def find_differing(trials: Sequence[TrackedTrial]) -> dict[str, dict[str, Setting]]:
    """Run id → the knobs of that trial that are not the same in all."""
    knobs = {trial.run_id: read_knobs(trial) for trial in trials}
    names = list(dict.fromkeys(name for values in knobs.values() for name in values))
    differing = [n for n in names if len({repr(values.get(n)) for values in knobs.values()}) > 1]
    return {run: {n: v[n] for n in differing if n in v} for run, v in knobs.items()}


def order_trials(study: TrackedStudy, *, by: str = VALUE) -> list[TrackedTrial]:
    """The trials of a study, complete ones first; of these, those that violate no guard.

    Args:
        study: tracked in MLflow.
        by: metric that orders those of one state, lower first; trials without it come last.
    """

    def key(trial: TrackedTrial) -> tuple[int, bool, float, int]:
        place = STATES.index(trial.state) if trial.state in STATES else len(STATES)
        value = trial.metrics.get(by, math.nan)
        return place, bool(trial.violated), math.inf if math.isnan(value) else value, trial.number

    return sorted(study.trials, key=key)


def make_leaderboard(study: TrackedStudy, *, by: str = VALUE) -> pd.DataFrame:
    """One row a trial, in the order of `order_trials`.

    Args:
        study: tracked in MLflow.
        by: metric that orders them, lower first.

    Returns:
        Columns: trial, state, objective (or the metric), its terms that are not 0 everywhere,
        train_loss, alpha (mean), trap_count, logged validation metrics, seconds, status, then the
        hyperparameters that differ. Columns without any value are left out.

    Raises:
        ValueError: if no trial has the metric that was asked for.
    """
    known = {key for trial in study.trials for key in trial.metrics}
    if by not in known and by != VALUE:
        listed = ", ".join(sorted(k for k in known if not k.startswith(f"{LAYER_ALPHA}/")))
        raise ValueError(f"no trial of {study.name!r} has the metric {by!r}; there are {listed}")
    shown = _choose_metrics(known, by)
    settings = find_differing(study.trials)
    rows = []
    for trial in order_trials(study, by=by):
        row: dict[str, object] = {"trial": trial.number, "state": trial.state}
        row |= {column: trial.metrics.get(key, math.nan) for key, column in shown.items()}
        row |= {"seconds": trial.duration, "status": tell_status(trial)}
        rows.append(row | settings[trial.run_id])
    frame = pd.DataFrame(rows).dropna(axis="columns", how="all")
    terms = {c for k, c in shown.items() if k.startswith("objective/") and k != VALUE}
    zero = [c for c in frame if c in terms and (frame[c].fillna(0.0) == 0.0).all()]
    return frame.drop(columns=zero)


def tell_status(trial: TrackedTrial) -> str:
    """The trial's status in a phrase: "ok", what was refused, why it was pruned or failed."""
    if trial.state == "COMPLETE" and trial.violated:
        return f"violates {', '.join(trial.violated)}"
    if trial.state == "FAIL":
        return trial.tags.get("wwopt.error", "failed, without a reason left")
    return trial.status or trial.state.lower()


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether values look sampled in their logarithm: MLflow keeps values, not distributions.

    Then their median lies nearer to the middle of their range in logarithms than in plain numbers.
    """
    low, high = min(values), max(values)
    if not 0.0 < low < high:
        return False
    median = statistics.median(values)
    plain = (median - low) / (high - low)
    logarithmic = math.log(median / low) / math.log(high / low)
    return abs(logarithmic - 0.5) < abs(plain - 0.5)


def _choose_metrics(known: set[str], by: str) -> dict[str, str]:
    """Metric → column of the leaderboard."""
    shown = {VALUE: "objective"} if VALUE in known else {}
    if by != VALUE:
        shown[by] = by
    terms = sorted(key for key in known if key.startswith("objective/") and key != VALUE)
    shown |= {key: key.removeprefix("objective/") for key in terms}
    shown |= {key: column for key, column in MAIN.items() if key in known}
    others = [key for key in known if key.startswith("metrics/")]
    if VALUE not in known:  # runs that wwopt did not write: all there is
        others = [key for key in known if key not in shown]
    return shown | {key: key.removeprefix("metrics/") for key in sorted(others) if key != by}
