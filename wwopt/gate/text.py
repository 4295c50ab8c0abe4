"""What the gate found, for a reader: words first, then the table they come from."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:  # which logs what it finds, and so takes MLflow
    from wwopt.gate.watching import Outcome

from wwopt.gate.checks import GateResult, LayerCheck
from wwopt.gate.damage import RETRAINED
from wwopt.gate.history import MIN_PAST, Drift, PastCheck
from wwopt.gate.markdown import say_verdict
from wwopt.metrics.base.change_text import describe_change, say_layer
from wwopt.metrics.text import list_estimates
from wwopt.wording import count, number


def format_check(result: GateResult) -> str:
    """What broke, in words, and a table of what changed in every layer."""
    broken, total = result.broken, len(result.layers)
    lines = [f"{len(broken)} of {total} layers broke." if broken else f"Passed: {total} layers."]
    lines += [f"  {name}: {how}" for name, how in broken.items()]
    if not result.continued:
        lines.append(
            "Most layers have nothing in common with those before: judged as another training, "
            f"with thresholds {RETRAINED:g} times as wide."
        )
    if result.movements:
        lines += describe_change(result.movements)
    measured = [row.after for row in result.layers if row.after is not None]
    lines += [f"After: {words}." for words in list_estimates(measured)]
    for note, many in Counter(result.notes.values()).most_common():
        lines.append(f"After: {count(many, 'layer')} {note}.")
    rows = [
        {
            "layer": row.name,
            "scale": number(row.change.scale, ".3f"),
            "KS": number(row.change.ks, ".3f"),
            "alpha": _sides(row, "alpha", ".2f"),
            "hill": _sides(row, "hill", ".2f"),
            "log λmax": _sides(row, "log_spectral_norm", ".2f"),
            "stable rank": _sides(row, "stable_rank", ".1f"),
            "trap z": _sides(row, "trap_z", ".1f"),
            "noise": number(row.change.noise, ".3f"),
            "change": number(None if row.movement is None else say_layer(row.movement), ""),
            "overlap": number(getattr(row.movement, "overlap", None), ".2f"),
            "verdict": "broken" if row.findings else "passed",
        }
        for row in result.layers
    ]
    table = pd.DataFrame(rows).to_string(index=False, justify="left").splitlines()
    return "\n".join([*lines, "", *(line.rstrip() for line in table)])


def describe_drift(drifts: Sequence[Drift], past: Sequence[PastCheck]) -> str:
    """What the comparison with the past says, or that there is too little of it."""
    passed = sum(check.passed for check in past)
    if passed < MIN_PAST:
        return f"Drift: not judged, {passed} past checks passed and it takes {MIN_PAST}."
    if not drifts:
        return f"Drift: none, against {passed} past checks that passed."
    lines = [f"  {drift.layer}: {drift.words}" for drift in drifts]
    accept = '  If that is how it shall be, set "passed" to true in the last line of the history.'
    return "\n".join(["Drift:", *lines, accept])


def describe_watched(outcome: "Outcome") -> str:
    """What became of a watched checkpoint: a line, and one for each layer that broke or drifted."""
    name = outcome.arrival.name
    if outcome.result is None:
        return f"{name}: skipped, it cannot be read: {outcome.unreadable or outcome.waiting}"
    against = f"against {outcome.before}" if outcome.before else "the first"
    against += ", whose weights are gone" if outcome.by_numbers else ""
    score = f", score {number(outcome.score, '.4f')}"
    lines = [f"{name}: {say_verdict(outcome.result, outcome.drifts)}{score}, {against}"]
    lines += [f"  {layer} broke: {how}" for layer, how in outcome.result.broken.items()]
    lines += [f"  {drift.layer} drifted: {drift.words}" for drift in outcome.drifts]
    return "\n".join(lines)


def _sides(row: LayerCheck, name: str, form: str) -> str:
    sides = (math.nan if side is None else getattr(side, name) for side in (row.before, row.after))
    return " → ".join(number(value, form) for value in sides)
