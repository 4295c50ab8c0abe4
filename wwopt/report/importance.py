"""Which hyperparameter of which layer moved the objective, and whose alpha it moved.

Two answers from the complete trials: Optuna's importance (PED-ANOVA: how far the values that the
best trials have of a hyperparameter differ from those of all trials), and Kendall's rank
correlation tau, which has a sign and, by resampling trials, an interval. In a tied study the
hyperparameters are its knots or blocks. Both see what the sampler tried, which is no experiment: a
sampler that homes in on good values leaves little variation to learn from.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wwopt.report.leaderboard import find_differing, is_logarithmic
from wwopt.report.rank_correlation import Floats, bootstrap_interval, chance_level, kendall
from wwopt.tracking.hyperparameters import Setting
from wwopt.tracking.keys import LAYER_ALPHA
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial

if TYPE_CHECKING:
    import optuna

OBJECTIVE = "objective"
RESAMPLES = 300  # of the trials, for an interval
TOLD = 12  # correlations with alpha that get an interval: the largest
FEW = 0.4  # level of chance from which on the trials are called few
MIN_TRIALS = 5  # complete; with fewer, no correlation means anything


@dataclass(frozen=True)
class Correlation:
    """Kendall's tau between a hyperparameter and the objective or a layer's alpha."""

    hyperparameter: str
    target: str  # "objective", or the layer whose alpha it is
    tau: float  # tau-b, in [-1, 1]
    low: float  # of the 95 % bootstrap interval; NaN where none was computed
    high: float
    beyond_chance: bool  # larger than the largest of as many unrelated pairs would be


@dataclass(frozen=True)
class Importance:
    """What the trials say about the hyperparameters."""

    trials: int  # complete
    shares: Mapping[str, float]  # hyperparameter → Optuna's importance, sum 1, largest first
    objective: tuple[Correlation, ...]  # with the objective, strongest first
    alphas: tuple[Correlation, ...]  # with the layers' alphas, the strongest
    pairs: int  # of a hyperparameter and a layer that were looked at
    chance: float  # |tau| that the largest of the unrelated hyperparameters stays below, in 95 %
    chance_pairs: float  # the same for the pairs
    warnings: tuple[str, ...]


def explain_importance(
    study: TrackedStudy, *, seed: int = 0, resamples: int = RESAMPLES
) -> Importance:
    """Ask which hyperparameters mattered.

    Args:
        study: tracked in MLflow.
        seed: of the resampling.
        resamples: of the trials, for the intervals.
    """
    complete = sorted(study.judged, key=lambda trial: trial.number)
    settings = list(find_differing(complete).values())
    names = list(dict.fromkeys(name for values in settings for name in values))
    if len(complete) < MIN_TRIALS or not names:
        reason = (
            f"{len(complete)} complete trials with an objective are too few to ask which "
            f"hyperparameter mattered: at least {MIN_TRIALS}"
            if len(complete) < MIN_TRIALS
            else "no hyperparameter differs among the complete trials"
        )
        return Importance(len(complete), {}, (), (), 0, math.nan, math.nan, (reason,))
    numeric = [n for n in names if all(isinstance(s.get(n), float | None) for s in settings)]
    columns = {n: np.array([_number(s.get(n)) for s in settings]) for n in numeric}
    columns = {n: values for n, values in columns.items() if np.isfinite(values).sum() > 2}
    value = np.array([trial.value for trial in complete])
    alphas = _read_alphas(complete)
    chance, chance_pairs = (
        chance_level(len(complete), count) for count in (len(columns), len(columns) * len(alphas))
    )
    drawn = {"resamples": resamples, "seed": seed}
    objective = [
        _correlate(name, OBJECTIVE, x, value, chance, drawn) for name, x in columns.items()
    ]
    pairs = [
        _correlate(name, layer, x, alpha, chance_pairs, None)
        for name, x in columns.items()
        for layer, alpha in alphas.items()
    ]
    strongest = sorted((p for p in pairs if math.isfinite(p.tau)), key=_strength)[:TOLD]
    return Importance(
        trials=len(complete),
        shares=_ask_optuna(complete, settings),
        objective=tuple(sorted((c for c in objective if math.isfinite(c.tau)), key=_strength)),
        alphas=tuple(
            _correlate(
                p.hyperparameter,
                p.target,
                columns[p.hyperparameter],
                alphas[p.target],
                chance_pairs,
                drawn,
            )
            for p in strongest
        ),
        pairs=len(pairs),
        chance=chance,
        chance_pairs=chance_pairs,
        warnings=tuple(_warn(len(complete), names, numeric, chance)),
    )


def _correlate(
    name: str, target: str, x: Floats, y: Floats, chance: float, drawn: Mapping[str, int] | None
) -> Correlation:
    known = np.isfinite(x) & np.isfinite(y)
    tau = kendall(x[known], y[known])
    low = high = math.nan
    if drawn is not None and math.isfinite(tau):
        low, high = bootstrap_interval(x[known], y[known], **drawn)
    return Correlation(name, target, tau, low, high, abs(tau) > chance)


def _ask_optuna(
    trials: Sequence[TrackedTrial], settings: Sequence[Mapping[str, Setting]]
) -> dict[str, float]:
    """Optuna's importance, from a study rebuilt in memory."""
    import optuna

    columns: dict[str, list[Setting]] = {}
    for values in settings:
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    distributions = {name: _guess_distribution(values) for name, values in columns.items()}
    distributions = {name: d for name, d in distributions.items() if not d.single()}
    rebuilt = _create_quietly()
    for trial, values in zip(trials, settings, strict=True):
        known = {name: value for name, value in values.items() if name in distributions}
        rebuilt.add_trial(
            optuna.trial.create_trial(
                value=trial.value,
                params=known,
                distributions={name: distributions[name] for name in known},
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            shares = optuna.importance.get_param_importances(rebuilt)
        except (ValueError, RuntimeError):  # no parameter in common, or no variation
            return {}
    return {name: share for name, share in shares.items() if math.isfinite(share)}


def _create_quietly() -> "optuna.Study":
    """A study in memory, without Optuna's line that it was created."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study()
    finally:
        optuna.logging.set_verbosity(level)


def _guess_distribution(values: Sequence[Setting]) -> "optuna.distributions.BaseDistribution":
    """The distribution that values may have come from: MLflow keeps values, not ranges."""
    import optuna

    numbers = [value for value in values if isinstance(value, float)]
    if len(numbers) < len(values):
        return optuna.distributions.CategoricalDistribution(sorted(set(values), key=str))
    log = is_logarithmic(numbers)
    return optuna.distributions.FloatDistribution(min(numbers), max(numbers), log=log)


def _read_alphas(trials: Sequence[TrackedTrial]) -> dict[str, Floats]:
    """Layer → its alpha in every trial, NaN where it has none; layers that never vary left out."""
    prefix = f"{LAYER_ALPHA}/"
    keys = dict.fromkeys(key for t in trials for key in t.metrics if key.startswith(prefix))
    found = {
        key.removeprefix(prefix): np.array([t.metrics.get(key, math.nan) for t in trials])
        for key in keys
    }
    return {name: alpha for name, alpha in found.items() if np.isfinite(alpha).sum() > 2}


def _warn(trials: int, names: Sequence[str], numeric: Sequence[str], chance: float) -> list[str]:
    told = []
    if chance > FEW:
        told.append(
            f"{trials} complete trials are few for {len(names)} hyperparameters: correlations up "
            f"to {chance:.2f} come by chance, and importances with them"
        )
    left = [name for name in names if name not in numeric]
    if left:
        told.append(f"no rank correlation for what is no number: {', '.join(left)}")
    return told


def _strength(correlation: Correlation) -> float:
    return -abs(correlation.tau)


def _number(value: Setting | None) -> float:
    return value if isinstance(value, float) else math.nan
