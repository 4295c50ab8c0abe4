"""Every kind of damage is named in the layer that has it, and in no other."""

import math
import re
from dataclasses import replace

import pytest
import torch
from fixtures.weights.damaged_models import DAMAGE, edited, model, trained

import wwopt
from wwopt.gate.changes import LayerChange
from wwopt.gate.damage import find_damage
from wwopt.gate.thresholds import Thresholds


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_in_its_layer_and_nowhere_else(kind: str) -> None:
    edit, words = DAMAGE[kind]
    result = wwopt.check(model(), edited(edit, "fc2"))
    assert list(result.broken) == ["fc2"]
    said = "; ".join(finding.words for finding in result.layers[1].findings)
    assert re.search(words, said), said
    assert not result.passed


@pytest.mark.parametrize("kind", [k for k in DAMAGE if k not in {"3 bits", "traps", "rank"}])
def test_small_layers_are_compared_too(kind: str) -> None:
    assert list(wwopt.check(model(), edited(DAMAGE[kind][0], "head")).broken) == ["head"]


def test_what_was_broken_before_and_is_so_still() -> None:
    hurt = edited(DAMAGE["not finite"][0], "fc2")
    assert wwopt.check(hurt, hurt).broken == {"fc2": "not finite, as before"}
    assert wwopt.check(hurt, model()).passed  # repaired
    zero = edited(torch.zeros_like, "fc2")
    assert wwopt.check(zero, zero).passed
    assert wwopt.check(zero, model()).passed


def test_every_quantity_has_its_threshold_and_words() -> None:
    base = wwopt.analyze({"fc.weight": trained(128, 64, 0)})["fc"]
    still = LayerChange(**dict.fromkeys(vars(LayerChange()), 0.0) | {"scale": 1.0, "spread": 0.1})
    assert find_damage(base, base, still, Thresholds()) == ()
    limits = Thresholds(relative_change=1.0)
    for quantity in vars(limits):
        far = limits.allowed(quantity) * 2.0
        value = math.exp(far) if quantity == "scale" else far + 1.5 / 64 * (quantity == "ks")
        change = replace(still, **{quantity: value})
        after = replace(base, trap_z=5.0)
        found = find_damage(base, after, change, limits)
        assert [f.quantity for f in found] == [quantity]
        assert found[0].words
        off = replace(limits, **{quantity: math.inf})
        assert find_damage(base, after, change, off) == ()
