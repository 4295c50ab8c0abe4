"""The tables of `data_or_tune.py`, in Markdown; intervals are bootstraps over scenarios."""

import csv
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from harness.markdown_tables import format_markdown
from harness.scenarios.judgement import ACTIONS, REGIMES, Case, judge, measure_truth
from harness.scenarios.records import Lived
from harness.scenarios.situations import Wave
from harness.score_statistics import bootstrap_interval
from wwopt.recommendation.gains import ACTIONS as GAINFUL

WAVES: dict[str, tuple[Wave, ...]] = {
    "first": (1,),
    "second": (2,),
    "third": (3,),
    "fourth": (4,),
    "fifth": (5,),
    "all": (1, 2, 3, 4, 5),
}
BASELINES: dict[str, Callable[[Case], str]] = {
    "recommend, also where it is silent": lambda case: case.decision.best,
    "always data": lambda case: "data",
    "always tune": lambda case: "tune",
    "learning curve alone": lambda case: case.curve_alone,
}
DRAWS = 4000
BEFORE = "rules of 0.2, 47 trainings"
# Written by wwopt 0.2 from the same trainings.
CHOICES = Path(__file__).with_name("choices_of_0_2.csv")


def print_scenarios(lives: Sequence[Lived], cases: Sequence[Case]) -> None:
    """A row each: what every action brought in per cent of today's metric, and what was said."""
    said = {(case.scenario, case.regime): case for case in cases}
    columns = ["scenario (wave)", "today", "one network's noise, %", "trainings paid"]
    columns += [f"{action}: brought (predicted), %" for action in GAINFUL]
    columns.append("said: " + ", ".join(REGIMES))
    rows = []
    for lived in lives:
        true, noise, now = measure_truth(lived)
        gain = said[lived.scenario.name, "no prices"].gains
        paid = np.mean([said[lived.scenario.name, regime].price for regime in REGIMES])
        cells = [
            f"{lived.scenario.name} ({lived.scenario.wave})",
            f"{now:.3g}",
            f"{100 * noise / now:.0f}",
        ]
        cells.append(f"{paid:.1f}")
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
        for waves in WAVES.values():
            chosen = [case for case in among if case.wave in waves]
            cells.append(_interval(chosen, values))
        rows.append([name, *cells])

    parts = [[case for case in cases if case.wave in waves] for waves in WAVES.values()]
    rows.append(["situations", *(str(len({case.scenario for case in of})) for of in parts)])
    paid = [np.mean([case.price for case in of]) if of else np.nan for of in parts]
    rows.append(["full trainings paid", *(f"{price:.1f}" for price in paid)])
    row("silent, %", lambda c: float(c.decision.verdict == "probe"), cases)
    row("right where it speaks, %", lambda c: float(c.is_right(c.decision.verdict)), spoken)
    row("regret where it speaks", lambda c: c.regret(c.decision.verdict), spoken)
    before = read_choices()
    known = [case for case in cases if (case.scenario, case.regime) in before]
    told = [case for case in known if before[case.scenario, case.regime][0] != "probe"]
    old: Callable[[Case, int], str] = lambda c, i: before[c.scenario, c.regime][i]  # noqa: E731
    row(f"{BEFORE}: silent, %", lambda c: float(old(c, 0) == "probe"), known)
    row(f"{BEFORE}: right where they speak, %", lambda c: float(c.is_right(old(c, 0))), told)
    row(f"{BEFORE}, also where they are silent: regret", lambda c: c.regret(old(c, 1)), known)
    row(
        "recommend's regret less theirs, paired",
        lambda c: c.regret(c.decision.best) - c.regret(old(c, 1)),
        known,
    )
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
    print("\n" + format_markdown(pd.DataFrame(rows, columns=["", *WAVES]), index=False))
    print("\nRegret: net value lost, in per cent of today's metric. Right action by prices:")
    for regime in REGIMES:
        of = [case for case in cases if case.regime == regime]
        counts = {a: sum(max(c.true, key=lambda x: c.true[x]) == a for c in of) for a in ACTIONS}
        print(f"- {regime}: " + ", ".join(f"{a} {n}" for a, n in counts.items() if n))


def read_choices() -> dict[tuple[str, str], tuple[str, str]]:
    """Scenario and prices → verdict and best action of the rules of wwopt 0.2, with all probes."""
    with CHOICES.open(newline="") as file:
        return {
            (row["scenario"], row["regime"]): (row["verdict"], row["best"])
            for row in csv.DictReader(file)
        }


