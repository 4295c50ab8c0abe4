"""Which tensors are layers, and what is refused before anything is read."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wwopt.compression.compressed_networks import apply_plans
from wwopt.compression.errors import CompressionError
from wwopt.compression.layers import list_layers, match_layers
from wwopt.compression.plans import LayerPlan
from wwopt.weights.stored_tensors import WeightsError

GPT2 = {
    "h.0.attn.c_attn.weight": torch.randn(8, 24),  # Conv1D: in x out, q, k and v side by side
    "h.0.attn.c_attn.bias": torch.zeros(24),
    "wte.weight": torch.randn(50, 8),
    "ln_f.weight": torch.ones(8),
    "steps": torch.tensor(7),
}


def test_fused_and_transposed_layers_are_one_and_know_their_matrices() -> None:
    network = list_layers(GPT2)
    fused = network["h.0.attn.c_attn"]
    assert (fused.shape, fused.axis) == ((1, 24, 8), 1)
    assert fused.matrices == tuple(f"h.0.attn.c_attn.{part}" for part in "qkv")
    assert network["wte"].shape == (1, 50, 8)
    assert {tensor.name for tensor in network.rest} == {
        "h.0.attn.c_attn.bias",
        "ln_f.weight",
        "steps",
    }


def test_what_is_no_layer_stays_as_it_was() -> None:
    compressed = apply_plans(GPT2, {"wte": LayerPlan(bits=4)})
    for name in ("h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias", "ln_f.weight", "steps"):
        assert torch.equal(compressed.weights[name], GPT2[name])
    assert not torch.equal(compressed.weights["wte.weight"], GPT2["wte.weight"])


def test_tied_weights_are_stored_once_and_come_back_twice() -> None:
    model = nn.ModuleDict({"wte": nn.Embedding(50, 8), "head": nn.Linear(8, 50, bias=False)})
    model["head"].weight = model["wte"].weight
    compressed = apply_plans(model, {"wte": LayerPlan(bits=8)})
    assert sorted(compressed.stored) == ["wte.weight.codes", "wte.weight.scales"]
    assert compressed.weights["head.weight"] is compressed.weights["wte.weight"]


def test_a_training_checkpoint_gives_its_model_alone(tmp_path: Path) -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(state, tmp_path / "c.pt")
    assert list_layers(tmp_path / "c.pt").names == ("weight", "bias")


def test_names_and_patterns() -> None:
    network = list_layers(GPT2)
    assert match_layers(network, ["wte"]) == {"wte"}
    assert match_layers(network, ["h.0", "wte.weight"]) == {"h.0.attn.c_attn", "wte"}
    assert match_layers(network, ["*.q"]) == {"h.0.attn.c_attn"}
    with pytest.raises(CompressionError, match="no layer 'wta'; did you mean 'wte'"):
        match_layers(network, ["wta"])


def test_refuses_what_is_quantized_already(tmp_path: Path) -> None:
    compressed = apply_plans(GPT2, {"wte": LayerPlan(bits=4)})
    compressed.write(tmp_path / "once.safetensors")
    with pytest.raises(
        CompressionError, match=r"'wte.weight' is quantized already .packed 4 bits."
    ):
        list_layers(tmp_path / "once.safetensors")
    for codes in (torch.int8, torch.float8_e4m3fn):
        with pytest.raises(CompressionError, match="'w' is quantized already"):
            list_layers({"w": torch.ones(4, 4).to(codes)})
    with pytest.raises(CompressionError, match="quantized already"):
        list_layers({"fc.qweight": torch.ones(4, 4, dtype=torch.int32)})


def test_refuses_an_adapter_without_its_base(tmp_path: Path) -> None:
    factors = {"fc.lora_A.weight": torch.ones(2, 8), "fc.lora_B.weight": torch.ones(8, 2)}
    save_file(factors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    with pytest.raises(WeightsError, match="adapter without its base: merge"):
        list_layers(tmp_path)


def test_refuses_weights_that_are_not_finite_and_models_without_a_layer() -> None:
    with pytest.raises(CompressionError, match="layer 'fc' has weights that are not finite"):
        apply_plans({"fc.weight": torch.full((4, 4), torch.nan)}, {})
    with pytest.raises(CompressionError, match="no layer with a weight matrix"):
        list_layers({"bias": torch.ones(4)})
    with pytest.raises(CompressionError, match="no layer 'x'; the layers are wte"):
        apply_plans({"wte.weight": torch.ones(4, 4)}, {"x": LayerPlan(bits=8)})
