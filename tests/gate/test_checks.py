"""Harmless changes and symmetries pass; layers are paired whatever form the sides have."""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from fixtures.weights.damaged_models import edited, model, pushed, rounded, trained
from torch import nn

import wwopt
from wwopt.gate.checks import compare_sides, measure_side
from wwopt.gate.text import format_check
from wwopt.gate.thresholds import Thresholds
from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError

HARMLESS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bf16": lambda w: w.bfloat16().float(),
    "bf16 as stored": lambda w: w.bfloat16(),
    "int8 per row": lambda w: rounded(w, 8),
    "a few more epochs": lambda w: pushed(w, 0.05),
    "float64": lambda w: w.double(),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_changes_pass(kind: str) -> None:
    result = wwopt.check(model(), edited(HARMLESS[kind]))
    assert result.passed, result.broken


def test_permuting_neurons_is_harmless() -> None:
    order, before = torch.randperm(128, generator=torch.Generator().manual_seed(1)), model()
    after = dict(before)
    after["fc1.weight"] = before["fc1.weight"][order]
    after["fc2.weight"] = before["fc2.weight"][:, order]
    result = wwopt.check(before, after)
    assert result.passed, result.broken
    assert abs(result.layers[0].change.cosine) < 0.1
    assert result.layers[0].change.ks == 0.0


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.model."])
def test_wrappers_prefixes_do_not_matter(prefix: str) -> None:
    after = {prefix + name: w for name, w in edited(lambda w: w * 4.0, "fc2").items()}
    assert wwopt.check(model(), after).broken == {"fc2": "scaled by 4"}
    assert list(wwopt.check(after, model()).broken) == [f"{prefix}fc2"]


def test_layers_on_one_side_and_other_shapes_are_findings() -> None:
    after = model()
    after["extra.weight"] = after.pop("fc1.weight")
    after["fc3.weight"] = after["fc3.weight"][:80]
    after["head.weight"] = (100 * after["head.weight"]).to(torch.int8)
    broken = wwopt.check(model(), after).broken
    assert broken["fc1"] == "missing after"
    assert broken["extra"] == "new: not there before"
    assert broken["fc3"] == "reshaped: 128×96 → 128×80"
    assert broken["head"].startswith("not analysed after: quantized: int8")
    assert "fc2" not in broken


def test_weights_tied_on_one_side_are_compared_with_the_one_they_were_tied_to() -> None:
    before = {"embed.weight": trained(80, 64, 0), "fc.weight": trained(64, 64, 1)}
    tied = before | {"lm_head.weight": before["embed.weight"]}
    untied = before | {"lm_head.weight": before["embed.weight"].clone()}
    assert wwopt.check(tied, untied).passed
    assert wwopt.check(untied, tied).passed
    hurt = untied | {"lm_head.weight": 4.0 * before["embed.weight"]}
    assert wwopt.check(tied, hurt).broken == {"lm_head": "scaled by 4"}


def test_another_training_is_judged_by_its_spectra_alone() -> None:
    anew = wwopt.check(model(), model(seed=5))
    assert not anew.continued
    assert anew.passed, anew.broken
    assert "judged as another training" in format_check(anew)
    sides = [measure_side(read_weights(state)) for state in (model(), model(seed=5))]
    told = compare_sides(*sides, Thresholds(), continued=True)  # by who knows that it is none
    assert told.continued and not told.passed
    one = model() | {"fc2.weight": model(seed=5)["fc2.weight"]}
    replaced = wwopt.check(model(), one)
    assert replaced.continued
    assert list(replaced.broken) == ["fc2"]
    assert "unrelated to the weights before" in replaced.broken["fc2"]


def test_metrics_are_compared_without_the_weights() -> None:
    before, after = model(), edited(lambda w: w * 4.0, "fc2")
    full = wwopt.check(before, after)
    for sides in (
        (wwopt.analyze(before), wwopt.analyze(after)),
        (wwopt.analyze(before), after),
        (before, wwopt.analyze(after)),
    ):
        result = wwopt.check(*sides)
        assert result.broken == full.broken
        assert math.isnan(result.layers[0].change.noise)
        assert result.layers[1].change.ks == full.layers[1].change.ks
    assert math.isfinite(full.layers[0].change.noise)


def test_metrics_without_spectra_still_tell_a_scale() -> None:
    known = wwopt.analyze({"fc.weight": trained(128, 64, 0)})
    scaled = wwopt.analyze({"fc.weight": 4.0 * trained(128, 64, 0)})
    bare = [replace(m, layers=(replace(m["fc"], spectrum=None),)) for m in (known, scaled)]
    assert wwopt.check(bare[0], bare[1]).broken == {"fc": "scaled by 4, and not only scaled"}


def test_modules_and_convolutions() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 64))
    changed = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 64))
    changed.load_state_dict(net.state_dict())
    assert wwopt.check(net, changed).passed
    with torch.no_grad():
        changed[0].weight.mul_(2.0)
    assert wwopt.check(net, changed).broken == {"0": "scaled by 2"}
    assert wwopt.check(net, changed.state_dict()).broken == {"0": "scaled by 2"}


def test_nothing_compared_is_no_pass() -> None:
    empty = {"norm.weight": torch.ones(8)}
    with pytest.raises(WeightsError, match="nothing was compared"):
        wwopt.check(empty, empty)


def test_a_key_is_no_matter_of_metrics() -> None:
    both = {"student": model(), "teacher": edited(lambda w: w * 4.0, "fc2")}
    metrics = wwopt.analyze(model())
    assert wwopt.check(metrics, both, key="student").passed
    assert not wwopt.check(both, metrics, key="teacher").passed
    with pytest.raises(WeightsError, match="several models: student"):
        wwopt.check(metrics, both)
    with pytest.raises(WeightsError, match="under no key"):
        wwopt.check(metrics, model(), key="student")


def test_layers_can_be_chosen() -> None:
    after = edited(lambda w: w * 4.0, "fc2")
    assert wwopt.check(model(), after, layers=["fc1"]).passed
    assert [layer.name for layer in wwopt.check(model(), after, layers=["fc[12]"]).layers] == [
        "fc1",
        "fc2",
    ]
    with pytest.raises(WeightsError, match="no layer 'fx'"):
        wwopt.check(model(), after, layers=["fx"])


def test_the_frame_and_the_dict_hold_both_sides() -> None:
    result = wwopt.check(model(), edited(lambda w: w * 4.0, "fc2"))
    frame = result.to_frame().set_index("layer")
    assert list(frame.index) == ["fc1", "fc2", "fc3", "head"]
    assert frame.loc["fc2", "scale"] == pytest.approx(4.0)
    assert frame.loc["fc2", "alpha_before"] == pytest.approx(frame.loc["fc2", "alpha_after"])
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["passed"] is False
    assert document["broken"] == {"fc2": "scaled by 4"}
    assert document["layers"][3]["hill_before"] is None
    assert document["thresholds"]["relative_change"] is None
