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
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wwopt.learning_curves import LearningCurve, fit_learning_curve
from wwopt.probes import STEP, Kind, Probe
from wwopt.tuning_curves import MIN_TRIALS, draw_tuning_gain

Array = NDArray[np.float64]
Action = Literal["data", "tune", "bigger", "longer"]
ACTIONS: tuple[Action, ...] = get_args(Action)

DATA_FACTOR = 2.0  # the doubling that gains are told for
PRIOR_NOISE, PRIOR_DEGREES = 0.03, 1.0  # relative noise between seeds, and what it counts as
# Mean and standard deviation of gains in units of the span, from the scenarios of the design
# half of studies/data_or_tune.py: of twice the width or epochs, of a better learning rate.
STEP_PRIOR = (0.1, 0.2)
RATE_PRIOR = (0.0, 0.6)
CHOICE = 0.5  # standard deviations of one training by which what is kept may be worse or better
DRAWS = 4000
NO_NOISE = "no two probes that differ by their seed alone tell the noise"


@dataclass(frozen=True)
class Evidence:
    """What is known of a study, as losses (lower is better)."""

    trials: tuple[float, ...]  # values of the finished trials, in their order
    probes: Mapping[Probe, float] = field(default_factory=dict)  # infinite where one failed
    validation: int | None = None  # examples behind an error; None where unknown or no error

    def unchanged(self, kind: Kind, factor: float) -> tuple[float, ...]:
        """Values at the configuration's own learning rate; empty without such probes."""
        return tuple(
            value
            for probe, value in self.probes.items()
            if _is_at(probe, kind, factor) and probe.lr_factor == 1.0
        )

    def retuned(self, kind: Kind, factor: float) -> tuple[float, ...]:
        """Values at the learning rate that is best in the mean; empty without such probes."""
        rates: dict[float, list[float]] = {}
        for probe, value in self.probes.items():
            if _is_at(probe, kind, factor):
                rates.setdefault(probe.lr_factor, []).append(value)
        means = {rate: math.fsum(values) / len(values) for rate, values in rates.items()}
        best = min(sorted(means), key=lambda rate: means[rate], default=None)
        return () if best is None else tuple(rates[best])

    @property
    def configurations(self) -> tuple[float, ...]:
        """Values of all configurations tried: the trials, and what probes show of other rates."""
        others: dict[float, list[float]] = {}
        for probe, value in self.probes.items():
            if probe.kind == "data" and probe.factor == 1.0 and probe.lr_factor != 1.0:
                others.setdefault(probe.lr_factor, []).append(value)
        return (*self.trials, *(float(np.mean(values)) for values in others.values()))

    @property
    def shares(self) -> dict[float, tuple[float, ...]]:
        """Share of today's data → values at its best learning rate, as far as finite."""
        factors = {probe.factor for probe in self.probes if probe.kind == "data"}
        found = {factor: self.retuned("data", factor) for factor in sorted(factors)}
        return {factor: v for factor, v in found.items() if v and math.isfinite(float(np.mean(v)))}

    @property
    def span(self) -> float:
        """What there is to gain: today's metric, but at most what the first data brought.

        An error can fall to zero; a loss of text cannot, and how far it fell from the smallest
        share of the data says what its differences are worth.
        """
        values = self.unchanged("data", 1.0) or self.trials
        now = abs(float(np.mean([v for v in values if math.isfinite(v)])))
        means = [float(np.mean(group)) for group in self.shares.values()]
        fall = means[0] - means[-1] if len(means) > 1 else now
        return min(now, fall) if fall > 0.0 else now

    @property
    def positive(self) -> bool:
        """Whether all values are: then noise and tails are relative."""
        values = [v for v in (*self.trials, *self.probes.values()) if math.isfinite(v)]
        return bool(values) and min(values) > 0.0

    @property
    def noise(self) -> float:
        """Standard deviation between seeds, relative where all values are positive.

        Pooled over the probes at their best learning rates, with a weak prior where relative.
        """
        kinds = {(probe.kind, probe.factor) for probe in self.probes}
        squares, degrees = 0.0, 0.0
        for kind, factor in kinds:
            values = np.array(self.retuned(kind, factor))
            if values.size < 2 or not np.isfinite(values).all():
                continue
            deviations = values - values.mean()
            squares += float((deviations**2).sum()) / (values.mean() ** 2 if self.positive else 1.0)
            degrees += values.size - 1
        if self.positive:
            squares, degrees = squares + PRIOR_DEGREES * PRIOR_NOISE**2, degrees + PRIOR_DEGREES
        return math.sqrt(squares / degrees) if degrees else math.nan


def _is_at(probe: Probe, kind: Kind, factor: float) -> bool:
    return probe.factor == factor and (probe.kind == kind or factor == 1.0)


@dataclass(frozen=True)
class Gains:
    """Draws of what each action brings, and why some are missing."""

    draws: Mapping[Action, Array]  # action → (DRAWS,)
    missing: Mapping[Action, str]  # action → what is not known
    now: float  # the best configuration's value as it is, lower is better
    noise: float  # of one training by its seed, in the metric's units
    curve: LearningCurve | None


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
        # A rate that is wrong for today's data is taken to be as wrong for more.
        best = evidence.shares.get(1.0)
        handicap = now / float(np.mean(best)) if best and evidence.positive else 1.0
        draws["data"] = handicap * curve.gain(DATA_FACTOR)
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
    return Gains(draws, missing, now, unit * noise, curve)


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
    return fit_learning_curve(
        shares, noise=noise, relative=evidence.positive, draws=DRAWS, seed=seed
    )


def _degrees(evidence: Evidence) -> float:
    """Degrees of freedom of the noise: one for each further seed at a best learning rate."""
    kinds = {(probe.kind, probe.factor) for probe in evidence.probes}
    further = sum(max(len(evidence.retuned(*kind)) - 1, 0) for kind in kinds)
    return max(further + PRIOR_DEGREES, 1.0)


def _sampling(evidence: Evidence, before: float, after: float) -> float:
    """Standard error of a difference of two errors by the choice of the validation examples.

    Two networks disagree on some share of the examples; half of the smaller error is usual.
    """
    if evidence.validation is None:
        return 0.0
    disagree = 0.5 * min(before, after) + abs(before - after)
    return math.sqrt(max(disagree, 0.0) / evidence.validation)
