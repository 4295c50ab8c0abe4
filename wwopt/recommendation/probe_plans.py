"""Which probes are to be run within a budget, what was paid already, and what more would cost."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wwopt.recommendation.decisions import Prices
from wwopt.recommendation.probes import (
    TRAININGS,
    Kind,
    Probe,
    ProbeResult,
    need_probes,
    plan_probes,
)


@dataclass(frozen=True)
class ProbePlan:
    """Probes that were not run yet, and what they would cost."""

    probes: tuple[Probe, ...]
    trainings: float  # as many trainings of the best configuration take as long
    seconds: float  # at the best trial's own duration; NaN where that is not known
    reason: str  # what they would settle; "" where nothing is missing
    total: float = TRAININGS  # `--trainings` that would run them


@dataclass(frozen=True)
class Paid:
    """What probes have cost so far."""

    probes: int
    trainings: float
    seconds: float


@dataclass(frozen=True)
class Question:
    """What probes may be about: all that a plan depends on."""

    kinds: tuple[Kind, ...]
    epochs: int  # of the study
    trials: int  # finished ones
    seconds: float  # of one training of the best configuration; NaN where not known


@dataclass(frozen=True)
class Budget:
    """What all probes may cost."""

    trainings: float = TRAININGS  # all of them, those that were run before among them
    seconds: float = math.inf  # of those that are run now

    def __post_init__(self) -> None:
        for name, value in (("trainings", self.trainings), ("minutes", self.seconds / 60.0)):
            if not value > 0.0:
                raise ValueError(f"{name} must be positive, got {value:g}")


def read_budget(
    trainings: float | None,
    minutes: float | None,
    spend: float | None,
    *,
    prices: Prices | None,
) -> Budget | None:
    """The budget that was given, None where none was; of several the smallest counts.

    Raises:
        ValueError: if one is not positive, or money is to be spent and a GPU hour has no price.
    """
    if trainings is None and minutes is None and spend is None:
        return None
    for name, value in (("trainings", trainings), ("minutes", minutes), ("spend", spend)):
        if value is not None and not (value > 0.0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, got {value:g}")
    seconds = math.inf if minutes is None else 60.0 * minutes
    if spend is not None:
        if prices is None or not prices.gpu_hour:
            raise ValueError("to spend money on probes, say what a GPU hour costs: price_gpu_hour")
        seconds = min(seconds, 3600.0 * spend / prices.gpu_hour)
    most = trainings if trainings is not None else math.inf
    return Budget(most, seconds)


def list_missing(
    question: Question, results: Mapping[Probe, ProbeResult], budget: Budget
) -> tuple[Probe, ...]:
    """Probes within a budget that were not run, or raised; the order is that of their worth."""
    paid = math.fsum(probe.cost for probe, result in results.items() if not result.raised)
    affordable = budget.trainings
    if math.isfinite(budget.seconds):
        if math.isnan(question.seconds):
            raise ValueError("how long a training takes is not known: give the budget in trainings")
        affordable = min(affordable, paid + budget.seconds / max(question.seconds, 1e-9))
    planned = plan_probes(
        question.kinds, trainings=affordable, epochs=question.epochs, trials=question.trials
    )
    missing = []
    left = affordable - paid  # which other probes may have used up, as those of wwopt 0.2
    for probe in planned:
        if (probe not in results or results[probe].raised) and probe.cost <= left + 1e-9:
            missing.append(probe)
            left -= probe.cost
    return tuple(missing)


def check_budget(question: Question, results: Mapping[Probe, ProbeResult], budget: Budget) -> None:
    """Refuse, before anything is trained, a budget that is too small for any verdict.

    Raises:
        ValueError: that says what it would take.
    """
    needed = need_probes(question.kinds, epochs=question.epochs, trials=question.trials)
    least = sum(probe.cost for probe in needed)
    left = sum(probe.cost for probe in needed if probe not in results)
    runs = f"{len(needed)} probes, {least:.3g} full trainings"
    if budget.trainings < least - 1e-9:
        raise ValueError(
            f"{budget.trainings:g} trainings are too few for any verdict: it takes {runs}"
        )
    if left and budget.seconds < left * question.seconds:
        raise ValueError(
            f"{budget.seconds / 60.0:.3g} minutes are too few for any verdict: it takes {runs}, "
            f"of which {left:.3g} are left, about {left * question.seconds / 60.0:.2g} minutes"
        )


def plan_missing(
    question: Question,
    results: Mapping[Probe, ProbeResult],
    *,
    budget: Budget | None = None,
) -> ProbePlan:
    """What was not run of a budget; of the usual one, and else of as much again."""
    total = TRAININGS if budget is None else budget.trainings
    missing = list_missing(question, results, budget or Budget())
    if not missing and budget is None:
        total = TRAININGS + math.ceil(math.fsum(probe.cost for probe in results))
        missing = list_missing(question, results, Budget(total))
    trainings = sum(probe.cost for probe in missing)
    return ProbePlan(
        missing, trainings, trainings * question.seconds, _say_reason(question, results), total
    )


def sum_paid(results: Iterable[ProbeResult]) -> Paid:
    """What probes have cost."""
    known = list(results)
    seconds = math.fsum(r.seconds for r in known if math.isfinite(r.seconds))
    return Paid(len(known), math.fsum(r.probe.cost for r in known), seconds)


def _say_reason(question: Question, results: Mapping[Probe, ProbeResult]) -> str:
    if results:
        return "how sure all gains are"
    about = ["longer training", *(["a bigger model"] if len(question.kinds) > 2 else [])]
    return f"what more data, {' and '.join(about)} would bring, and the noise between seeds"
