"""A history's checks one after another, as somebody would have run them each week.

Whoever runs `wwopt check --history` compares with the week before, and `wwopt watch` with the last
week that passed. They part where something was called broken or drifted: if somebody looks and
accepts it they go on alike, and if nobody does, it is no part of the past.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.retrainings.histories import History
from harness.retrainings.training import WEEKS
from wwopt.gate.checks import GateResult
from wwopt.gate.history import Drift, PastCheck, find_drift, values_of
from wwopt.weights.tensor_names import bare_name

ACCEPTED, CHECK, WATCH = "accepted", "check", "watch"
FindDrift = Callable[[GateResult, Sequence[PastCheck]], Sequence[Drift]]


@dataclass(frozen=True)
class Checked:
    """One week's check."""

    week: int
    past: int  # checks that it was compared with
    broken: tuple[str, ...]  # layers, by the gate
    drifts: tuple[Drift, ...]

    @property
    def drifted(self) -> bool:
        """Whether drift alone is the alarm."""
        return bool(self.drifts) and not self.broken


def replay(
    history: History, then: str, *, first: int = 1, find: FindDrift = find_drift
) -> list[Checked]:
    """Check a history week by week.

    Args:
        history: trained.
        then: what follows from an alarm: ACCEPTED, or nothing, as CHECK or WATCH does it.
        first: week from which that holds; before it everything is accepted.
        find: the rule of drift.
    """
    checks, past, last = [], [], 0
    for week in range(1, WEEKS + 1):
        result = history.compare(last, week)
        drifts = tuple(find(result, past))
        checks.append(Checked(week, len(past), tuple(result.broken), drifts))
        passed = then == ACCEPTED or week < first or not (result.broken or drifts)
        if passed:
            layers = {bare_name(layer.name): values_of(layer) for layer in result.layers}
            past.append(PastCheck("", True, layers))
        if passed or then == CHECK:
            last = week
    return checks
