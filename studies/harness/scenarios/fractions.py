"""What trainings on parts of the data tell, of the best configuration and of the first trial's."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harness.markdown_tables import format_markdown
from harness.scenarios.judgement import measure_truth
from harness.scenarios.records import PARTS, Lived, value_of
from wwopt.recommendation.gains import DATA_OF_ERRORS, DATA_OF_LOSSES
from wwopt.recommendation.learning_curves import fit_learning_curve


def print_fractions(lives: Sequence[Lived]) -> None:
    """Gains of data told from three parts, and what one trial fewer costs the search."""
    rows = []
    searched = [lived for lived in lives if lived.scenario.trials >= 4]
    for name, first in (("the best configuration's", False), ("the first trial's", True)):
        missed, hits = [], []
        for lived in searched:
            points = _points(lived, first=first)
            if points is None:
                continue
            errors = lived.scenario.metric == "error"
            curve = fit_learning_curve(
                points,
                noise=0.08 if errors else 0.02,
                most=1.0 if errors else np.inf,
                trend=DATA_OF_ERRORS if errors else DATA_OF_LOSSES,
            )
            gains = curve.gain(2.0) / float(np.mean(points[1.0]))
            true, _, now = measure_truth(lived)
            low, high = np.quantile(gains, (0.1, 0.9))
            missed.append(gains.mean() - true["data"] / now)
            hits.append(low <= true["data"] / now <= high)
        if missed:
            error = 100 * np.sqrt(np.mean(np.square(missed)))
            rows.append([name, len(missed), f"{error:.0f}", f"{100 * np.mean(hits):.0f}"])
    columns = [
        "⅛, ¼, ½ and all of the data with", "situations", "error of the gain of data, %",
        "80 % intervals that hold it, %",
    ]  # fmt: skip
    print("\n" + format_markdown(pd.DataFrame(rows, columns=columns), index=False))
    costs = [cost for lived in searched for cost in _lose_one(lived)]
    if costs:
        print(
            f"\nA search of one trial fewer ends {100 * np.mean(costs):.1f} % of its metric worse "
            f"({np.mean(np.array(costs) > 0.0):.0%} of {len(costs)} searches end worse at all)."
        )


def _points(lived: Lived, *, first: bool) -> Mapping[float, Sequence[float]] | None:
    metric = f"validation_{lived.scenario.metric}"
    if first:
        found = {r.probe.factor: [value_of(r, metric)] for r in lived.first}
        found[1.0] = [value_of(lived.trials[0], metric)]
    else:
        own = [r for r in lived.probes if r.probe.kind == "data" and r.probe.lr_factor == 1.0]
        found = {
            part: [value_of(r, metric) for r in own if r.probe.factor == part][:1]
            for part in (*PARTS, 1.0)
        }
    values = [value for group in found.values() for value in group]
    return found if np.isfinite(values).all() and min(values) > 0.0 else None


def _lose_one(lived: Lived) -> list[float]:
    """Relative rise of the best validation value where a search ends one trial earlier."""
    metric = f"validation_{lived.scenario.metric}"
    values = np.array([value_of(trial, metric) for trial in lived.trials[: lived.scenario.trials]])
    before, after = values[:-1].min(), values.min()
    return [float((before - after) / before)] if np.isfinite(before) and before > 0.0 else []
