"""What follows for each layer from what is asked of the network."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from fixtures.networks.compressed import make_trained

from wwopt.compression.errors import CompressionError
from wwopt.compression.layers import list_layers
from wwopt.compression.low_rank import choose_rank
from wwopt.compression.plans import LayerPlan, count_bytes
from wwopt.compression.recipes import Recipe, plan_layers, read_alphas
from wwopt.metrics.analysis import analyze

MODEL = make_trained()
NETWORK = list_layers(MODEL)
METRICS = analyze(MODEL, shuffles=0)
SIZES = {layer.name: layer.size for layer in NETWORK.layers}


def plan(**options: Any) -> dict[str, LayerPlan]:
    return plan_layers(NETWORK, Recipe(**options), METRICS)


def mean(values: Mapping[str, float]) -> float:
    return sum(values[name] * SIZES[name] for name in SIZES) / sum(SIZES.values())


def test_uniform_is_the_same_for_all() -> None:
    assert set(plan(bits=4, sparsity=0.5, group=16, clip=True).values()) == {
        LayerPlan(bits=4, sparsity=0.5, group=16, clip=True)
    }


def test_by_alpha_heavy_tails_keep_more() -> None:
    alphas = read_alphas(list(NETWORK.layers), METRICS)
    assert alphas["0"] < alphas["2"]
    found = plan(bits=4, bits_by="alpha", gamma=4.0, sparsity=0.6, sparsity_by="alpha")
    assert found["0"].sparsity < found["2"].sparsity
    assert mean({n: p.sparsity for n, p in found.items()}) == pytest.approx(0.6)
    assert mean({n: p.bits or 0 for n, p in found.items()}) <= 4


def test_layers_that_are_kept_have_no_plan_and_no_part_in_the_mean() -> None:
    found = plan(sparsity=0.5, sparsity_by="alpha", keep=("3",))
    assert found.keys() == {"0", "2"}
    pruned = sum(p.sparsity * SIZES[n] for n, p in found.items())
    assert pruned == pytest.approx(0.5 * (SIZES["0"] + SIZES["2"]))


@pytest.mark.parametrize("rule", ["erg", "tail", 0.8])
def test_a_rank_is_taken_only_where_it_saves_bytes(rule: Any) -> None:
    found = plan(rank=rule)
    for layer in NETWORK.layers:
        wanted = choose_rank(layer.read()[0], rule)
        cut = count_bytes(layer.shape, 4, LayerPlan(rank=wanted))
        saves = cut < count_bytes(layer.shape, 4, LayerPlan())
        assert found[layer.name].rank == (wanted if saves else None)
    assert any(p.rank for p in found.values())
    assert plan(rank=5)["0"].rank == 5
    assert plan(rank=100)["0"].rank is None  # of 96


def test_alpha_of_a_fused_layer_is_the_mean_of_its_matrices() -> None:
    attention = torch.nn.MultiheadAttention(64, 2)
    (fused, _) = list_layers(attention).layers
    metrics = analyze(attention, shuffles=0)
    hills = [metrics[name].hill for name in fused.matrices]
    assert len(hills) == 3
    assert read_alphas([fused], metrics)["in_proj"] == pytest.approx(sum(hills) / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to do: give bits, a sparsity or a rank"),
        ({"bits": 4.5}, r"4\.5 bits for every layer: only by alpha"),
        ({"bits": 9}, "bits must be 2 to 8, got 9"),
        ({"bits": 1.5, "bits_by": "alpha"}, r"bits must be 2 to 8, got 1\.5"),
        ({"sparsity": 1.0}, "sparsity must be from 0 to below 1, got 1"),
        ({"sparsity": -0.1}, "got -0.1"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"rank": 1.5}, "a share of energy up to 1, got 1.5"),
        ({"bits": 4, "keep": ("x",)}, "no layer 'x'"),
        ({"bits": 4, "keep": ("*",)}, "all 3 layers are kept"),
        ({"bits": 4, "group": 0}, "a group holds at least one column"),
    ],
)
def test_says_what_cannot_be_asked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        plan(**options)
