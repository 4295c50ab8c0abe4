"""A check unlike the past ones is drift, rarely by chance; a history is kept as written."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.weights.damaged_models import edited, model, pushed

import wwopt
from wwopt.gate.changes import LayerChange
from wwopt.gate.checks import GateResult, LayerCheck
from wwopt.gate.history import (
    Drift,
    HistoryError,
    PastCheck,
    append_check,
    find_drift,
    read_history,
    values_of,
)
from wwopt.gate.text import describe_drift
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.model_metrics import LayerMetrics


def past_of(
    result: GateResult, count: int, *, passed: bool = True, seed: int = 0
) -> list[PastCheck]:
    """Past checks that jitter by .01 around this one."""
    rng = np.random.default_rng(seed)
    return [
        PastCheck(
            "2025-01-01",
            passed,
            {
                layer.name: {q: v + 0.01 * rng.standard_normal() for q, v in values.items()}
                for layer in result.layers
                for values in [values_of(layer)]
            },
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def quiet() -> GateResult:
    return wwopt.check(model(), edited(lambda w: pushed(w, 0.03)))


def test_a_change_unlike_the_past_ones_is_drift(quiet: GateResult) -> None:
    past = past_of(quiet, 12)
    assert find_drift(quiet, past) == []
    loud = wwopt.check(model(), edited(lambda w: w * 1.15, "fc2"))
    assert loud.passed  # the gate lets it through
    drifts = find_drift(loud, past)
    assert {drift.layer for drift in drifts} == {"fc2"}
    assert drifts[0].quantity in {"change/scale", "level/scale"}
    assert abs(drifts[0].z) > drifts[0].limit > 3.0
    text = describe_drift(drifts, past)
    assert "fc2: " in text and "1.15, usually" in text and "12 checks" in text


def test_drift_needs_five_checks_that_passed(quiet: GateResult) -> None:
    loud = wwopt.check(model(), edited(lambda w: w * 1.15, "fc2"))
    few = past_of(quiet, 4) + past_of(quiet, 4, passed=False)
    assert find_drift(loud, few) == []
    assert describe_drift([], few) == "Drift: not judged, 4 past checks passed and it takes 5."
    again = 3 * past_of(quiet, 3)  # the same three checks, run again and again
    assert find_drift(loud, again) == []
    enough = past_of(quiet, 8)
    assert find_drift(loud, enough)
    assert describe_drift([], enough) == "Drift: none, against 8 past checks that passed."


def test_a_past_without_any_change_does_not_make_rounding_a_drift(quiet: GateResult) -> None:
    still = wwopt.check(model(), model())
    past = [
        replace(check, time=str(index), layers={**check.layers, "other": {"x": float(index)}})
        for index, check in enumerate(past_of(still, 1) * 8)
    ]
    exact = [
        replace(c, layers={**c.layers, **{x.name: values_of(x) for x in still.layers}})
        for c in past
    ]
    assert find_drift(wwopt.check(model(), edited(lambda w: w.bfloat16())), exact) == []
    assert find_drift(wwopt.check(model(), edited(lambda w: w * 1.1, "fc2")), exact)


def test_the_first_step_of_a_ks_distance_that_was_always_zero_is_no_drift() -> None:
    layer = LayerMetrics(name="fc", N=64, M=64, num_evals=64)
    past = [PastCheck(str(n), True, {"fc": {"change/ks": 0.0}, "n": {"x": n}}) for n in range(8)]
    for steps, drifts in ((2.0, 0), (3.0, 1)):  # `moved` takes 1.5 of them off
        check = LayerCheck("fc", layer, layer, LayerChange(scale=1.0, ks=steps / 64))
        assert len(find_drift(GateResult((check,), Thresholds()), past)) == drifts


@pytest.mark.parametrize(("count", "rate"), [(5, 0.05), (9, 0.05), (40, 0.025)])
def test_false_alarms_of_gaussian_values_are_as_rare_as_promised_or_rarer(
    count: int, rate: float
) -> None:
    rng = np.random.default_rng(count)
    base = LayerMetrics(name="fc", N=100, M=100, num_evals=100)
    alarms, runs = 0, 1500
    for _ in range(runs):
        values = rng.standard_normal(count + 1)
        change = LayerChange(scale=math.exp(values[0]))
        result = GateResult((LayerCheck("fc", base, base, change),), Thresholds())
        past = [PastCheck("", True, {"fc": {"change/scale": v}}) for v in values[1:]]
        alarms += bool(find_drift(result, past, false_alarm=0.05))
    # 3.5 standard errors; of a long past values are allowed heavier tails than Gaussian ones.
    assert alarms / runs == pytest.approx(rate, abs=0.02)


def test_one_step_of_a_ks_distance_that_was_always_the_same_is_no_drift() -> None:
    layer = LayerMetrics(name="fc", N=48, M=48, num_evals=48)
    known = {"fc": {"change/ks": 1.5 / 48}}
    past = [PastCheck(str(n), True, {**known, "other": {"x": float(n)}}) for n in range(5)]
    for steps, drifts in ((2.0, 0), (4.0, 0), (12.0, 1)):
        check = LayerCheck("fc", layer, layer, LayerChange(scale=1.0, ks=steps / 48))
        assert len(find_drift(GateResult((check,), Thresholds()), past)) == drifts


def test_a_history_comes_back_as_it_was_written(quiet: GateResult, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert read_history(path) == []
    append_check(path, quiet, before="a", after="b")
    path.write_text(path.read_text().rstrip("\n"))  # an editor that drops the last line break
    append_check(path, quiet)
    read = read_history(path)
    assert [check.passed for check in read] == [True, True]
    assert read[0].layers["fc2"] == values_of(quiet.layers[1])


@pytest.mark.parametrize(
    "line", ['{"time": "2025', "[1, 2]", '{"time": "x", "passed": true}', '{"layers": {"a": 3}}']
)
def test_a_damaged_line_is_told_by_its_number(line: str, quiet: GateResult, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_check(path, quiet)
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(HistoryError, match=r"line 2 of the history .* is damaged .*remove it"):
        read_history(path)


def test_a_history_that_cannot_be_read_or_written(quiet: GateResult, tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="cannot write the history"):
        append_check(tmp_path / "missing" / "history.jsonl", quiet)
    with pytest.raises(HistoryError, match="cannot read the history"):
        read_history(tmp_path)


@pytest.mark.parametrize(
    ("quantity", "value", "words"),
    [
        ("change/scale", math.log(1.15), "scale 1.15, usually 1"),
        ("change/spectral_norm", math.log(2.0), "factor on spectral norm 2, usually 1"),
        ("change/ks", 0.25, "ks 0.25, usually 0"),
        ("level/scale", math.log(3.0), "norm of the weights 3, usually 1"),
        ("level/hill", math.log(1.5), "averaged Hill - 1 1.5, usually 1"),
    ],
)
def test_a_drift_is_said_in_factors_where_it_is_kept_as_a_logarithm(
    quantity: str, value: float, words: str
) -> None:
    drift = Drift("fc", quantity, value, 0.0, z=-7.4, limit=5.0, past=9)
    assert drift.words == f"{words} (z -7, 9 checks)"
