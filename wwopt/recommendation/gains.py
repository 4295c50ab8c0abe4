"""What each action would bring: draws of its gain, from a study's trials and from probes.

    data    twice today's data, from the learning curve over parts of it
    tune    more trials, from the lower tail of the trials so far
    bigger  twice the width (or depth), from a probe that was trained so
    longer  twice the epochs, from a probe that was trained so

Each action changes one thing. Values are losses here: lower is better, a gain is a fall. Everything
is compared with the best configuration as it is when retrained, not with the value of its trial,
which was chosen for being low. Another learning rate is tuning, and so is no part of the others'
gains; but the course of the learning curve is taken at the best rate of each share of the data.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wwopt.recommendation.evidence import PRIOR_DEGREES, Evidence
from wwopt.recommendation.learning_curves import LearningCurve, fit_learning_curve
from wwopt.recommendation.probes import STEP, Kind
from wwopt.recommendation.tuning_curves import MIN_TRIALS, draw_tuning_gain

Array = NDArray[np.float64]
Action = Literal["data", "tune", "bigger", "longer"]
ACTIONS: tuple[Action, ...] = get_args(Action)

DATA_FACTOR = 2.0  # the doubling that gains are told for
# Priors of gains, mean and standard deviation in units of the span: of twice the width or epochs,
# of a better learning rate. Wide, and chosen for the verdicts on the design situations of
# studies/data_or_tune.py, whose own gains of a step have a mean of .1 and spread less.
STEP_PRIOR = (0.1, 0.5)
RATE_PRIOR = (0.0, 0.6)
CHOICE = 0.5  # standard deviations of one training by which what is kept may be worse or better
DRAWS = 4000
NO_NOISE = "no two probes that differ by their seed alone tell the noise"


@dataclass(frozen=True)
class Gains:
    """Draws of what each action brings, and why some are missing."""

    draws: Mapping[Action, Array]  # action → (DRAWS,)
    missing: Mapping[Action, str]  # action → what is not known
    now: float  # the best configuration's value as it is, lower is better
    noise: float  # of one training by its seed, in the metric's units
    curve: LearningCurve | None
    unprobed: tuple[Action, ...] = ()  # those of `missing` that nobody has looked at


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
    draws: dict[Action, Array] = {}
    missing: dict[Action, str] = {}
    noise = evidence.noise
    values = tuple(v for v in evidence.unchanged("data", 1.0) if math.isfinite(v))
    finite = [v for v in evidence.configurations if math.isfinite(v)]
    if not values and not finite:
        raise ValueError("no trial and no probe has a finite value: there is nothing to judge")
    now = float(np.mean(values)) if values else min(finite)
    unit = abs(now) if evidence.positive else 1.0
    now_error = unit * noise / math.sqrt(max(len(values), 1))
    now_draws = now + now_error * rng.standard_t(_degrees(evidence), size=DRAWS)
    curve = _fit(evidence, noise, missing, seed)
    if curve is not None and not curve.ill_behaved:
        draws["data"] = _draw_data(evidence, curve, now, noise, seed)
    elif curve is not None:
        missing["data"] = f"the learning curve is not to be extrapolated: {curve.ill_behaved}"
    steps: tuple[tuple[Action, tuple[Kind, ...]], ...] = (
        ("bigger", ("width", "depth")),
        ("longer", ("epochs",)),
    )
    for action, kinds in steps:
        found = [evidence.unchanged(kind, STEP) for kind in kinds]
        known = [v for v in found if v and math.isfinite(float(np.mean(v)))]
        if not known:
            failed = any(found)
            what = " or ".join(kinds)
            missing[action] = f"the probes of {what} failed" if failed else f"no probe of {what}"
            continue
        if not values:
            missing[action] = "the best configuration was not trained again by a probe"
            continue
        if math.isnan(noise):
            missing[action] = NO_NOISE
            continue
        after = min(known, key=lambda v: float(np.mean(v)))
        draws[action] = _weigh(evidence, values, after, prior=STEP_PRIOR, noise=noise, rng=rng)
    if len(finite) < MIN_TRIALS:
        missing["tune"] = f"{len(finite)} finished trials; {MIN_TRIALS} are needed"
    elif math.isnan(noise):
        missing["tune"] = NO_NOISE
    else:
        draws["tune"] = draw_tuning_gain(
            finite,
            more_trials,
            noise=noise,
            now=now_draws,
            reached=_reach(evidence, now_draws, values, noise, rng),
            relative=evidence.positive,
            span=evidence.span / unit,
            draws=DRAWS,
            seed=seed,
        )
        # The one that is kept is chosen on the same validation data, by a few trainings.
        risk = CHOICE * math.hypot(unit * noise, _sampling(evidence, now, now))
        draws["tune"] = draws["tune"] + risk * rng.standard_normal(DRAWS)
    looked = {
        "data": len({probe.factor for probe in evidence.probes if probe.kind == "data"}) > 2,
        "longer": any(probe.kind == "epochs" for probe in evidence.probes),
        "tune": len(evidence.configurations) >= MIN_TRIALS,
    }
    unprobed = tuple(a for a in ACTIONS if a in missing and not looked.get(a, True))
    return Gains(draws, missing, now, unit * noise, curve, unprobed)


def _weigh(
    evidence: Evidence,
    before: Sequence[float],
    after: Sequence[float],
    *,
    prior: tuple[float, float],
    noise: float,
    rng: np.random.Generator,
) -> Array:
    """Draws of a gain from two groups of trainings, drawn towards what such gains usually are.

    Args:
        evidence: behind them.
        before: values as it is.
        after: values with the change.
        prior: mean and standard deviation of such gains, in units of the evidence's span; of
            scores nothing is known, and only the data speak.
        noise: between seeds, relative where all values are positive.
        rng: of the draws.
    """
    now, then = float(np.mean(before)), float(np.mean(after))
    unit = abs(now) if evidence.positive else 1.0
    error = unit * noise * math.sqrt(1.0 / len(before) + 1.0 / len(after))
    error = math.hypot(error, _sampling(evidence, now, then))
    mean = now - then
    if evidence.positive:
        usual, spread = (evidence.span * value for value in prior)
        trust = spread**2 / (spread**2 + error**2)
        mean, error = trust * mean + (1.0 - trust) * usual, math.sqrt(trust) * error
    drawn: Array = mean + error * rng.standard_t(_degrees(evidence), size=DRAWS)
    return drawn


def _reach(
    evidence: Evidence,
    now: Array,
    as_is: Sequence[float],
    noise: float,
    rng: np.random.Generator,
) -> Array:
    """What probes of other learning rates have reached already, as draws."""
    best = evidence.shares.get(1.0)
    if not best or not as_is or best == as_is:
        return now
    gain = _weigh(evidence, as_is, best, prior=RATE_PRIOR, noise=noise, rng=rng)
    return now - np.maximum(gain, 0.0)


def _fit(
    evidence: Evidence, noise: float, missing: dict[Action, str], seed: int
) -> LearningCurve | None:
    shares = evidence.shares
    if len(shares) < 3:
        missing["data"] = f"probes at {len(shares)} shares of the data; 3 are needed"
        return None
    if math.isnan(noise):
        missing["data"] = NO_NOISE
        return None
    return _fit_curve(evidence, shares, noise, seed)


def _fit_curve(
    evidence: Evidence, shares: Mapping[float, Sequence[float]], noise: float, seed: int
) -> LearningCurve:
    return fit_learning_curve(
        shares,
        noise=noise,
        relative=evidence.positive,
        validation=evidence.validation,
        draws=DRAWS,
        seed=seed,
    )


def _draw_data(
    evidence: Evidence, curve: LearningCurve, now: float, noise: float, seed: int
) -> Array:
    """Draws of the gain of more data, half of them from each of two curves that err oppositely.

    At the best learning rate of each share, scaled to today's configuration: more data mend a rate
    that is too low, so this misses some of the gain. At the configuration's own rate: what is too
    low today is far too low for small shares, so this exaggerates it.
    """
    best = evidence.shares.get(1.0)
    handicap = now / float(np.mean(best)) if best and evidence.positive else 1.0
    gains = handicap * curve.gain(DATA_FACTOR)
    own = {share: evidence.unchanged("data", share) for share in evidence.shares}
    if own == evidence.shares or not all(
        values and math.isfinite(float(np.mean(values))) for values in own.values()
    ):
        return gains
    steep = _fit_curve(evidence, own, noise, seed)
    if steep.ill_behaved:
        return gains
    gains[::2] = steep.gain(DATA_FACTOR)[::2]
    return gains


def _degrees(evidence: Evidence) -> float:
    """Degrees of freedom of the noise: one for each further seed at a best learning rate."""
    kinds = {(probe.kind, probe.factor) for probe in evidence.probes}
    further = sum(max(len(evidence.retuned(*kind)) - 1, 0) for kind in kinds)
    # With fewer than three the t distribution has no variance, or no mean.
    return max(further + PRIOR_DEGREES, 3.0)


def _sampling(evidence: Evidence, before: float, after: float) -> float:
    """Standard error of a difference of two errors by the choice of the validation examples.

    Two networks disagree on some share of the examples; half of the smaller error is usual.
    """
    if evidence.validation is None:
        return 0.0
    disagree = 0.5 * min(before, after) + abs(before - after)
    return math.sqrt(max(disagree, 0.0) / evidence.validation)
