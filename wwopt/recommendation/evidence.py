"""What is known of a study when it is asked what to do next: trials and probes, as losses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wwopt.recommendation.probes import PARTS, Kind, Probe

# Noise between seeds, of errors in log-odds and of other metrics relative, and how many pairs of
# seeds it counts as: the medians of the first four waves of studies/data_or_tune.py are .12 and
# .011, and between .1 and .13, .014 and .02 nothing that was judged there changed much.
PRIOR_NOISE, PRIOR_DEGREES = (0.13, 0.014), 1.0
LEAST_RIGHT = 0.05  # share of right answers that the noise is told from at least


@dataclass(frozen=True)
class Evidence:
    """What is known of a study, as losses (lower is better)."""

    trials: tuple[float, ...]  # values of the finished trials, in their order
    probes: Mapping[Probe, float] = field(default_factory=dict)  # infinite where one failed
    errors: bool = False  # whether values are shares of mistakes, which can fall to zero
    most: float = 1.0  # that such an error can be; 100 where it is in per cent
    validation: float | None = None  # examples behind an error; None where unknown or no error
    courses: Mapping[Probe, tuple[float, ...]] = field(default_factory=dict)  # by step

    def unchanged(self, kind: Kind, factor: float) -> tuple[float, ...]:
        """Finite values at the configuration's own learning rate; empty without such probes."""
        return self._by_rate(kind, factor).get(1.0, ())

    def points(self, kind: Kind) -> dict[float, tuple[float, ...]]:
        """Multiple of today's data, width, depth or epochs → values at the configuration's rate."""
        factors = {probe.factor for probe in self.probes if probe.kind == kind} | {1.0}
        found = {factor: self.unchanged(kind, factor) for factor in sorted(factors)}
        found = {factor: values for factor, values in found.items() if values}
        return self._follow_courses() | found if kind == "epochs" else found

    def failed(self, kind: Kind) -> bool:
        """Whether probes of a kind were run, and none gave a value."""
        values = [value for probe, value in self.probes.items() if probe.kind == kind]
        return bool(values) and not any(math.isfinite(value) for value in values)

    @property
    def rates(self) -> tuple[float, dict[float, tuple[float, ...]]]:
        """The largest share of the data at which other rates were tried, and what each gave."""
        shares = {p.factor for p in self.probes if p.kind == "data" and p.lr_factor != 1.0}
        for share in sorted(shares, reverse=True):
            rates = self._by_rate("data", share)
            if len(rates) > 1 and 1.0 in rates:
                return share, rates
        return 1.0, {}

    @property
    def best_rate(self) -> float:
        """Factor on the learning rate that is best where others were tried; 1 without."""
        means = {rate: math.fsum(v) / len(v) for rate, v in self.rates[1].items()}
        return min(sorted(means), key=lambda rate: means[rate], default=1.0)

    @property
    def now(self) -> float:
        """What the best configuration is worth when it is trained again, else its trial.

        Raises:
            ValueError: if nothing has a finite value.
        """
        again = self.unchanged("data", 1.0)
        finite = [value for value in self.trials if math.isfinite(value)]
        if not again and not finite:
            raise ValueError("no trial and no probe has a finite value: there is nothing to judge")
        return float(np.mean(again)) if again else min(finite)

    @property
    def configurations(self) -> tuple[float, ...]:
        """Values of all configurations tried: the trials, and what other rates would give.

        A rate that was tried on a part of the data counts as much better or worse on all of them.
        """
        finite = tuple(value for value in self.trials if math.isfinite(value))
        shares = sorted({probe.factor for probe in self.probes if probe.kind == "data"})
        others: dict[float, float] = {}  # rate → value, from the largest share where it was tried
        for share in shares:
            rates = self._by_rate("data", share)
            if 1.0 not in rates:
                continue
            here = float(np.mean(rates[1.0]))
            for rate, values in rates.items():
                mean = float(np.mean(values))
                others[rate] = self.now * mean / here if self.positive else self.now + mean - here
        return (*finite, *(value for rate, value in others.items() if rate != 1.0))

    @property
    def positive(self) -> bool:
        """Whether all values are: then noise and tails are relative."""
        values = [v for v in (*self.trials, *self.probes.values()) if math.isfinite(v)]
        return bool(values) and min(values) > 0.0

    @property
    def span(self) -> float:
        """What there is to gain: an error can fall to zero, a loss of text cannot.

        How far such a loss fell from the smallest share of the data says what its differences are
        worth.
        """
        now = abs(self.now)
        if self.errors:
            return now
        means = [float(np.mean(group)) for group in self.points("data").values()]
        fall = means[0] - means[-1] if len(means) > 1 else now
        return min(now, fall) if fall > 0.0 else now

    @property
    def noise(self) -> float:
        """Standard deviation between seeds: relative where all values are positive, else absolute.

        Of errors it is in log-odds, so that it is relative where they are few, and fades where
        they are nearly all. Pooled over the probes that differ by their seed alone, with a weak
        prior where relative.
        """
        squares, degrees = 0.0, 0.0
        for values in self._pairs():
            deviations = values - values.mean()
            squares += float((deviations**2).sum()) / self._unit(float(values.mean())) ** 2
            degrees += values.size - 1
        if self.positive:
            prior = PRIOR_NOISE[0 if self.errors else 1]
            squares, degrees = squares + PRIOR_DEGREES * prior**2, degrees + PRIOR_DEGREES
        return math.sqrt(squares / degrees) if degrees else math.nan

    def noise_at(self, value: float) -> float:
        """Standard deviation between seeds in the metric's units, where it has a value."""
        return self.noise * self._unit(value)

    def _unit(self, value: float) -> float:
        """What the noise is in units of."""
        if not self.positive:
            return 1.0
        return abs(value) * (max(1.0 - value / self.most, LEAST_RIGHT) if self.errors else 1.0)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the noise; with fewer than 3, Student's t has no variance."""
        return max(sum(values.size - 1 for values in self._pairs()) + PRIOR_DEGREES, 3.0)

    def _pairs(self) -> list[np.ndarray]:
        kinds = {(p.kind if p.factor != 1.0 else "data", p.factor) for p in self.probes}
        groups = [v for kind in sorted(kinds) for v in self._by_rate(*kind).values()]
        return [np.array(values) for values in groups if len(values) > 1]

    def _by_rate(self, kind: Kind, factor: float) -> dict[float, tuple[float, ...]]:
        rates: dict[float, tuple[float, ...]] = {}
        for probe, value in self.probes.items():
            here = probe.factor == factor and (probe.kind == kind or factor == 1.0)
            if here and math.isfinite(value):
                rates[probe.lr_factor] = (*rates.get(probe.lr_factor, ()), value)
        return rates

    def _follow_courses(self) -> dict[float, tuple[float, ...]]:
        """Values along the trainings on all of the data, where a shorter one ends at the same.

        A rate that falls towards the end of training makes them worse than that. So they count only
        if a training of half the epochs ended where the one of the same seed was half-way.
        """
        now = {
            probe.replicate: course
            for probe, course in self.courses.items()
            if (probe.kind, probe.factor, probe.lr_factor) == ("data", 1.0, 1.0) and course
        }
        if not now:
            return {}
        first = min(now)
        half = self.probes.get(Probe("epochs", 0.5, 1.0, first), math.nan)
        there = now[first][max(round(0.5 * len(now[first])), 1) - 1]
        if not abs(half - there) <= self.noise_at(half):
            return {}
        size = min(len(course) for course in now.values())
        steps = {round(part * size) for part in PARTS} - {0}
        found = {
            step / size: tuple(c[step - 1] for c in now.values() if math.isfinite(c[step - 1]))
            for step in sorted(steps)
        }
        return {share: values for share, values in found.items() if values}
