"""Weights that are stored as factors are read as they act, or say why they are not."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from fixtures.weights.matrices import by_name, from_file
from torch import nn
from torch.nn.utils import parametrizations, prune

from wwopt.weights.matrices import read_weights


def old_hook(apply: str, layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hooks are deprecated, checkpoints keep their names
        hooked: nn.Module = getattr(nn.utils, apply)(layer)
    return hooked


def pruned(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", amount=0.4)


PARAMETRISED = {
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(6, 5)),
    "weight norm, other dim": lambda: parametrizations.weight_norm(nn.Conv1d(6, 5, 3), dim=2),
    "weight norm, hook": lambda: old_hook("weight_norm", nn.Linear(6, 5)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(6, 5, 3)),
    "spectral norm, square": lambda: parametrizations.spectral_norm(nn.ConvTranspose2d(5, 5, 1)),
    "spectral norm, hook": lambda: old_hook("spectral_norm", nn.Linear(6, 5)),
    "pruning": lambda: pruned(nn.Linear(6, 5)),
}


@pytest.mark.parametrize("name", PARAMETRISED)
def test_parametrised_weights_are_read_as_they_act(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = PARAMETRISED[name]()
    for parameter in layer.parameters():  # away from where it was initialised
        parameter.data.add_(torch.rand_like(parameter))
    x = torch.randn(2, 6, *[4] * (layer.weight.ndim - 2))
    layer(x[:, : layer.weight.shape[0]] if "square" in name else x)
    layer.eval()
    layer(x[:, : layer.weight.shape[0]] if "square" in name else x)  # hooks act in forward only
    expected = read_weights({"layer.weight": layer.weight.detach()})
    layer.train()
    before = copy.deepcopy(layer.state_dict())
    model = nn.ModuleDict({"layer": layer})
    (expected_slices,) = by_name(expected).values()
    for weights in (
        read_weights(model),
        read_weights(model.state_dict()),
        from_file(model, tmp_path),
    ):
        slices = by_name(weights)["layer"]
        if weights.matrices[0].kind == "conv_transpose2d":  # which only the module knows
            slices = slices.mT
        torch.testing.assert_close(slices, expected_slices)
        assert weights.skipped == {"layer.bias": "vector"}
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_a_parametrisation_that_no_state_dict_records_needs_the_module() -> None:
    layer = parametrizations.orthogonal(nn.Linear(5, 5))
    assert torch.equal(by_name(read_weights(layer))["weight"][0], layer.weight.detach())
    weights = read_weights(layer.state_dict())
    assert "pass the module" in weights.skipped["weight"]
    assert weights.matrices == ()


@pytest.mark.parametrize(
    "shapes",
    [
        {"original": (5, 4), "0._u": (3,), "0._v": (4,)},
        {"original": (5, 4), "0._u": (), "0._v": ()},
        {"original": (5, 4), "0._u": (5, 1), "0._v": (4,)},
        {"original0": (3, 1), "original1": (5, 4)},
        {"original0": (5,), "original1": (5, 4)},
        {"original0": (5, 4), "original1": (5, 4)},
    ],
)
def test_factors_that_do_not_fit_are_not_multiplied(shapes: dict[str, tuple[int, ...]]) -> None:
    parts = {f"fc.parametrizations.weight.{part}": torch.ones(s) for part, s in shapes.items()}
    weights = read_weights(parts)
    assert weights.matrices == ()
    assert "pass the module" in weights.skipped["fc.weight"]


@pytest.mark.parametrize(
    ("scale", "suffix"), [((), "_scale"), ((200, 1), "_scale"), ((2, 3), "_scale_inv")]
)
def test_scales_of_fp8_weights_act(scale: tuple[int, ...], suffix: str) -> None:
    weight = torch.randn(200, 300).to(torch.float8_e4m3fn)
    scales = torch.rand(scale) + 0.5
    spread = scales
    if scale == (2, 3):  # blocks of 128 x 128
        spread = scales.repeat_interleave(128, 0)[:200].repeat_interleave(128, 1)[:, :300]
    weights = read_weights({"fc.weight": weight, f"fc.weight{suffix}": scales})
    torch.testing.assert_close(by_name(weights)["fc"][0], weight.float() * spread)
    assert weights.skipped == {}


@pytest.mark.parametrize(
    ("state", "tool"),
    [
        ({"qweight": torch.int32, "qzeros": torch.int32, "scales": torch.float16}, "GPTQ or AWQ"),
        ({"weight": torch.uint8, "weight.absmax": torch.float32}, "bitsandbytes 4 bit"),
        ({"weight": torch.int8, "SCB": torch.float32}, "bitsandbytes int8"),
        ({"weight_packed": torch.int32, "weight_scale": torch.bfloat16}, "compressed-tensors"),
        ({"up_blocks": torch.uint8, "up_scales": torch.uint8}, "MXFP4"),
        ({"weight": torch.int8}, "int8"),
    ],
)
def test_quantized_layers_are_named_and_their_scales_are_no_matrices(
    state: dict[str, torch.dtype], tool: str
) -> None:
    weights = read_weights({f"fc.{k}": torch.ones(8, 8).to(dtype) for k, dtype in state.items()})
    assert weights.matrices == ()
    assert weights.skipped.keys() == {f"fc.{name}" for name in state}
    assert all(reason.startswith(f"quantized: {tool}") for reason in weights.skipped.values())
