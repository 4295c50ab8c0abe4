"""What each action would bring: draws of its gain, from a study's trials and from probes.

    data    twice today's data, from trainings on parts of it
    tune    more trials, from the lower tail of the trials so far, and from other learning rates
    bigger  twice the width (or depth), from parts of it
    longer  twice the epochs, from fewer of them

Each action changes one thing. Values are losses here: lower is better, a gain is a fall. Everything
is compared with the best configuration as it is when retrained, not with the value of its trial,
which was chosen for being low. Another learning rate is tuning, and so is no part of the others'
gains. Of two models the better one is kept, so that no gain but that of data is negative.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wwopt.recommendation.evidence import Evidence
from wwopt.recommendation.learning_curves import LearningCurve, Trend, fit_learning_curve
from wwopt.recommendation.probes import MIN_TRIALS, STEP, Kind, find_size
from wwopt.recommendation.tuning_curves import draw_tuning_gain

Array = NDArray[np.float64]
Action = Literal["data", "tune", "bigger", "longer"]
ACTIONS: tuple[Action, ...] = get_args(Action)

DATA_FACTOR = 2.0  # the doubling that gains are told for
# Errors fall by .4 in log-odds with each doubling of the data, as a power law of exponent .6, and
# come back to that; a loss goes on nearly as it did; what size brings ebbs away sooner than what
# epochs bring. Chosen for the scores (CRPS), the coverage and the verdicts of all waves of
# studies/data_or_tune.py, which leave much of it open.
DATA_OF_ERRORS = Trend(damping=0.3, spread=0.25, usual=0.4)
DATA_OF_LOSSES = Trend(damping=0.9, spread=0.4)
BIGGER = Trend(damping=0.6, spread=0.45)
LONGER = Trend(damping=0.7, spread=0.35)
# Prior of what a better learning rate gains: mean, standard deviation in units of the span.
RATE_PRIOR = (0.0, 0.6)
CHOICE = 0.75  # standard deviations of one training by which what is kept may be worse or better
DRAWS = 4000
NO_NOISE = "no two probes that differ by their seed alone tell the noise"


@dataclass(frozen=True)
class Gains:
    """Draws of what each action brings, and why some are missing."""

    draws: Mapping[Action, Array]  # action → (DRAWS,)
    missing: Mapping[Action, str]  # action → what is not known
    now: float  # the best configuration's value as it is, lower is better
    noise: float  # of one training by its seed, in the metric's units
    curves: Mapping[Action, LearningCurve] = field(default_factory=dict)  # of data, size, epochs
    unprobed: tuple[Action, ...] = ()  # those of `missing` that nobody has looked at

    @property
    def curve(self) -> LearningCurve | None:
        """The learning curve of the data."""
        return self.curves.get("data")


def estimate_gains(evidence: Evidence, *, more_trials: int, seed: int = 0) -> Gains:
    """Draw the gain of every action that the evidence allows to judge.

    Args:
        evidence: trials and probes.
        more_trials: of the action "tune".
        seed: of the draws.

    Raises:
        ValueError: if no trial and no probe has a finite value.
    """
    rng = np.random.default_rng([seed, 1])
    noise, now = evidence.noise, evidence.now
    draws: dict[Action, Array] = {}
    missing: dict[Action, str] = {}
    curves: dict[Action, LearningCurve] = {}
    size = find_size([probe.kind for probe in evidence.probes])
    axes: tuple[tuple[Action, Kind | None], ...] = (
        ("data", "data"),
        ("bigger", size),
        ("longer", "epochs"),
    )
    for action, kind in axes:
        points = {} if kind is None else evidence.points(kind)
        what = "width or depth" if kind is None else kind
        if kind is not None and evidence.failed(kind):
            missing[action] = f"the probes of {what} failed"
        elif len(points) < (3 if action == "data" else 2):
            few = f"probes at {len(points)} shares of the data; 3 are needed"
            missing[action] = few if action == "data" else f"no probe of {what}"
        elif math.isnan(noise):
            missing[action] = NO_NOISE
        else:
            curve = curves[action] = fit_learning_curve(
                points,
                noise=noise,
                relative=evidence.positive,
                most=evidence.most if evidence.errors else math.inf,
                trend=_choose_trend(action, errors=evidence.errors),
                validation=evidence.validation,
                draws=DRAWS,
                seed=seed + ACTIONS.index(action),
            )
            gain = curve.gain(STEP)
            draws[action] = gain if action == "data" else np.maximum(gain, 0.0)
            if curve.ill_behaved and action == "data":
                del draws[action]
                missing[action] = f"its curve is not to be extrapolated: {curve.ill_behaved}"
    if len(evidence.configurations) < MIN_TRIALS:
        missing["tune"] = f"{len(evidence.configurations)} finished trials; {MIN_TRIALS} are needed"
    elif math.isnan(noise):
        missing["tune"] = NO_NOISE
    else:
        draws["tune"] = _draw_tuning(evidence, more_trials, rng, seed)
    looked = {
        "data": len({probe.factor for probe in evidence.probes if probe.kind == "data"}) > 2,
        "longer": any(probe.kind == "epochs" for probe in evidence.probes),
        "tune": len(evidence.configurations) >= MIN_TRIALS,
    }
    unprobed = tuple(a for a in ACTIONS if a in missing and not looked.get(a, True))
    return Gains(draws, missing, now, evidence.noise_at(now), curves, unprobed)


def _choose_trend(action: Action, *, errors: bool) -> Trend:
    if action == "data":
        return DATA_OF_ERRORS if errors else DATA_OF_LOSSES
    return BIGGER if action == "bigger" else LONGER


def _draw_tuning(
    evidence: Evidence, more_trials: int, rng: np.random.Generator, seed: int
) -> Array:
    now = evidence.now
    noise, unit = evidence.noise_at(now), abs(now) if evidence.positive else 1.0
    error = noise / math.sqrt(max(len(evidence.unchanged("data", 1.0)), 1))
    worth = now + error * rng.standard_t(evidence.degrees, size=DRAWS)
    gain = draw_tuning_gain(
        evidence.configurations,
        more_trials,
        noise=noise / unit,
        now=worth,
        reached=worth - np.maximum(_draw_rate_gain(evidence, rng), 0.0),
        relative=evidence.positive,
        span=evidence.span / unit,
        draws=DRAWS,
        seed=seed,
    )
    # The one that is kept is chosen on the same validation data, by a few trainings.
    risk = CHOICE * math.hypot(noise, _sampling(evidence, now))
    return gain + risk * rng.standard_normal(DRAWS)


def _draw_rate_gain(evidence: Evidence, rng: np.random.Generator) -> Array:
    """Draws of what the best other learning rate gains, drawn towards what such gains usually are.

    Of what it gained on a part of the data, where training is shorter and a higher rate helps more,
    it keeps from nothing to all.
    """
    share, rates = evidence.rates
    best = rates.get(evidence.best_rate, ())
    as_is = rates.get(1.0, ())
    if not best or best == as_is:
        return np.zeros(DRAWS)
    before, after = float(np.mean(as_is)), float(np.mean(best))
    ratio = evidence.now / before if evidence.positive else 1.0
    error = evidence.noise_at(evidence.now) * math.sqrt(1.0 / len(as_is) + 1.0 / len(best))
    mean = (before - after) * ratio
    if evidence.positive:
        usual, spread = (evidence.span * value for value in RATE_PRIOR)
        trust = spread**2 / (spread**2 + error**2)
        mean, error = trust * mean + (1.0 - trust) * usual, math.sqrt(trust) * error
    drawn: Array = mean + error * rng.standard_t(evidence.degrees, size=DRAWS)
    return drawn if share == 1.0 else drawn * rng.uniform(size=DRAWS)


def _sampling(evidence: Evidence, value: float) -> float:
    """Standard error of a difference of two errors by the choice of the validation examples.

    Two networks disagree on some share of the examples; half of the smaller error is usual.
    """
    if evidence.validation is None:
        return 0.0
    return math.sqrt(max(0.5 * value, 0.0) / evidence.validation)
