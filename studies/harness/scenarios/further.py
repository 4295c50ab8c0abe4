"""Bigger and longer beyond the first doubling: what was told of it against what it brought.

A second doubling pays where it lowers the test metric, the mean of several networks, by more than
the noise of one; it is told to pay where the curve's median falls by more than that.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harness.markdown_tables import format_markdown
from harness.scenarios.judgement import Case, choose_probes, gather_evidence, measure_truth
from harness.scenarios.records import FURTHER, TRUE_STEPS, Lived, value_of
from wwopt.recommendation.gains import BIGGER, LONGER
from wwopt.recommendation.learning_curves import LearningCurve, fit_learning_curve
from wwopt.recommendation.probes import TRAININGS

SEEN = 2  # networks of the first doubling, when the question is asked again


def print_further(lives: Sequence[Lived], cases: Sequence[Case]) -> None:
    """For each action and wave: intervals at four times today's, and who tells what is beyond."""
    gains = {case.scenario: case.gains for case in cases if case.regime == "no prices"}
    rows = []
    for action, (_, factor) in FURTHER.items():
        found = []
        for lived in lives:
            known = gains[lived.scenario.name]
            curve = known.curves.get(action)  # type: ignore[call-overload]
            if curve is None:
                continue
            _, noise, now = measure_truth(lived)
            test = f"test_{lived.scenario.metric}"
            twice, further = (
                float(np.mean([value_of(result, test) for result in results]))
                for results in (lived.true[action], lived.further[action])
            )
            low, high = np.quantile(curve.gain(factor), (0.1, 0.9))
            pays = twice - further > noise
            told = [_pays_twice(c, known.noise) for c in (curve, _ask_again(lived, action))]
            inside = bool(low <= now - further <= high)
            found.append((lived.scenario.wave, inside, pays, *(t == pays for t in told)))
        for wave in sorted({row[0] for row in found}):
            inside, pays, before, after = np.array([r[1:] for r in found if r[0] == wave]).T
            shares = [f"{100 * share.mean():.0f}" for share in (inside, pays, before, after)]
            rows.append([action, wave, len(pays), *shares])
    columns = [
        "action", "wave", "situations", "80 % intervals at four times that hold, %",
        "second doubling pays, %", "told rightly today, %", "after the first doubling, %",
    ]  # fmt: skip
    print("\n" + format_markdown(pd.DataFrame(rows, columns=columns), index=False))


def _pays_twice(curve: LearningCurve, noise: float) -> bool:
    once, twice = np.median(curve.predict([2.0, 4.0]), axis=0)
    return bool(once - twice > noise)


def _ask_again(lived: Lived, action: str) -> LearningCurve:
    """The curve with the doubling that was taken."""
    kind, factor = TRUE_STEPS[action]
    evidence = gather_evidence(lived, choose_probes(lived, TRAININGS))
    metric = f"validation_{lived.scenario.metric}"
    seen = tuple(value_of(result, metric) for result in lived.true[action][:SEEN])
    points: Mapping[float, tuple[float, ...]] = evidence.points(kind) | {factor: seen}
    return fit_learning_curve(
        points,
        noise=evidence.noise,
        relative=evidence.positive,
        most=evidence.most if evidence.errors else math.inf,
        trend=BIGGER if action == "bigger" else LONGER,
        validation=evidence.validation,
    )
