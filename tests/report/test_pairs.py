"""Two trials side by side: each layer's own values, and what of them changed."""

import math
from typing import Any

import pytest
from fixtures.by_hand.trials import trial
from fixtures.studies.quick_studies import LAYERS

from wwopt.report.pairs import LayerPair, Pair, compare_pair, tell_changes
from wwopt.report.text import format_pair
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial


def layer(name: str = "fc", **given: Any) -> LayerPair:
    nothing = (math.nan, math.nan)
    values = {"alpha": nothing, "sigma": nothing, "D": nothing, "traps": nothing}
    return LayerPair(name=name, status=("ok", "ok"), **(values | given))


def test_what_changed_is_told_by_hand() -> None:
    pair = Pair(
        trial(7),
        trial(12),
        (
            layer("a", alpha=(2.0, 5.0), sigma=(0.3, 0.4), traps=(0.0, 2.0)),
            layer("b", alpha=(2.0, 2.5), sigma=(0.3, 0.4), settings={"lr": (0.1, 0.4)}),
            layer("c", settings={"lr": (0.1, 0.05), "dropout": (0.0, 0.3)}),
        ),
        {},
        {},
    )
    assert pair.layers[0].change == 3.0 and pair.layers[0].clearness == pytest.approx(6.0)
    assert tell_changes(pair) == [
        "a: alpha 2.00 → 5.00 (+3.00, 6.0 standard errors)",
        "a: correlation traps 0 → 2",
        "b: lr 0.1 → 0.4 (× 4)",
        "c: dropout 0 → 0.3",
    ]


def test_alphas_that_agree_within_their_errors_are_said_to() -> None:
    pair = Pair(trial(0), trial(1), (layer(alpha=(2.0, 2.5), sigma=(0.3, 0.4)),), {}, {})
    assert tell_changes(pair) == ["no alpha moved by 2 standard errors"]


def test_a_pair_holds_each_layers_own_values(tracked: TrackedStudy) -> None:
    pair = compare_pair(tracked[0], tracked[3])
    assert [x.name for x in pair.layers] == list(LAYERS)
    assert all(set(x.settings) == {"lr", "momentum"} for x in pair.layers)
    assert all(a != b for x in pair.layers for a, b in x.settings.values())
    assert pair.metrics["objective/value"] == (tracked[0].value, tracked[3].value)
    assert next(iter(pair.metrics)) == "objective/value"
    assert pair.settings == {}  # every hyperparameter belongs to a layer
    swapped = compare_pair(tracked[3], tracked[0])
    for there, back in zip(pair.layers, swapped.layers, strict=True):
        assert there.change == -back.change and there.clearness == back.clearness


def test_a_pair_without_layer_tables_is_compared_by_what_there_is() -> None:
    def read_nothing(number: int) -> TrackedTrial:
        params = {"rate": str(number), "same": "1"}
        return TrackedTrial("", "", number, "COMPLETE", "", params=params, metrics={"loss": 1.0})

    pair = compare_pair(read_nothing(1), read_nothing(2))
    assert pair.layers == () and pair.settings == {"rate": (1.0, 2.0)}
    text = format_pair(pair, width=80)
    assert "Neither trial logged a table of its layers" in text and "rate" in text
