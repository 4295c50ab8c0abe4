"""Findings by layer and on the labels: signs by hand, what they are said of, what is not told."""

import math
from collections.abc import Mapping

import pytest
from torch import nn

import wwopt
from wwopt.recommendation.layer_findings import Finding, find_in_layers, judge_labels
from wwopt.recommendation.probes import Kind, Probe, ProbeResult

Layers = Mapping[str, Mapping[str, float]]


def signs(alpha: float = 3.0, **others: float) -> dict[str, float]:
    quiet = {"sigma": 0.1, "num_traps": 0.0, "stable_rank": 10.0, "M": 64.0, "num_evals": 64.0}
    return {"alpha": alpha, **quiet, **others}


def result(
    layers: Layers, replicate: int = 0, *, kind: Kind = "data", factor: float = 1.0, rate: float = 1
) -> ProbeResult:
    return ProbeResult(Probe(kind, factor, rate, replicate), "ok", layers=layers)


def find(results: list[ProbeResult], what: str) -> dict[str, Finding]:
    """Layer → its finding of that kind."""
    found = find_in_layers(None, results)
    confidences = [finding.confidence for finding in found]
    assert confidences == sorted(confidences, reverse=True)
    assert all(0.5 < confidence < 1.0 for confidence in confidences)
    return {finding.layer: finding for finding in found if finding.what == what}


def test_a_layer_above_six_holds_the_network_back() -> None:
    trainings = [result({"a": signs(7.5), "b": signs(3.0)}, r) for r in range(3)]
    found = find(trainings, "holds back")
    assert set(found) == {"a"}
    assert "alpha 7.5 is above 6" in found["a"].words
    more = find([result({"a": signs(7.5), "b": signs()}, r) for r in range(30)], "holds back")
    assert found["a"].confidence < more["a"].confidence < 1.0


def test_what_fewer_than_half_of_the_trainings_show_is_not_told() -> None:
    seldom = [result({"a": signs(7.0 if r == 0 else 3.0), "b": signs(4.0)}, r) for r in range(4)]
    assert "a" not in find(seldom, "holds back")
    trapped = [result({"a": signs(num_traps=float(r == 0))}, r) for r in range(4)]
    assert not find(trapped, "regularise")


def test_the_highest_alpha_below_six_is_told_where_it_is_always_the_same_layer() -> None:
    steady = [result({"a": signs(5.0), "b": signs(3.0)}, r) for r in range(4)]
    assert set(find(steady, "holds back")) == {"a"}
    assert "though below 6" in find(steady, "holds back")["a"].words
    swapping = [result({"a": signs(4.0 + r % 2), "b": signs(4.5)}, r) for r in range(4)]
    assert not find(swapping, "holds back")
    assert not find([result({"a": signs(5.0)}, r) for r in range(4)], "holds back")  # none beside


def test_traps_ask_for_regularisation() -> None:
    trainings = [result({"a": signs(), "b": signs(num_traps=2.0)}, r) for r in range(3)]
    found = find(trainings, "regularise")
    assert set(found) == {"b"} and "traps in 3 of 3 trainings" in found["b"].words


def test_a_layer_that_rests_while_training_goes_on_can_be_frozen() -> None:
    now = [result({"a": signs(3.0), "b": signs(4.0), "c": signs(8.0)}, r) for r in range(3)]
    later = [
        result({"a": signs(3.05), "b": signs(3.0), "c": signs(8.0)}, r, kind="epochs", factor=2.0)
        for r in range(3)
    ]
    found = find(now + later, "freeze")
    assert set(found) == {"a"}  # b moved; c has learned nothing that could be kept
    other_rate = [
        result({"a": signs(3.0)}, r, kind="epochs", factor=2.0, rate=3.0) for r in range(3)
    ]
    assert not find(now + other_rate, "freeze")
    strangers = [result({"a": signs(3.0)}, r + 9, kind="epochs", factor=2.0) for r in range(3)]
    assert not find(now + strangers, "freeze")  # no training of the same seed to compare with


