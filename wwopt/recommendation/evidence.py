"""What is known of a study when it is asked what to do next: trials and probes, as losses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wwopt.recommendation.probes import Kind, Probe

PRIOR_NOISE, PRIOR_DEGREES = 0.03, 1.0  # relative noise between seeds, and what it counts as


@dataclass(frozen=True)
class Evidence:
    """What is known of a study, as losses (lower is better)."""

    trials: tuple[float, ...]  # values of the finished trials, in their order
    probes: Mapping[Probe, float] = field(default_factory=dict)  # infinite where one failed
    errors: bool = False  # whether values are shares of mistakes, which can fall to zero
    validation: float | None = None  # examples behind an error; None where unknown or no error

    def unchanged(self, kind: Kind, factor: float) -> tuple[float, ...]:
        """Values at the configuration's own learning rate; empty without such probes."""
        return tuple(
            value
            for probe, value in self.probes.items()
            if _is_at(probe, kind, factor) and probe.lr_factor == 1.0
        )

    def retuned(self, kind: Kind, factor: float) -> tuple[float, ...]:
        """Values at the learning rate that is best in the mean; empty without such probes."""
        rates = self._by_rate(kind, factor)
        best = _find_lowest(rates)
        return () if best is None else rates[best]

    @property
    def best_rate(self) -> float:
        """Factor on the learning rate that is best on all of today's data; 1 without probes."""
        return _find_lowest(self._by_rate("data", 1.0)) or 1.0

    def _by_rate(self, kind: Kind, factor: float) -> dict[float, tuple[float, ...]]:
        rates: dict[float, tuple[float, ...]] = {}
        for probe, value in self.probes.items():
            if _is_at(probe, kind, factor):
                rates[probe.lr_factor] = (*rates.get(probe.lr_factor, ()), value)
        return rates

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
        """What there is to gain: an error can fall to zero, a loss of text cannot.

        How far such a loss fell from the smallest share of the data says what its differences are
        worth.
        """
        known = [v for v in self.unchanged("data", 1.0) if math.isfinite(v)]
        now = abs(float(np.mean(known or [v for v in self.configurations if math.isfinite(v)])))
        if self.errors:
            return now
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


def _find_lowest(rates: Mapping[float, tuple[float, ...]]) -> float | None:
    means = {rate: math.fsum(values) / len(values) for rate, values in rates.items()}
    return min(sorted(means), key=lambda rate: means[rate], default=None)


def _is_at(probe: Probe, kind: Kind, factor: float) -> bool:
    return probe.factor == factor and (probe.kind == kind or factor == 1.0)
