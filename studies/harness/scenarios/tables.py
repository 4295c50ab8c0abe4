"""The tables of `data_or_tune.py`, in Markdown; intervals are bootstraps over scenarios."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from harness.scenarios.judgement import ACTIONS, REGIMES, Case, judge, measure_truth
from harness.scenarios.records import Lived
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
MIN_ABLATION = 10  # scenarios of each half to learn from, and to judge on


def print_scenarios(lives: Sequence[Lived], gains: Sequence[Gains], cases: Sequence[Case]) -> None:
    """A row each: what every action brought in per cent of today's metric, and what was said."""
    said = {(case.scenario, case.regime): case for case in cases}
    print(
        "\n| scenario | today | one network's noise, % | "
        + " | ".join(f"{a}: brought (predicted), %" for a in GAINFUL)
        + " | said: "
        + ", ".join(REGIMES)
        + " |\n|---|---|---|"
        + "---|" * (len(GAINFUL) + 1)
    )
    for lived, gain in zip(lives, gains, strict=True):
        true, noise, now = measure_truth(lived)
        cells = [f"{now:.3g}", f"{100 * noise / now:.0f}"]
        for action in GAINFUL:
            drawn = gain.draws.get(action)
            predicted = "–" if drawn is None else f"{100 * drawn.mean() / gain.now:.0f}"
            cells.append(f"{100 * true[action] / now:.0f} ({predicted})")
        words = []
        for regime in REGIMES:
            case = said[lived.scenario.name, regime]
            verdict = case.decision.verdict
            mark = "" if verdict == "probe" or case.is_right(verdict) else " ✗"
            words.append(("–" if verdict == "probe" else verdict) + mark)
        half = "judged" if lived.scenario.judged else "design"
        print(
            f"| {lived.scenario.name} ({half}) | " + " | ".join([*cells, ", ".join(words)]) + " |"
        )


def print_verdicts(cases: Sequence[Case]) -> None:
    """How often right, how often silent, and what wrong verdicts cost, beside the baselines."""
    print("\n| | " + " | ".join(HALVES) + " |\n|---|" + "---|" * len(HALVES))
    spoken = [case for case in cases if case.decision.verdict != "probe"]

    def row(
        name: str, values: Callable[[Case], float], among: Sequence[Case], scale: float
    ) -> None:
        cells = []
        for halves in HALVES.values():
            chosen = [case for case in among if case.judged in halves]
            cells.append(_interval(chosen, values, scale))
        print(f"| {name} | " + " | ".join(cells) + " |")

    row("silent, %", lambda c: float(c.decision.verdict == "probe"), cases, 100)
    row("right where it speaks, %", lambda c: float(c.is_right(c.decision.verdict)), spoken, 100)
    row("regret where it speaks", lambda c: c.regret(c.decision.verdict), spoken, 100)
    for name, choose in BASELINES.items():
        row(f"{name}: right, %", lambda c, f=choose: float(c.is_right(f(c))), cases, 100)  # type: ignore[misc]
        row(f"{name}: regret", lambda c, f=choose: c.regret(f(c)), cases, 100)  # type: ignore[misc]
    row(
        "a coin, data or tune: right, %",
        lambda c: float(np.mean([c.is_right(a) for a in ("data", "tune")])),
        cases,
        100,
    )
    row(
        "a coin, data or tune: regret",
        lambda c: float(np.mean([c.regret(a) for a in ("data", "tune")])),
        cases,
        100,
    )
    print("\nRegret: net value lost, in per cent of today's metric. Right action by prices:")
    for regime in REGIMES:
        of = [case for case in cases if case.regime == regime]
        counts = {a: sum(max(c.true, key=lambda x: c.true[x]) == a for c in of) for a in ACTIONS}
        print(f"- {regime}: " + ", ".join(f"{a} {n}" for a, n in counts.items() if n))


def print_calibration(
    lives: Sequence[Lived], gains: Sequence[Gains], cases: Sequence[Case]
) -> None:
    """How often the 80 % intervals hold the true gains, and confidence against being right."""
    print(
        "\n| action | "
        + " | ".join(f"{half}: 80 % intervals that hold the gain" for half in HALVES)
        + " |"
    )
    print("|---|" + "---|" * len(HALVES))
    hits: dict[str, list[tuple[bool, bool]]] = {action: [] for action in GAINFUL}
    for lived, gain in zip(lives, gains, strict=True):
        true, _, _ = measure_truth(lived)
        for action, drawn in gain.draws.items():
            low, high = np.quantile(drawn, (0.1, 0.9))
            hits[action].append((lived.scenario.judged, bool(low <= true[action] <= high)))
    for action, found in [*hits.items(), ("all", [h for hs in hits.values() for h in hs])]:
        cells = []
        for halves in HALVES.values():
            inside = [hit for judged, hit in found if judged in halves]
            cells.append(f"{sum(inside)} of {len(inside)} ({100 * np.mean(inside):.0f} %)")
        print(f"| {action} | " + " | ".join(cells) + " |")
    print("\n| confidence | cases, judged half | right, % |\n|---|---|---|")
    edges = (0.0, 0.5, 0.75, 0.9, 1.01)
    for low, high in pairwise(edges):
        of = [c for c in cases if c.judged and low <= c.decision.confidence < high]
        if of:
            right = 100 * np.mean([c.is_right(c.decision.best) for c in of])
            print(f"| {low:g} to {min(high, 1):g} | {len(of)} | {right:.0f} |")


