"""What would change a verdict: prices at which another action becomes the best one."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from wwopt.recommendation.decisions import Amounts, Decision, Prices, Verdict
from wwopt.recommendation.gains import Gains

Priced = Literal["example", "trial", "gpu_hour"]
PRICED: tuple[Priced, ...] = ("example", "trial", "gpu_hour")


@dataclass(frozen=True)
class Turn:
    """From which price on which verdict would lead.

    Without prices it is that of the leading action itself, in units of the metric: what it may cost
    more than the second before the second leads.
    """

    price: Priced | Literal["lead"]
    below: bool  # whether it holds below the value, else above it
    value: float  # money, or units of the metric
    verdict: Verdict  # that would lead


def find_turns(
    decision: Decision, gains: Gains, amounts: Amounts, prices: Prices | None
) -> tuple[Turn, ...]:
    """The nearest turns; empty where nothing is known, or no price would change the verdict."""
    known = {name: o for name, o in decision.outlooks.items() if not o.missing}
    best = decision.best
    rivals = sorted((n for n in known if n != best), key=lambda n: -known[n].net)
    if not rivals or not gains.draws:
        return ()
    if prices is None:
        lead = known[best].net - known[rivals[0]].net
        if best == "stop":  # what the second may cost before it does not pay
            gain = known[rivals[0]].gain
            second: Verdict = rivals[0]  # type: ignore[assignment]
            return (Turn("lead", True, gain, second),) if gain > 0.0 else ()
        return (Turn("lead", False, lead, rivals[0]),)  # type: ignore[arg-type]
    found = []
    for name in PRICED:
        now = getattr(prices, name)
        crossings = list(_cross(name, best, rivals, decision, amounts, prices))
        lower = max((c for c in crossings if c[0] < now), default=None)
        higher = min((c for c in crossings if c[0] > now), default=None)
        if lower is not None:
            found.append(Turn(name, True, *lower))
        if higher is not None:
            found.append(Turn(name, False, *higher))
    return tuple(found)


def _cross(
    name: Priced,
    best: Verdict,
    rivals: Iterable[str],
    decision: Decision,
    amounts: Amounts,
    prices: Prices,
) -> Iterable[tuple[float, Verdict]]:
    """Prices at which a rival's median net value meets that of the best: both fall in a line."""
    units = {action: _count(name, action, amounts) for action in (best, *rivals)}
    now = getattr(prices, name)
    for rival in rivals:
        apart = units[best] - units[rival]  # how much faster the best one's value falls
        lead = decision.outlooks[best].net - decision.outlooks[rival].net
        if math.isfinite(apart) and apart != 0.0:
            price = now + lead / apart
            if price >= 0.0:
                yield price, rival  # type: ignore[misc]


def _count(name: Priced, action: str, amounts: Amounts) -> float:
    """How many of what is priced an action takes; NaN where not known."""
    if action == "stop":
        return 0.0
    single = replace(Prices(worth=1.0), **{name: 1.0})
    try:
        return amounts.cost(action, single)  # type: ignore[arg-type]
    except ValueError:  # the number of examples or hours is not known
        return math.nan
