"""What spectra add to predicted gains: a correction by them, learned on half of the scenarios."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from harness.markdown_tables import format_markdown
from harness.scenarios.judgement import judge, measure_truth
from harness.scenarios.records import Lived
from wwopt.recommendation.gains import ACTIONS as GAINFUL
from wwopt.recommendation.gains import Gains

MIN_ABLATION = 10  # scenarios of each half to learn from, and to judge on


def print_ablation(lives: Sequence[Lived], gains: Sequence[Gains], *, enough: float) -> None:
    """What spectra add: gains corrected by a ridge regression on spectral signs, or not at all."""
    features = np.array([_spectral_signs(lived) for lived in lives])
    judged = np.array([lived.scenario.judged for lived in lives])
    known = np.isfinite(features).all(axis=1)
    if min((known & judged).sum(), (known & ~judged).sum()) < MIN_ABLATION:
        print(f"\nSpectra: no ablation below {MIN_ABLATION} scenarios of each half.")
        return
    print(f"\nSpectra: {known.sum()} scenarios have layers that can be judged.\n")
    rows = []
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
        rows.append([name, f"{error:.1f}", f"{100 * np.mean(regrets):.1f}"])
    columns = ["judged half", "root mean squared error of gains, %", "regret, %"]
    print(format_markdown(pd.DataFrame(rows, columns=columns), index=False))


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