def test_the_fullest_trained_layer_is_the_one_to_grow() -> None:
    layers = {
        "a": signs(stable_rank=30.0),
        "b": signs(stable_rank=20.0, M=32.0),
        "c": signs(9.0, stable_rank=60.0),  # random rather than full
    }
    found = find([result(layers, r) for r in range(3)], "grow")
    assert set(found) == {"b"}


def test_small_layers_are_not_judged() -> None:
    small = {"num_evals": 10.0, "M": 10.0, "stable_rank": 9.0, "num_traps": 3.0}
    layers = {"a": signs(3.0), "b": signs(2.5), "out": signs(12.0, **small)}
    found = find_in_layers(None, [result(layers, r) for r in range(3)])
    assert found and "out" not in {finding.layer for finding in found}
    assert find_in_layers(None, [result({"out": signs(12.0, **small)})]) == ()


def test_only_the_configuration_as_it_is_counts() -> None:
    others = [
        result({"a": signs(9.0), "b": signs()}, factor=0.5),
        result({"a": signs(9.0), "b": signs()}, rate=3.0),
        result({"a": signs(9.0), "b": signs()}, kind="width", factor=2.0),
    ]
    assert find_in_layers(None, others) == ()
    now = [result({"a": signs(3.0), "b": signs(3.5)}, r) for r in range(2)]
    assert "a" not in find(others + now, "holds back")


def test_unknown_alphas_and_failed_probes_say_nothing() -> None:
    assert find_in_layers(None, []) == ()
    failed = ProbeResult(Probe("data", 1.0), "RuntimeError: no")
    assert find_in_layers(None, [failed]) == ()
    nan = {"a": signs(math.nan, stable_rank=math.nan), "b": signs(math.nan, stable_rank=math.nan)}
    assert find_in_layers(None, [result(nan, r) for r in range(3)]) == ()


def test_the_trials_own_layer_table_is_read() -> None:
    """Of a network with one layer of noise, which has an alpha above 6, beside a strong one."""
    network = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 300), nn.Linear(300, 10))
    nn.init.normal_(network[0].weight)
    nn.init.normal_(network[1].weight)
    with_tail = nn.init.normal_(network[1].weight).detach()
    with_tail.mul_((1.0 + 30.0 / nn.init.uniform_(with_tail.new_empty(300), 1.0, 100.0))[:, None])
    table = wwopt.analyze(network).to_frame()
    alphas = dict(zip(table["longname"], table["alpha"], strict=True))
    found = find_in_layers(table, [])
    held = {finding.layer for finding in found if finding.what == "holds back"}
    assert held == {max(("0", "1"), key=lambda name: alphas[name])}
    assert "2" not in {finding.layer for finding in found}
    again = find_in_layers(table, [result({"0": signs(alphas["0"]), "1": signs(alphas["1"])})])
    sure = {(f.what, f.layer): f.confidence for f in found}
    for finding in again:  # a second training that agrees makes surer
        if (finding.what, finding.layer) in sure and finding.what == "holds back":
            assert finding.confidence > sure[finding.what, finding.layer]


def test_a_network_that_cannot_fit_its_labels_but_is_right_has_noisy_ones() -> None:
    """With a share q of labels wrong at random, the best loss is above -log(1 - q)."""
    noisy = judge_labels(-math.log(1.0 - 0.3) + 0.3, 0.05)
    assert noisy is not None and "labels may be noisy" in noisy.words and noisy.layer == ""
    clean = judge_labels(0.02, 0.05)
    assert clean is not None and "labels look clean" in clean.words
    assert 0.5 < noisy.confidence < 1.0 and 0.5 < clean.confidence < 1.0


def test_the_worse_the_network_is_the_more_loss_is_expected() -> None:
    judged = [judge_labels(0.5, error) for error in (0.02, 0.2, 0.4)]
    assert all(finding is not None for finding in judged)
    said = ["noisy" in finding.words for finding in judged if finding is not None]
    assert said == sorted(said, reverse=True) and said[0] and not said[-1]


@pytest.mark.parametrize(
    ("loss", "error"), [(math.nan, 0.1), (math.inf, 0.1), (0.5, 0.5), (0.5, 0.9), (0.5, -0.1)]
)
def test_labels_are_not_judged_from_what_learned_nothing(loss: float, error: float) -> None:
    assert judge_labels(loss, error) is None
