"""A module's tensors are those that it uses; what has no values or is no weight says why."""

import warnings

import torch
from torch import nn
from torch.nn.utils import parametrizations

from wwopt.weights.matrices import Weights, read_weights


def test_layers_after_a_parametrised_one_are_not_forgotten() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))
    assert [matrix.name for matrix in read_weights(model).matrices] == ["0", "1"]


def test_layers_of_torchs_own_quantization_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated for torchao, but checkpoints remain
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    weights = read_weights(quantized)
    assert weights.matrices == ()
    assert weights.skipped["0.weight"].startswith("quantized: packed for int8")


def test_a_failing_parametrisation_is_a_reason() -> None:
    class Fails(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            if weight.sum() > 1e6:
                raise RuntimeError("too large")
            return weight

    layer = nn.Linear(4, 4)
    nn.utils.parametrize.register_parametrization(layer, "weight", Fails())
    layer.parametrizations.weight.original.data.fill_(1e6)
    assert "RuntimeError: too large" in read_weights(layer).skipped["weight"]


def test_modules_without_values_have_reasons() -> None:
    model = nn.ModuleDict({"lazy": nn.LazyLinear(3), "meta": nn.Linear(3, 3, device="meta")})
    weights = read_weights(model)
    assert weights.matrices == ()
    assert weights.skipped["lazy.weight"].startswith("lazy: no shape")
    assert weights.skipped["meta.weight"].startswith("meta tensor")


def test_norms_biases_and_buffers_of_two_dimensions_are_no_weights() -> None:
    model = nn.ModuleDict({"norm": nn.LayerNorm((4, 4)), "attn": nn.MultiheadAttention(4, 1)})
    model["attn"].bias_k = nn.Parameter(torch.ones(3, 3, 4))
    model.register_buffer("table", torch.ones(4, 4))
    skipped = read_weights(model).skipped
    assert skipped["norm.weight"] == "norm"
    assert skipped["attn.bias_k"] == "bias"
    assert skipped["table"] == "buffer: not trained"


def test_a_module_without_weights_has_none() -> None:
    assert read_weights(nn.ReLU()) == Weights((), {})
