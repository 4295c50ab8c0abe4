"""The tables of `data_or_tune.py`, in Markdown; intervals are bootstraps over scenarios."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from harness.markdown_tables import format_markdown
from harness.scenarios.judgement import ACTIONS, REGIMES, Case, measure_truth
from harness.scenarios.records import Lived
from harness.score_statistics import bootstrap_interval
from wwopt.recommendation.gains import ACTIONS as GAINFUL
from wwopt.recommendation.gains import Gains

HALVES = {"design": (False,), "judged": (True,), "pooled": (False, True)}
BASELINES: dict[str, Callable[[Case], str]] = {
    "recommend, also where it is silent": lambda case: case.decision.best,
    "always data": lambda case: "data",
    "always tune": lambda case: "tune",
    "learning curve alone": lambda case: case.curve_alone,
}
DRAWS = 4000


def print_scenarios(lives: Sequence[Lived], gains: Sequence[Gains], cases: Sequence[Case]) -> None:
    """A row each: what every action brought in per cent of today's metric, and what was said."""
    said = {(case.scenario, case.regime): case for case in cases}
    columns = ["scenario", "today", "one network's noise, %"]
    columns += [f"{action}: brought (predicted), %" for action in GAINFUL]
    columns.append("said: " + ", ".join(REGIMES))
    rows = []
    for lived, gain in zip(lives, gains, strict=True):
        true, noise, now = measure_truth(lived)
        half = "judged" if lived.scenario.judged else "design"
        cells = [f"{lived.scenario.name} ({half})", f"{now:.3g}", f"{100 * noise / now:.0f}"]
        for action in GAINFUL:
            drawn = gain.draws.get(action)
            predicted = "–" if drawn is None else f"{100 * drawn.mean() / gain.now:.0f}"
            cells.append(f"{100 * true[action] / now:.0f} ({predicted})")
        words = [_tell_verdict(said[lived.scenario.name, regime]) for regime in REGIMES]
        rows.append([*cells, ", ".join(words)])
    print("\n" + format_markdown(pd.DataFrame(rows, columns=columns), index=False))


def _tell_verdict(case: Case) -> str:
    verdict = case.decision.verdict
    if verdict == "probe":
        return "–"
    return verdict + ("" if case.is_right(verdict) else " ✗")


def print_verdicts(cases: Sequence[Case]) -> None:
    """How often right, how often silent, and what wrong verdicts cost, beside the baselines."""
    rows = []
    spoken = [case for case in cases if case.decision.verdict != "probe"]

    def row(name: str, values: Callable[[Case], float], among: Sequence[Case]) -> None:
        cells = []
        for halves in HALVES.values():
            chosen = [case for case in among if case.judged in halves]
            cells.append(_interval(chosen, values))
        rows.append([name, *cells])

    row("silent, %", lambda c: float(c.decision.verdict == "probe"), cases)
    row("right where it speaks, %", lambda c: float(c.is_right(c.decision.verdict)), spoken)
    row("regret where it speaks", lambda c: c.regret(c.decision.verdict), spoken)
    for name, choose in BASELINES.items():
        row(f"{name}: right, %", lambda c, f=choose: float(c.is_right(f(c))), cases)  # type: ignore[misc]
        row(f"{name}: regret", lambda c, f=choose: c.regret(f(c)), cases)  # type: ignore[misc]
    row(
        "a coin, data or tune: right, %",
        lambda c: float(np.mean([c.is_right(a) for a in ("data", "tune")])),
        cases,
    )
    row(
        "a coin, data or tune: regret",
        lambda c: float(np.mean([c.regret(a) for a in ("data", "tune")])),
        cases,
    )
    print("\n" + format_markdown(pd.DataFrame(rows, columns=["", *HALVES]), index=False))
    print("\nRegret: net value lost, in per cent of today's metric. Right action by prices:")
    for regime in REGIMES:
        of = [case for case in cases if case.regime == regime]
        counts = {a: sum(max(c.true, key=lambda x: c.true[x]) == a for c in of) for a in ACTIONS}
        print(f"- {regime}: " + ", ".join(f"{a} {n}" for a, n in counts.items() if n))


def print_calibration(
    lives: Sequence[Lived], gains: Sequence[Gains], cases: Sequence[Case]
) -> None:
    """How often the 80 % intervals hold the true gains, and confidence against being right."""
    hits: dict[str, list[tuple[bool, bool]]] = {action: [] for action in GAINFUL}
    for lived, gain in zip(lives, gains, strict=True):
        true, _, _ = measure_truth(lived)
        for action, drawn in gain.draws.items():
            low, high = np.quantile(drawn, (0.1, 0.9))
            hits[action].append((lived.scenario.judged, bool(low <= true[action] <= high)))
    rows = []
    for action, found in [*hits.items(), ("all", [h for hs in hits.values() for h in hs])]:
        cells = []
        for halves in HALVES.values():
            inside = [hit for judged, hit in found if judged in halves]
            cells.append(f"{sum(inside)} of {len(inside)} ({100 * np.mean(inside):.0f} %)")
        rows.append([action, *cells])
    columns = ["action", *(f"{half}: 80 % intervals that hold the gain" for half in HALVES)]
    print("\n" + format_markdown(pd.DataFrame(rows, columns=columns), index=False))
    rows = []
    edges = (0.0, 0.5, 0.75, 0.9, 1.01)
    for low, high in pairwise(edges):
        of = [c for c in cases if c.judged and low <= c.decision.confidence < high]
        if of:
            right = 100 * np.mean([c.is_right(c.decision.best) for c in of])
            rows.append([f"{low:g} to {min(high, 1):g}", len(of), f"{right:.0f}"])
    columns = ["confidence", "cases, judged half", "right, %"]
    print("\n" + format_markdown(pd.DataFrame(rows, columns=columns), index=False))


def _interval(cases: Sequence[Case], values: Callable[[Case], float]) -> str:
    """Mean over cases, times 100, and its 95 % interval over scenarios, whose cases go together."""
    by_scenario: dict[str, list[float]] = {}
    for case in cases:
        by_scenario.setdefault(case.scenario, []).append(values(case))
    groups = list(by_scenario.values())
    if not groups:
        return "–"
    sums, counts = np.array([sum(g) for g in groups]), np.array([len(g) for g in groups])

    def mean(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
        return sums.sum(axis=axis) / counts.sum(axis=axis)

    found = bootstrap_interval((sums, counts), mean, resamples=DRAWS, seed=0, paired=True)
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