def print_ablation(lives: Sequence[Lived], gains: Sequence[Gains], *, enough: float) -> None:
    """What spectra add: gains corrected by a ridge regression on spectral signs, or not at all."""
    features = np.array([_spectral_signs(lived) for lived in lives])
    judged = np.array([lived.scenario.judged for lived in lives])
    known = np.isfinite(features).all(axis=1)
    if min((known & judged).sum(), (known & ~judged).sum()) < MIN_ABLATION:
        print(f"\nSpectra: no ablation below {MIN_ABLATION} scenarios of each half.")
        return
    print(f"\nSpectra: {known.sum()} scenarios have layers that can be judged.\n")
    print("| judged half | root mean squared error of gains, % | regret, % |\n|---|---|---|")
    for name, corrected in (("without spectra", False), ("with spectra", True)):
        errors, regrets = [], []
        shifts = {a: _fit_shift(a, lives, gains, features, known & ~judged) for a in GAINFUL}
        for index, (lived, gain) in enumerate(zip(lives, gains, strict=True)):
            if not (judged[index] and known[index]):
                continue
            used = gain
            if corrected:
                moved = {
                    a: d + gain.now * shifts[a](features[index]) for a, d in gain.draws.items()
                }
                used = replace(gain, draws=moved)
            true, _, now = measure_truth(lived)
            errors += [used.draws[a].mean() / gain.now - true[a] / now for a in used.draws]
            cases = judge(lived, used, enough=enough)
            regrets += [case.regret(case.decision.best) for case in cases]
        error = 100 * np.sqrt(np.mean(np.square(errors)))
        print(f"| {name} | {error:.1f} | {100 * np.mean(regrets):.1f} |")


def _fit_shift(
    action: str,
    lives: Sequence[Lived],
    gains: Sequence[Gains],
    features: np.ndarray,
    used: np.ndarray,
) -> Callable[[np.ndarray], float]:
    """Learn on the design half what predictions miss, from spectral signs."""
    rows, missed = [], []
    for index in np.flatnonzero(used):
        drawn = gains[index].draws.get(action)  # type: ignore[call-overload]
        if drawn is not None:
            true, _, now = measure_truth(lives[index])
            rows.append(features[index])
            missed.append(true[action] / now - drawn.mean() / gains[index].now)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.geomspace(0.1, 1000, 13)))
    model.fit(np.array(rows), np.array(missed))
    return lambda row: float(model.predict(row[None])[0])


def _spectral_signs(lived: Lived) -> list[float]:
    """Mean and spread of alpha over layers, share above 6, traps, stable rank, drift with data."""
    trained = [r for r in lived.true["now"] if r.layers]
    half = [
        r for r in lived.probes if r.probe.kind == "data" and r.probe.factor == 0.5 and r.layers
    ]

    def alphas(results: Sequence[object]) -> list[np.ndarray]:
        return [
            np.array([s["alpha"] for s in r.layers.values() if np.isfinite(s["alpha"])])  # type: ignore[attr-defined]
            for r in results
        ]

    now, before = alphas(trained), alphas(half)
    if not now or any(a.size < 1 for a in now) or any(a.size < 1 for a in before):
        return [np.nan] * 6
    signs = [s for r in trained for s in r.layers.values()]
    ranks = [s["stable_rank"] / s["M"] for s in signs if np.isfinite(s["stable_rank"])]
    return [
        float(np.mean([a.mean() for a in now])),
        float(np.mean([a.std() for a in now])),
        float(np.mean([(a > 6).mean() for a in now])),
        float(np.mean([s["num_traps"] for s in signs if np.isfinite(s["num_traps"])] or [0.0])),
        float(np.mean(ranks)),
        float(np.mean([a.mean() for a in now]) - np.mean([a.mean() for a in before])),
    ]


def _interval(cases: Sequence[Case], values: Callable[[Case], float], scale: float) -> str:
    """Mean over cases and its 95 % interval over scenarios, whose cases go together."""
    by_scenario: dict[str, list[float]] = {}
    for case in cases:
        by_scenario.setdefault(case.scenario, []).append(values(case))
    groups = list(by_scenario.values())
    if not groups:
        return "–"
    sums, counts = np.array([sum(g) for g in groups]), np.array([len(g) for g in groups])
    rows = np.random.default_rng(0).integers(0, len(groups), (DRAWS, len(groups)))
    means = sums[rows].sum(axis=1) / counts[rows].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    mean = sums.sum() / counts.sum()
    return f"{scale * mean:.1f} [{scale * low:.1f}, {scale * high:.1f}]"
