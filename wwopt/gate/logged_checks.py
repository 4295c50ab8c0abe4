"""What MLflow keeps of a check: the verdict as tags and metrics, the numbers as artifacts."""

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from wwopt.gate.checks import GateResult
from wwopt.gate.damage import moved
from wwopt.gate.history import QUANTITIES, Drift
from wwopt.gate.markdown import format_markdown, say_verdict
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.objective import SpectralObjective
from wwopt.tracking.checks import LoggedCheck
from wwopt.tracking.keys import VALUE

LONGEST_NOTE = 7500  # characters of a description; MLflow's tags hold 8,000


def describe_check(
    result: GateResult, drifts: Sequence[Drift] = (), *, before: str = "", after: str = ""
) -> LoggedCheck:
    """Gather what is logged of a check.

    Args:
        result: of the check.
        drifts: what of it is unlike the past.
        before: what the sides are called.
        after: the same of the other side.
    """
    document: dict[str, Any] = result.to_dict()
    document["drift"] = [asdict(drift) for drift in drifts]
    limits = {f"max_{f.name}": getattr(result.thresholds, f.name) for f in fields(Thresholds)}
    return LoggedCheck(
        name=f"{after or 'check'}: {say_verdict(result, drifts)}",
        passed=result.passed and not drifts,
        note=_note(result, drifts, before, after),
        params={
            "before": before,
            "after": after,
            "change": "" if result.change is None else result.change.kind.value,
            **limits,
        },
        metrics=gate_metrics(result, drifts) | model_metrics(result.metrics),
        layers=result.metrics.to_frame(),
        document=document,
    )


def gate_metrics(result: GateResult, drifts: Sequence[Drift] = ()) -> dict[str, float]:
    """The verdict in numbers, and the furthest that any layer moved, factors as logarithms."""
    found: dict[str, float] = {
        "gate/passed": float(result.passed and not drifts),
        "gate/broken": float(len(result.broken)),
        "gate/drifted": float(len({drift.layer for drift in drifts})),
    }
    changes = [moved(x.before, x.change) for x in result.layers if x.before and x.after]
    for name in QUANTITIES:
        known = [change[name] for change in changes if math.isfinite(change[name])]
        if known:
            found[f"change/{name}"] = max(known, key=abs)
    return found


def model_metrics(metrics: ModelMetrics) -> dict[str, float]:
    """What the weights alone tell of a network, under the names that a trial's metrics have."""
    counted = metrics.counted
    found = {VALUE: SpectralObjective()(metrics).value}
    found |= {
        f"alpha/{'mean' if name == 'alpha' else name}": value
        for name, value in metrics.summary().items()
    }
    traps = [layer.num_traps for layer in counted if math.isfinite(layer.num_traps)]
    found |= {"traps/count": sum(traps)} if traps else {}
    hills = [layer.hill for layer in counted if math.isfinite(layer.hill)]
    found |= {"alpha/hill": sum(hills) / len(hills)} if hills else {}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _note(result: GateResult, drifts: Sequence[Drift], before: str, after: str) -> str:
    """As much of the check in Markdown as a description holds."""
    for most in (50, 20, 5, 1):
        note = format_markdown(result, drifts, before=before, after=after, most=most)
        if len(note) <= LONGEST_NOTE:
            return note
    return f"### wwopt check: {say_verdict(result, drifts)}\n"
