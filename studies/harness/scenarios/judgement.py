"""What `recommend` says of a scenario, under several prices, against what each action brought.

An action's true gain is a difference of test metrics, each the mean of six networks. Whoever acts
keeps what was there where validation data say that it was better. The noise is the standard
deviation of one network by its seed, pooled over the scenario's actions: a verdict whose net value
is within the noise of the best action's counts as right.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.scenarios.records import MORE_TRIALS, Lived, value_of
from harness.scenarios.situations import count_validation
from wwopt.recommendation.decisions import RETUNED, Amounts, Decision, Prices, decide
from wwopt.recommendation.evidence import Evidence
from wwopt.recommendation.gains import Gains, estimate_gains
from wwopt.recommendation.probes import SEEDS, ProbeResult

ACTIONS = ("data", "tune", "bigger", "longer", "stop")
# Costs in units of today's metric: of twice the data, and of all further trials. A step in width or
# epochs takes half as many trainings. None compares doublings without prices.
REGIMES: dict[str, tuple[float, float] | None] = {
    "no prices": None,
    "labels dear": (0.3, 0.02),
    "compute dear": (0.12, 0.2),
    "all dear": (0.3, 0.1),
}


@dataclass(frozen=True)
class Case:
    """One scenario under one set of prices."""

    scenario: str
    regime: str
    judged: bool  # kept out of the design
    true: Mapping[str, float]  # action → net value, in units of today's metric
    noise: float  # of one network, in the same units
    decision: Decision
    curve_alone: str  # what the learning curve by itself would have said

    def regret(self, action: str) -> float:
        """Net value lost against the best action, in units of today's metric."""
        return max(self.true.values()) - self.true[action]

    def is_right(self, action: str) -> bool:
        """Whether the action is the best, or within the noise of it."""
        return self.regret(action) <= self.noise


def gather_evidence(lived: Lived) -> Evidence:
    """What is known when the question is asked."""
    metric = f"validation_{lived.scenario.metric}"
    return Evidence(
        tuple(value_of(trial, metric) for trial in lived.trials[: lived.scenario.trials]),
        {result.probe: value_of(result, metric) for result in lived.probes},
        errors=lived.scenario.metric == "error",
        validation=count_validation(lived.scenario) if lived.scenario.metric == "error" else None,
    )


def measure_truth(lived: Lived) -> tuple[dict[str, float], float, float]:
    """Each action's gain on test data, the noise of one network, today's test metric."""
    test, validation = (f"{part}_{lived.scenario.metric}" for part in ("test", "validation"))
    now = np.array([value_of(result, test) for result in lived.true["now"]])
    kept = _mean(lived.true["now"], validation)
    gains = dict.fromkeys(ACTIONS, 0.0)
    groups = [now]
    for action in ("data", "bigger", "longer"):
        groups.append(np.array([value_of(result, test) for result in lived.true[action]]))
        # Data that were bought are used; of models the better one is kept.
        if action == "data" or _mean(lived.true[action], validation) <= kept:
            gains[action] = float(now.mean() - groups[-1].mean())
    for results in lived.tuned:
        groups.append(np.array([value_of(result, test) for result in results]))
        if _mean(results, validation) < kept:
            kept = _mean(results, validation)
            gains["tune"] = float(now.mean() - groups[-1].mean())
    noise = math.sqrt(np.mean([np.var(group, ddof=1) for group in groups]))
    return gains, noise, float(now.mean())


def judge(lived: Lived, gains: Gains, *, enough: float) -> list[Case]:
    """The cases of a scenario, one for each set of prices."""
    true, noise, now = measure_truth(lived)
    cases = []
    for regime, costs in REGIMES.items():
        prices, amounts = _price(costs, gains.now, lived)
        decision = decide(gains, amounts, prices, enough=enough)
        paid = _costs(costs)
        nets = {action: true[action] / now - paid[action] for action in ACTIONS}
        cases.append(
            Case(
                lived.scenario.name,
                regime,
                lived.scenario.judged,
                nets,
                noise / now,
                decision,
                _follow_curve(decision),
            )
        )
    return cases


def outlook(lived: Lived, *, seed: int = 0) -> Gains:
    """What is predicted of each action."""
    return estimate_gains(gather_evidence(lived), more_trials=MORE_TRIALS, seed=seed)


def _price(
    costs: tuple[float, float] | None, now: float, lived: Lived
) -> tuple[Prices | None, Amounts]:
    """Prices under which the actions cost the wanted shares of today's metric."""
    examples = lived.scenario.examples
    if costs is None:
        return None, Amounts(examples, MORE_TRIALS, 0.0)
    data, tune = (cost * now for cost in costs)
    trial = tune / MORE_TRIALS
    prices = Prices(worth=1.0, example=max(data - RETUNED * trial, 0.0) / examples, trial=trial)
    return prices, Amounts(examples, MORE_TRIALS, 0.0)


def _costs(costs: tuple[float, float] | None) -> dict[str, float]:
    if costs is None:
        return dict.fromkeys(ACTIONS, 0.0)
    data, tune = costs
    step = RETUNED * tune / MORE_TRIALS
    return {"data": max(data, step), "tune": tune, "bigger": step, "longer": step, "stop": 0.0}


def _follow_curve(decision: Decision) -> str:
    """Buy data where the learning curve says that it pays, else tune on."""
    return "data" if decision.outlooks["data"].net > 0.0 else "tune"


def _mean(results: Sequence[ProbeResult], metric: str) -> float:
    """What those who choose see: as many trainings as a probe has."""
    return float(np.mean([value_of(result, metric) for result in results[:SEEDS]]))
