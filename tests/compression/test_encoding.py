"""Layers by plans (`encoding`, `plans`, `compressed_networks`), and read again from their file."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from wwopt.compression.compressed_networks import apply_plans
from wwopt.compression.encoding import LayerEncoder, encode_layer, to_matrices
from wwopt.compression.errors import CompressionError
from wwopt.compression.layers import list_layers
from wwopt.compression.plans import LayerPlan, count_bytes, is_stored_sparsely
from wwopt.weights.matrices import read_tensors
from wwopt.weights.packed_tensors import from_matrix

PLANS = [
    LayerPlan(),
    LayerPlan(bits=8),
    LayerPlan(bits=4),
    LayerPlan(bits=4, group=8),
    LayerPlan(bits=2, clip=True),
    LayerPlan(sparsity=0.5),
    LayerPlan(sparsity=0.02),  # too few zeros to be stored sparsely
    LayerPlan(bits=3, group=5, sparsity=0.5),
    LayerPlan(bits=8, sparsity=0.1),
    LayerPlan(rank=3),
    LayerPlan(rank=3, bits=5, sparsity=0.3),
    LayerPlan(rank=2, sparsity=0.5),
]


class EveryLayout(nn.Module):
    """A layer of each kind that is stored in a way of its own; two are tied, one is in bf16."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, 32)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.embedding.weight
        self.conv = nn.Conv2d(4, 8, 3, groups=2)
        self.deconv = nn.ConvTranspose2d(8, 4, 3)
        self.norm = nn.BatchNorm2d(8)
        self.experts = nn.Parameter(torch.randn(3, 16, 12))
        self.half = nn.Linear(33, 20).bfloat16()
        self.attention = nn.MultiheadAttention(16, 2)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_the_file_has_the_bytes_that_were_counted_and_the_weights_that_were_judged(
    plan: LayerPlan, tmp_path: Path
) -> None:
    model = EveryLayout()
    network = list_layers(model)
    compressed = apply_plans(network, {layer.name: plan for layer in network.layers})
    file = tmp_path / "model.safetensors"
    assert compressed.write(file) == compressed.bytes == file.stat().st_size
    for layer in network.layers:
        expected = count_bytes(layer.shape, layer.dtype.itemsize, plan)
        assert expected == compressed.encoded[layer.name].bytes, layer.name
    read = {tensor.name: tensor.read() for tensor, _ in read_tensors(file)}
    original = model.state_dict()
    assert read.keys() == original.keys()
    assert list(compressed.weights) == list(original)
    for name, weights in compressed.weights.items():
        assert read[name].dtype == weights.dtype == original[name].dtype
        torch.testing.assert_close(read[name], weights, atol=1e-6, rtol=1e-5)
        if plan.changes_nothing or weights.ndim < 2:
            assert torch.equal(weights, original[name])


def test_a_layer_by_several_plans_is_the_layer_by_each_plan() -> None:
    W = torch.randn(3, 20, 16, generator=torch.Generator().manual_seed(0))
    compensated = [replace(plan, compensate=True) for plan in PLANS if plan.bits and not plan.clip]
    for stacked in (False, True):
        shared = LayerEncoder("w", W, stacked=stacked)
        for plan in (*PLANS, *compensated):
            found, alone = shared.encode(plan), encode_layer("w", W, plan, stacked=stacked)
            assert torch.equal(found.weights, alone.weights) and found.entries == alone.entries
            assert found.stored.keys() == alone.stored.keys()
            assert all(torch.equal(found.stored[name], alone.stored[name]) for name in found.stored)


@pytest.mark.parametrize("plan", [p for p in PLANS if p.sparsity and not p.rank], ids=str)
def test_the_sparsity_is_met_exactly(plan: LayerPlan) -> None:
    W = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))
    encoded = encode_layer("fc.weight", W, plan)
    pruned = encode_layer("fc.weight", W, LayerPlan(sparsity=plan.sparsity)).weights == 0
    assert int(pruned.sum()) == round(plan.sparsity * W.numel())
    assert bool((encoded.weights[pruned] == 0).all())  # rounding does not fill the holes


def test_outputs_of_transposed_layouts_are_rows_and_come_back() -> None:
    for shape in ((5, 7), (5, 7, 3), (5, 7, 3, 2)):
        W = torch.randn(shape)
        for axis in (0, 1):
            matrices = to_matrices(W, axis=axis)
            assert matrices.shape[1] == shape[axis]
            assert torch.equal(from_matrix(matrices[0], shape, axis), W)
    scaled = torch.tensor([[1.0, 100.0], [2.0, 300.0]])  # Conv1D: outputs are columns
    encoded = encode_layer("c.weight", scaled, LayerPlan(bits=8), axis=1)
    torch.testing.assert_close(encoded.weights, scaled, rtol=0.012, atol=0.0)


def test_a_bit_for_every_weight_pays_from_one_bit_in_so_many_on() -> None:
    for bits, spared in product((2, 4, 8, 32), (-0.02, 0.02)):
        kept = round(8000 * (1 - 1 / bits - spared))
        assert is_stored_sparsely(8000, kept, bits) == (spared > 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, "bits must be 2 to 8, got 9"),
        ({"group": 32}, "give bits"),
        ({"sparsity": 1.0}, "sparsity must be from 0 to below 1, got 1"),
        ({"sparsity": -0.5}, "got -0.5"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
    ],
)
def test_a_plan_says_what_is_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        LayerPlan(**options)