def print_price_curve(cases: Mapping[str, Sequence[Case]]) -> None:
    """Silence, accuracy and regret against what probes may cost, for each wave."""
    rows = []
    for name, waves in WAVES.items():
        for price, found in cases.items():
            of = [case for case in found if case.wave in waves]
            spoken = [case for case in of if case.decision.verdict != "probe"]
            if of:
                rows.append(
                    [
                        name,
                        price,
                        f"{np.mean([case.price for case in of]):.1f}",
                        f"{100 * (1 - len(spoken) / len(of)):.0f}",
                        f"{100 * np.mean([c.is_right(c.decision.verdict) for c in spoken]):.0f}"
                        if spoken
                        else "–",
                        f"{100 * np.mean([c.is_right(c.decision.best) for c in of]):.0f}",
                        f"{100 * np.mean([c.regret(c.decision.best) for c in of]):.1f}",
                    ]
                )
    columns = [
        "wave", "full trainings", "paid", "silent, %", "right where it speaks, %",
        "right, also where silent, %", "regret, also where silent",
    ]  # fmt: skip
    print("\n" + format_markdown(pd.DataFrame(rows, columns=columns), index=False))


def print_score(lives: Sequence[Lived], *, enough: float) -> None:
    """Without a validation metric: how often the score alone is right, beside always tuning."""
    cases = [case for lived in lives for case in judge_by_score(lived, enough=enough)]
    rows = []
    for name, waves in WAVES.items():
        of = [case for case in cases if case.wave in waves]
        if of:
            cells = [name, len(of)]
            for choose in (lambda c: c.decision.best, lambda c: "tune", lambda c: "data"):
                right = 100 * np.mean([c.is_right(choose(c)) for c in of])  # type: ignore[no-untyped-call]
                lost = 100 * np.mean([c.regret(choose(c)) for c in of])  # type: ignore[no-untyped-call]
                cells.append(f"{right:.0f} ({lost:.1f})")
            rows.append(cells)
    columns = ["by the score alone", "situations judged", "score", "always tune", "always data"]
    print("\nRight in % (regret):\n")
    print(format_markdown(pd.DataFrame(rows, columns=columns), index=False))


def judge_by_score(lived: Lived, *, enough: float) -> list[Case]:
    """The case of a scenario whose network has layers that can be judged, else none."""
    try:
        return judge(lived, enough=enough, score=True)
    except ValueError:
        return []


def print_calibration(lives: Sequence[Lived], cases: Sequence[Case]) -> None:
    """How often the 80 % intervals hold the true gains, and confidence against being right."""
    hits: dict[str, list[tuple[Wave, bool]]] = {action: [] for action in GAINFUL}
    gains = {case.scenario: case.gains for case in cases if case.regime == "no prices"}
    for lived in lives:
        true, _, _ = measure_truth(lived)
        for action, drawn in gains[lived.scenario.name].draws.items():
            low, high = np.quantile(drawn, (0.1, 0.9))
            hits[action].append((lived.scenario.wave, bool(low <= true[action] <= high)))
    rows = []
    for action, found in [*hits.items(), ("all", [h for hs in hits.values() for h in hs])]:
        cells = []
        for waves in WAVES.values():
            inside = [hit for wave, hit in found if wave in waves]
            share = f" ({100 * np.mean(inside):.0f} %)" if inside else ""
            cells.append(f"{sum(inside)} of {len(inside)}{share}")
        rows.append([action, *cells])
    print("\n80 % intervals that hold the gain:")
    columns = ["action", *WAVES]
    print("\n" + format_markdown(pd.DataFrame(rows, columns=columns), index=False))
    rows = []
    for low, high in pairwise((0.0, 0.5, 0.75, 0.9, 1.01)):
        row = [f"{low:g} to {min(high, 1):g}"]
        for waves in WAVES.values():
            of = [c for c in cases if c.wave in waves and low <= c.decision.confidence < high]
            right = f"{100 * np.mean([c.is_right(c.decision.best) for c in of]):.0f} % of {len(of)}"
            row.append(right if of else "–")
        rows.append(row)
    print("\nRight, also where it is silent, by the confidence it tells:")
    columns = ["confidence", *WAVES]
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
