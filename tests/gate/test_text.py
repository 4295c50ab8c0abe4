"""What the gate says: what broke, then a row a layer; of drift what it is, or why it is none."""

import math

from wwopt.gate.changes import LayerChange
from wwopt.gate.checks import GateResult, LayerCheck
from wwopt.gate.damage import Damage
from wwopt.gate.history import Drift, PastCheck
from wwopt.gate.text import describe_drift, format_check
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.model_metrics import LayerMetrics

LAYER = LayerMetrics(name="fc", N=80, M=60, num_evals=60, alpha=2.5, hill=2.25, stable_rank=12.0)
SCALED = LayerChange(scale=4.0, ks=0.125)


def result_of(*layers: LayerCheck, continued: bool = True) -> GateResult:
    return GateResult(layers, Thresholds(), continued)


def test_what_broke_is_said_before_the_table() -> None:
    broken = LayerCheck("a", LAYER, LAYER, SCALED, (Damage("scale", "scaled by 4"),))
    fine = LayerCheck("b", LAYER, LAYER, LayerChange(scale=1.0, ks=0.0))
    lines = format_check(result_of(broken, fine)).splitlines()
    assert lines[:3] == ["1 of 2 layers broke.", "  a: scaled by 4", ""]
    assert [(line.split()[0], line.split()[-1]) for line in lines[4:]] == [
        ("a", "broken"),
        ("b", "passed"),
    ]
    assert "4.000" in lines[4] and "0.125" in lines[4] and "2.50 → 2.50" in lines[4]


def test_a_side_and_a_quantity_that_are_not_known_are_dashes() -> None:
    new = LayerCheck("new", None, LAYER, LayerChange(), (Damage("layer", "new"),))
    row = format_check(result_of(new)).splitlines()[-1]
    assert "– → 2.50" in row and "– → 12.0" in row and "nan" not in row


def test_another_training_is_said_to_be_judged_as_one() -> None:
    fine = LayerCheck("a", LAYER, LAYER, LayerChange())
    first, second, *_ = format_check(result_of(fine, fine, continued=False)).splitlines()
    assert first == "Passed: 2 layers."
    assert "judged as another training, with thresholds 3.5 times as wide" in second
    assert "another training" not in format_check(result_of(fine))


def test_drift_is_told_or_why_there_is_none() -> None:
    past = [PastCheck("", passed, {}) for passed in (True, False) for _ in range(4)]
    assert describe_drift([], past) == ("Drift: not judged, 4 past checks passed and it takes 5.")
    past.append(PastCheck("", True, {}))
    assert describe_drift([], past) == "Drift: none, against 5 past checks that passed."
    drift = Drift("fc", "change/scale", math.log(1.15), 0.0, z=14.0, limit=5.0, past=5)
    first, second, accept = describe_drift([drift], past).splitlines()
    assert (first, second) == ("Drift:", f"  fc: {drift.words}")
    assert 'set "passed" to true' in accept
