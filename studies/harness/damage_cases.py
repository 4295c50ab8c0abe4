"""Changed copies of a network compared with it: measured once, kept as JSON, judged by any limits.

What `calibrate_gate.py` counts over. A case holds what changed in each layer, so that the gate's
thresholds can be moved without training anything again.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

import wwopt
from harness.damage import NETWORKS, Parts, accuracy, change, train
from wwopt.gate.changes import LayerChange, compare_spectra, compare_weights
from wwopt.gate.checks import LayerCheck, judge
from wwopt.gate.damage import moved
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.model_metrics import LayerMetrics
from wwopt.weights.matrices import read_weights

NEED_WEIGHTS = ("zeros", "noise", "relative_change")
UNCHANGED = {"noise": 0.0, "zeros": 0.0, "relative_change": 0.0, "cosine": 1.0}


@dataclass(frozen=True)
class Case:
    """One changed copy of one network, compared with it; nothing is judged yet."""

    network: str
    seed: int
    kind: str
    target: str  # the layer that was changed; "": all
    drop: float  # accuracy before - after
    rows: tuple[LayerCheck, ...]

    @property
    def judges(self) -> bool:
        """Whether the case is on the side that thresholds are judged on, not chosen on."""
        return self.seed % 2 == 1

    def caught(self, thresholds: Thresholds, *, weights: bool = True) -> bool:
        """Whether the gate calls a layer broken, with or without the help of the weights."""
        rows = self.rows if weights else tuple(map(_forget_weights, self.rows))
        return not judge(rows, thresholds).passed


def measure(name: str, seed: int, parts: Parts) -> dict[str, Any]:
    """Train one network and compare it with its changed copies; plain data for JSON."""
    _, make, epochs = NETWORKS[name]
    torch.manual_seed(1000 + seed)
    data, _, held_out = parts
    model = train(make(), data, epochs, seed)
    reached = accuracy(model, held_out)
    before = wwopt.analyze(model)
    old = {matrix.name: matrix for matrix in read_weights(model).matrices}
    cases = []
    for kind, target, changed in change(model, make, epochs, parts, seed):
        after = wwopt.analyze(changed, layers=[target] if target else None)
        new = {matrix.name: matrix for matrix in read_weights(changed).matrices}
        changes = {}
        for layer in after.layers:
            found = compare_spectra(before[layer.name], layer)
            if math.isfinite(found.scale):
                found = compare_weights(found, old[layer.name], new[layer.name])
            changes[layer.name] = asdict(found)
        case = {"kind": kind, "target": target, "drop": reached - accuracy(changed, held_out)}
        cases.append(
            case | {"after": list(map(make_plain_layer, after.layers)), "changes": changes}
        )
    return {
        "accuracy": reached,
        "before": list(map(make_plain_layer, before.layers)),
        "cases": cases,
    }


def read_cases(name: str, seed: int, stored: dict[str, Any]) -> list[Case]:
    """Build the comparisons again; layers that a case left alone are equal on both sides."""
    before = {layer["name"]: LayerMetrics(**layer) for layer in stored["before"]}
    same = {
        name: LayerCheck(name, m, m, replace(compare_spectra(m, m), **UNCHANGED))
        for name, m in before.items()
    }
    cases = []
    for case in stored["cases"]:
        rows = dict(same)
        for layer in case["after"]:
            found = LayerChange(**case["changes"][layer["name"]])
            known = before[layer["name"]]
            rows[known.name] = LayerCheck(known.name, known, LayerMetrics(**layer), found)
        cases.append(
            Case(name, seed, case["kind"], case["target"], case["drop"], tuple(rows.values()))
        )
    return cases


def furthest(cases: Iterable[Case]) -> dict[str, float]:
    """How far each quantity moved at most; factors as logarithms."""
    largest = dict.fromkeys((f.name for f in fields(Thresholds)), 0.0)
    for row in (row for case in cases for row in case.rows):
        for quantity, value in moved(row.before, row.change).items():
            largest[quantity] = max(largest[quantity], 0.0 if math.isnan(value) else abs(value))
    return largest


def make_plain_layer(layer: LayerMetrics) -> dict[str, Any]:
    hidden = {"spectrum", "tied"}
    return {f.name: getattr(layer, f.name) for f in fields(layer) if f.name not in hidden}


def _forget_weights(row: LayerCheck) -> LayerCheck:
    unknown = dict.fromkeys((*NEED_WEIGHTS, "cosine"), math.nan)
    return replace(row, change=replace(row.change, **unknown))
