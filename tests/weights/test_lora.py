"""W + scaling B A by hand, for what PEFT writes to files and for what its modules hold.

The scalings, and where adapters are idle or no LoRA, are those of `lora_settings`.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError

torch.manual_seed(0)
A, B = torch.randn(2, 6), torch.randn(5, 2)
BASE = torch.randn(5, 6)
PREFIX = "base_model.model."


def write_adapter(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, **config}))
    return folder


def factors(layer: str = "fc", a: torch.Tensor = A, b: torch.Tensor = B) -> dict[str, torch.Tensor]:
    return {f"{PREFIX}{layer}.lora_A.weight": a, f"{PREFIX}{layer}.lora_B.weight": b}


class LoraLinear(nn.Module):
    """The attributes of PEFT's lora.Linear, which wwopt recognises them by."""

    def __init__(self, **state: Any) -> None:
        super().__init__()
        self.base_layer = nn.Linear(6, 5)
        self.base_layer.weight.data.copy_(BASE)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(6, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 5, bias=False)})
        self.lora_A["default"].weight.data.copy_(A)
        self.lora_B["default"].weight.data.copy_(B)
        self.scaling = {"default": 0.5}
        self.active_adapters = ["default"]
        self.merged_adapters: list[str] = []
        self.disable_adapters = False
        for name, value in state.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({}, 8 / 2),
        ({"use_rslora": True}, 8 / math.sqrt(2)),
        ({"alpha_pattern": {"fc": 3}}, 3 / 2),
        ({"alpha_pattern": {"other": 3, "[": 9}}, 8 / 2),
        ({"alpha_pattern": {r"f\w": 3}, "rank_pattern": {"fc": 2}}, 3 / 2),
    ],
)
def test_an_adapter_alone_is_a_delta_with_its_rank(
    tmp_path: Path, config: dict[str, Any], scaling: float
) -> None:
    (matrix,) = read_weights(write_adapter(tmp_path, factors(), **config)).matrices
    assert (matrix.name, matrix.shape, matrix.rank_bound) == (f"{PREFIX}fc", (6, 5), 2)
    torch.testing.assert_close(matrix.read()[0], scaling * B @ A)
    assert matrix.note == ""


def test_an_adapter_is_added_to_its_base(tmp_path: Path) -> None:
    whole = torch.randn(3, 5)
    adapter = write_adapter(tmp_path, {**factors(), f"{PREFIX}head.weight": whole})
    base = {"fc.weight": BASE, "head.weight": torch.zeros(3, 5), "out.weight": torch.ones(5, 5)}
    weights = read_weights(adapter, base=base)
    found = {matrix.name: matrix.read()[0] for matrix in weights.matrices}
    assert list(found) == ["fc", "head", "out"]
    torch.testing.assert_close(found["fc"], BASE + 4 * B @ A)
    assert torch.equal(found["head"], whole)  # trained in full: modules_to_save
    assert torch.equal(found["out"], base["out.weight"])
    assert all(matrix.rank_bound is None for matrix in weights.matrices)
    assert weights.skipped == {}


def test_embeddings_and_convolutions_have_factors_of_other_shapes(tmp_path: Path) -> None:
    kernel_a, kernel_b = torch.randn(2, 4, 3, 3), torch.randn(5, 2, 1, 1)
    tensors = {
        f"{PREFIX}wte.lora_embedding_A": torch.randn(2, 9),
        f"{PREFIX}wte.lora_embedding_B": torch.randn(6, 2),
        **factors("conv", kernel_a, kernel_b),
    }
    base = nn.ModuleDict({"wte": nn.Embedding(9, 6), "conv": nn.Conv2d(4, 5, 3)})
    weights = read_weights(write_adapter(tmp_path, tensors, lora_alpha=2), base=base)
    wte, conv = (matrix.read() for matrix in weights.matrices)
    delta = tensors[f"{PREFIX}wte.lora_embedding_B"] @ tensors[f"{PREFIX}wte.lora_embedding_A"]
    torch.testing.assert_close(wte[0], base["wte"].weight.detach() + delta.T)
    x = torch.randn(1, 4, 7, 7)
    slow = nn.functional.conv2d(nn.functional.conv2d(x, kernel_a), kernel_b)
    delta_conv = conv - read_weights(base).matrices[1].read()
    kernel = delta_conv.reshape(3, 3, 5, 4).permute(2, 3, 0, 1)
    torch.testing.assert_close(nn.functional.conv2d(x, kernel), slow, atol=1e-4, rtol=1e-4)


