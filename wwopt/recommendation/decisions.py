"""From draws of gains and from prices to a verdict, which is silent where the evidence is thin.

An action's net value is what its gain is worth less what it costs; to stop is worth nothing and
costs nothing. The verdict is the action with the highest median net value (draws have heavy tails,
for curves that do not behave, and those shall not decide), if with enough probability no other
action beats it by more than the noise of one training. Otherwise, and where no probe has
looked at more data or longer training, it is a probe.

Without prices the gains of doublings are compared: of the data, the trials, the width, the epochs.
A gain below the noise of one training then counts as none: another seed would bring as much.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wwopt.recommendation.gains import ACTIONS, DATA_FACTOR, Action, Gains
from wwopt.recommendation.probes import STEP

Array = NDArray[np.float64]
Verdict = Literal["data", "tune", "bigger", "longer", "stop", "probe"]

# Probability of being right, within the noise, from which a verdict is given: of the situations of
# studies/data_or_tune.py a seventh is silent at it; beyond it hardly more of the others are right.
ENOUGH = 0.63
INTERVAL = (0.1, 0.9)  # quantiles of the gains' intervals
RETUNED = 6  # trainings of an action that retunes the learning rate: three rates, two seeds each


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What things cost, and what the metric is worth, in one currency.

    Raises:
        ValueError: if a price is negative or not finite, or nothing says what a gain is worth.
    """

    worth: float  # of one unit of the metric: of 100 points of accuracy, of one nat of loss
    example: float = 0.0  # of one labelled example
    trial: float = 0.0  # of one trial, beside its GPU hours
    gpu_hour: float = 0.0

    def __post_init__(self) -> None:
        for name in ("worth", "example", "trial", "gpu_hour"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0.0:
                raise ValueError(f"the price of {name} must be finite and not negative: {value}")
        if self.worth == 0.0:
            raise ValueError("prices need worth: what one unit of the metric is worth to you")


@dataclass(frozen=True)
class Amounts:
    """How much each action takes."""

    examples: int | None  # today's training examples; None where unknown
    more_trials: int
    hours: float  # of one training of the best configuration; NaN where unknown

    def cost(self, action: Action, prices: Prices) -> float:
        """Money that the action takes.

        Raises:
            ValueError: if examples or hours have a price and their number is not known.
        """
        if prices.gpu_hour and math.isnan(self.hours):
            raise ValueError("GPU hours have a price, and how long a training takes is not known")
        hour = prices.gpu_hour * self.hours if prices.gpu_hour else 0.0
        if action == "tune":
            return self.more_trials * (prices.trial + hour)
        if action == "data":
            if prices.example and self.examples is None:
                raise ValueError(
                    "examples have a price, so say how many training examples there are today"
                )
            new = (DATA_FACTOR - 1.0) * (self.examples or 0)
            return new * prices.example + RETUNED * (prices.trial + DATA_FACTOR * hour)
        size = STEP**2 if action == "bigger" else STEP
        return RETUNED * (prices.trial + size * hour)


@dataclass(frozen=True)
class ActionOutlook:
    """What is expected of one action."""

    gain: float  # median, in units of the metric
    low: float  # 10 % quantile
    high: float  # 90 % quantile
    cost: float | None  # money; None without prices
    net: float  # median net value: money, or without prices units of the metric
    probability: float  # of being the best of all, stopping among them
    missing: str = ""  # why nothing is known; then the numbers are NaN


@dataclass(frozen=True)
class Decision:
    """The verdict, and what it rests on."""

    verdict: Verdict
    best: Verdict  # what the verdict would be, were the evidence enough
    confidence: float  # probability that nothing beats `best` by more than the noise
    outlooks: Mapping[str, ActionOutlook]  # by action, "stop" among them
    doubtful: Action | None  # what a probe should look at, where the verdict is "probe"


def decide(
    gains: Gains,
    amounts: Amounts,
    prices: Prices | None = None,
    *,
    enough: float = ENOUGH,
    validated: bool = True,
) -> Decision:
    """Weigh the actions.

    Args:
        gains: draws of each.
        amounts: how much each takes.
        prices: None to compare doublings.
        enough: confidence from which a verdict is given.
        validated: whether gains are in units of a validation metric. Without one there is no
            verdict: see docs/recommendation.md.
    """
    worth = 1.0 if prices is None else prices.worth
    costs: dict[str, float] = {
        action: gains.noise if prices is None else amounts.cost(action, prices)
        for action in gains.draws
    }
    size = len(next(iter(gains.draws.values()))) if gains.draws else 1
    nets: dict[str, Array] = {
        action: worth * draws - costs[action] for action, draws in gains.draws.items()
    }
    nets["stop"] = np.zeros(size)
    names = list(nets)
    table = np.stack([nets[name] for name in names])
    highest = table.argmax(axis=0)
    medians = np.median(table, axis=1)
    chosen = int(medians.argmax())
    right = float((table[chosen] >= table.max(axis=0) - worth * gains.noise).mean())
    outlooks = {
        name: _outlook(
            gains.draws.get(name),  # type: ignore[call-overload]
            cost=None if prices is None else costs.get(name, 0.0),
            net=float(medians[index]),
            probability=float((highest == index).mean()),
        )
        for index, name in enumerate(names)
    }
    for action, why in gains.missing.items():
        outlooks[action] = ActionOutlook(*(math.nan,) * 3, None, math.nan, math.nan, why)
    best: Verdict = names[chosen]  # type: ignore[assignment]
    # What nobody has looked at may be the best of all.
    speaks = bool(gains.draws) and right >= enough and not gains.unprobed and validated
    return Decision(
        best if speaks else "probe",
        best,
        right,
        outlooks,
        None if speaks else _find_doubt(gains, nets, chosen=names[chosen]),
    )


def _outlook(
    draws: Array | None, *, cost: float | None, net: float, probability: float
) -> ActionOutlook:
    if draws is None:
        return ActionOutlook(0.0, 0.0, 0.0, cost, net, probability)
    low, high = np.quantile(draws, INTERVAL)
    return ActionOutlook(float(np.median(draws)), float(low), float(high), cost, net, probability)


def _find_doubt(gains: Gains, nets: Mapping[str, Array], *, chosen: str) -> Action | None:
    """The action whose uncertainty hides most: what is missing, else the widest regret.

    That a bigger model is not known is no doubt: not every study can change its model's size.
    """
    unknown = [action for action in ACTIONS if action in gains.missing and action != "bigger"]
    if unknown:
        return unknown[0]
    regrets = {
        action: float(np.maximum(nets[action] - nets[chosen], 0.0).mean())
        for action in gains.draws
        if action != chosen
    }
    worst = max(regrets, key=lambda action: regrets[action], default=None)
    return worst if worst is not None and regrets[worst] > 0.0 else None
