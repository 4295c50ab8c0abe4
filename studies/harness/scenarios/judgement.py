"""What `recommend` says of a scenario, under several prices, against what each action brought.

An action's true gain is a difference of test metrics, each the mean of six networks. Whoever acts
keeps what was there where validation data say that it was better. The noise is the standard
deviation of one network by its seed, pooled over the scenario's actions: a verdict whose net value
is within the noise of the best action's counts as right.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.scenarios.records import MORE_TRIALS, Lived, value_of
from harness.scenarios.situations import Wave, count_validation
from wwopt.recommendation.decisions import ENOUGH, RETUNED, Amounts, Decision, Prices, decide
from wwopt.recommendation.evidence import Evidence
from wwopt.recommendation.gains import Gains, estimate_gains
from wwopt.recommendation.probes import (
    TRAININGS,
    Kind,
    Probe,
    ProbeResult,
    extend_probes,
    need_probes,
    rank_probes,
)

Asks = Callable[[Mapping[Probe, ProbeResult]], tuple[Gains, Decision]]
KINDS: tuple[Kind, ...] = ("data", "epochs", "width")
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
    wave: Wave
    true: Mapping[str, float]  # action → net value, in units of today's metric
    noise: float  # of one network, in the same units
    decision: Decision
    curve_alone: str  # what the learning curve by itself would have said
    gains: Gains
    price: float  # full trainings that the probes took as long as

    def regret(self, action: str) -> float:
        """Net value lost against the best action, in units of today's metric."""
        return max(self.true.values()) - self.true[action]

    def is_right(self, action: str) -> bool:
        """Whether the action is the best, or within the noise of it."""
        return self.regret(action) <= self.noise


def choose_probes(
    lived: Lived,
    trainings: float,
    stands: Callable[[Mapping[Probe, ProbeResult]], bool] | None = None,
) -> dict[Probe, ProbeResult]:
    """What `wwopt recommend --trainings …` would have run; given `stands`, what `--probe` would."""
    scenario, metric = lived.scenario, f"validation_{lived.scenario.metric}"
    there = {r.probe: r for results in lived.true.values() for r in results}
    there |= {result.probe: result for result in (*lived.probes, *lived.cheap)}
    asked = {"epochs": scenario.epochs, "trials": scenario.trials}
    needed = need_probes(KINDS, **asked)
    found: dict[Probe, ProbeResult] = {}

    def run(planned: Iterable[Probe], *, stops: bool = False) -> int:
        before = len(found)
        for probe in planned:
            fits = sum(p.cost for p in found) + probe.cost <= trainings + 1e-9
            if probe in there and probe not in found and fits:
                if stops and stands is not None and stands(found):
                    break
                found[probe] = there[probe]
        return len(found) - before

    run(needed)
    while run(extend_probes({p: value_of(r, metric) for p, r in found.items()})):
        pass
    known = all(probe in found or probe not in there for probe in needed)
    run(rank_probes(KINDS, **asked), stops=known)
    return found


def gather_evidence(
    lived: Lived, probes: Mapping[Probe, ProbeResult], *, score: bool = False
) -> Evidence:
    """What is known when the question is asked; in units of the score, as without validation."""
    scenario, metric = lived.scenario, f"validation_{lived.scenario.metric}"
    errors = scenario.metric == "error" and not score

    def loss(result: ProbeResult) -> float:
        if not score:
            return value_of(result, metric)
        return result.score if math.isfinite(result.score) else math.inf

    return Evidence(
        tuple(loss(trial) for trial in lived.trials[: scenario.trials]),
        {probe: loss(result) for probe, result in probes.items()},
        errors=errors,
        validation=count_validation(scenario) if errors else None,
        courses={} if score else {p: r.course.get(metric, ()) for p, r in probes.items()},
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


def judge(
    lived: Lived, *, trainings: float | None = None, enough: float = ENOUGH, score: bool = False
) -> list[Case]:
    """The cases of a scenario, one for each set of prices; by the score there are none.

    Args:
        lived: the situation.
        trainings: that are spent in full; None for as many as the verdict takes, at most 5.
        enough: confidence from which it speaks.
        score: whether the score stands for the validation metric.
    """
    true, noise, now = measure_truth(lived)
    known: dict[frozenset[Probe], Gains] = {}
    cases = []
    for regime, costs in REGIMES.items():
        if score and costs is not None:
            continue

        def ask(
            probes: Mapping[Probe, ProbeResult], costs: tuple[float, float] | None = costs
        ) -> tuple[Gains, Decision]:
            asked = frozenset(probes)
            if asked not in known:
                evidence = gather_evidence(lived, probes, score=score)
                known[asked] = estimate_gains(evidence, more_trials=MORE_TRIALS)
            prices, amounts = _price(costs, known[asked].now, lived)
            return known[asked], decide(known[asked], amounts, prices, enough=enough)

        def stands(found: Mapping[Probe, ProbeResult], ask: Asks = ask) -> bool:
            return ask(found)[1].verdict != "probe"

        if trainings is None:
            probes = choose_probes(lived, TRAININGS, stands)
        else:
            probes = choose_probes(lived, trainings)
        gains, decision = ask(probes)
        paid = _costs(costs)
        nets = {action: true[action] / now - paid[action] for action in ACTIONS}
        cases.append(
            Case(
                lived.scenario.name,
                regime,
                lived.scenario.wave,
                nets,
                noise / now,
                decision,
                _follow_curve(decision),
                gains,
                sum(probe.cost for probe in probes),
            )
        )
    return cases


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
    data = decision.outlooks.get("data")
    return "data" if data is not None and data.net > 0.0 else "tune"


def _mean(results: Sequence[ProbeResult], metric: str) -> float:
    """What those who choose see: as many trainings as a probe has."""
    return float(np.mean([value_of(result, metric) for result in results[:2]]))