def test_a_layer_stored_the_other_way_round(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path, factors("c_fc"), fan_in_fan_out=True)
    (matrix,) = read_weights(adapter, base={"c_fc.weight": BASE.T.contiguous()}).matrices
    torch.testing.assert_close(matrix.read()[0], (BASE + 4 * B @ A).T)


def test_an_adapter_without_its_layer_or_partner_has_a_reason(tmp_path: Path) -> None:
    tensors = {**factors("gone"), f"{PREFIX}fc.lora_A.weight": A.clone()}
    weights = read_weights(write_adapter(tmp_path, tensors), base={"fc.weight": BASE})
    assert [matrix.name for matrix in weights.matrices] == ["fc"]
    assert weights.skipped == {
        f"{PREFIX}gone.weight": "part of an adapter, not in the base",
        f"{PREFIX}fc.lora_A.weight": "LoRA factor without its partner",
    }


def test_an_adapter_of_another_shape_has_a_reason(tmp_path: Path) -> None:
    weights = read_weights(write_adapter(tmp_path, factors()), base={"fc.weight": BASE.T})
    assert "adapter is for shape (5, 6), the base has (6, 5)" in weights.skipped["fc.weight"]


def test_dora_is_named_and_not_mistaken_for_lora(tmp_path: Path) -> None:
    tensors = {**factors(), f"{PREFIX}fc.lora_magnitude_vector": torch.ones(5)}
    adapter = write_adapter(tmp_path, tensors, use_dora=True)
    for base in (None, {"fc.weight": BASE}):
        weights = read_weights(adapter, base=base)
        assert weights.matrices == ()
        assert any(reason.startswith("DoRA") for reason in weights.skipped.values())


def test_a_scaling_that_nobody_knows(tmp_path: Path) -> None:
    (matrix,) = read_weights(factors()).matrices
    assert matrix.note == "LoRA scaling not known, taken as 1"
    torch.testing.assert_close(matrix.read()[0], B @ A)
    whole = {**factors(), f"{PREFIX}fc.base_layer.weight": BASE}
    weights = read_weights(whole)
    assert weights.matrices == ()
    assert "LoRA scaling not known" in weights.skipped[f"{PREFIX}fc.weight"]


def test_a_module_knows_how_its_adapters_act() -> None:
    model = nn.ModuleDict({"fc": LoraLinear(), "plain": nn.Linear(4, 4)})
    weights = read_weights(model)
    assert [matrix.name for matrix in weights.matrices] == ["fc", "plain"]
    torch.testing.assert_close(weights.matrices[0].read()[0], BASE + 0.5 * B @ A)
    assert weights.skipped == {"fc.bias": "vector", "plain.bias": "vector"}


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"merged_adapters": ["default"]}, "already merged"),
        ({"disable_adapters": True}, "not active"),
        ({"active_adapters": ["other"]}, "not active"),
    ],
)
def test_an_idle_adapter_leaves_the_base_as_it_is(state: dict[str, Any], why: str) -> None:
    weights = read_weights(nn.ModuleDict({"fc": LoraLinear(**state)}))
    (matrix,) = weights.matrices
    assert torch.equal(matrix.read()[0], BASE)
    assert why in weights.skipped["fc.lora_A.default.weight"]


def test_a_module_with_dora_is_named() -> None:
    weights = read_weights(nn.ModuleDict({"fc": LoraLinear(use_dora={"default": True})}))
    assert "merge_and_unload" in weights.skipped["fc.weight"]


def test_modules_to_save_replace_the_original() -> None:
    wrapper = nn.ModuleDict(
        {
            "original_module": nn.Linear(4, 3),
            "modules_to_save": nn.ModuleDict({"default": nn.Linear(4, 3)}),
        }
    )
    weights = read_weights(nn.ModuleDict({"head": wrapper}))
    (matrix,) = weights.matrices
    assert matrix.name == "head"
    saved = wrapper["modules_to_save"]["default"]
    assert torch.equal(matrix.read()[0], saved.weight.detach())
    assert "modules_to_save" in weights.skipped["head.original_module.weight"]


def test_other_adapters_are_named(tmp_path: Path) -> None:
    tensors = {f"{PREFIX}fc.oft_r": torch.randn(3, 3), f"{PREFIX}fc.hada_w1_a": torch.randn(3, 3)}
    weights = read_weights(write_adapter(tmp_path, tensors))
    assert weights.matrices == ()
    assert all("does not apply" in reason for reason in weights.skipped.values())


def test_a_broken_configuration_is_an_error(tmp_path: Path) -> None:
    write_adapter(tmp_path, factors())
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"adapter_config.json is no JSON"):
        read_weights(tmp_path)
