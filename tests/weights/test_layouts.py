"""What a matrix must do, act as its layer; where stacked ones are cut, and what names tell."""

from pathlib import Path

import pytest
import torch
from fixtures.weights.matrices import Conv1D, by_name, from_file
from safetensors.torch import save_file
from torch import nn

from wwopt.weights.matrices import read_weights


@pytest.mark.parametrize(
    ("layer", "kind", "x"),
    [
        (nn.Linear(5, 3, bias=False), "linear", torch.randn(5)),
        (nn.Conv1d(5, 3, 1, bias=False), "conv1d", torch.randn(5, 1)),
        (nn.Conv2d(5, 3, 1, bias=False), "conv2d", torch.randn(5, 1, 1)),
        (nn.Conv3d(3, 5, 1, bias=False), "conv3d", torch.randn(3, 1, 1, 1)),
        (nn.ConvTranspose1d(5, 3, 1, bias=False), "conv_transpose1d", torch.randn(5, 1)),
        (nn.ConvTranspose2d(3, 5, 1, bias=False), "conv_transpose2d", torch.randn(3, 1, 1)),
        (nn.ConvTranspose3d(5, 3, 1, bias=False), "conv_transpose3d", torch.randn(5, 1, 1, 1)),
        (Conv1D(3, 5), "hf_conv1d", torch.randn(5)),
    ],
)
def test_the_matrix_acts_as_the_layer(layer: nn.Module, kind: str, x: torch.Tensor) -> None:
    (matrix,) = read_weights(nn.ModuleDict({"fc": layer})).matrices
    assert (matrix.name, matrix.kind) == ("fc", kind)
    assert matrix.shape == (5, 3)
    torch.testing.assert_close(matrix.read()[0] @ x.flatten(), layer(x).detach().flatten())


@pytest.mark.parametrize(("out_channels", "in_channels"), [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("kernel", [2, 3])
def test_every_kernel_position_is_a_slice_of_one_orientation(
    out_channels: int, in_channels: int, kernel: int
) -> None:
    conv = nn.Conv2d(in_channels, out_channels, kernel)
    (matrix,) = read_weights(conv).matrices
    assert matrix.num_slices == kernel**2
    assert matrix.shape == (max(out_channels, in_channels), min(out_channels, in_channels))
    expected = [conv.weight[:, :, i, j] for i in range(kernel) for j in range(kernel)]
    assert torch.equal(matrix.read(), torch.stack(expected))


@pytest.mark.parametrize("family", [nn.Conv1d, nn.ConvTranspose1d])
def test_slices_of_a_grouped_convolution_are_its_diagonal_blocks(family: type[nn.Conv1d]) -> None:
    conv = family(6, 9, 1, groups=3, bias=False)
    (matrix,) = read_weights(conv).matrices
    assert (matrix.num_slices, matrix.shape) == (3, (3, 2))
    x = torch.randn(6, 1)
    acts = torch.block_diag(*matrix.read()) @ x
    torch.testing.assert_close(acts, conv(x).detach())


@pytest.mark.parametrize(
    "conv",
    [nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(1, 8, 3), nn.ConvTranspose2d(8, 8, 2, groups=8)],
)
def test_convolutions_of_one_channel_per_group_are_skipped_by_name(conv: nn.Module) -> None:
    weights = read_weights(nn.ModuleDict({"conv": conv}))
    assert weights.matrices == ()
    assert "one channel per group" in weights.skipped["conv.weight"]


def test_attention_is_cut_into_query_key_and_value() -> None:
    attention = nn.MultiheadAttention(8, 2)
    weights = by_name(read_weights(nn.ModuleDict({"attn": attention})))
    assert list(weights) == [
        "attn.in_proj.q",
        "attn.in_proj.k",
        "attn.in_proj.v",
        "attn.out_proj",
    ]
    q, k, v = attention.in_proj_weight.chunk(3)
    assert torch.equal(weights["attn.in_proj.k"][0], k)
    assert torch.equal(torch.cat(list(weights.values())[:3]), torch.stack([q, k, v]))


def test_attention_to_another_width_has_three_matrices_already() -> None:
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4)
    shapes = {matrix.name: matrix.shape for matrix in read_weights(attention).matrices}
    assert shapes == {"q_proj": (8, 8), "k_proj": (8, 6), "v_proj": (8, 4), "out_proj": (8, 8)}


@pytest.mark.parametrize(
    ("rnn", "gates"),
    [
        (nn.LSTM(5, 4), ("input_gate", "forget_gate", "cell_gate", "output_gate")),
        (nn.LSTMCell(5, 4), ("input_gate", "forget_gate", "cell_gate", "output_gate")),
        (nn.GRU(5, 4, num_layers=2), ("reset_gate", "update_gate", "new_gate")),
        (nn.RNN(5, 4, bidirectional=True), ()),
        (nn.LSTM(5, 8, proj_size=3), ("input_gate", "forget_gate", "cell_gate", "output_gate")),
    ],
)
def test_gates_are_cut_where_torch_stacks_them(
    rnn: nn.Module, gates: tuple[str, ...], tmp_path: Path
) -> None:
    model = nn.ModuleDict({"rnn": rnn})
    expected = {}
    for name, weight in rnn.named_parameters():
        if "bias" in name:
            continue
        blocks = weight.chunk(len(gates)) if gates and "weight_hr" not in name else (weight,)
        suffixes = [f".{gate}" for gate in gates] if len(blocks) > 1 else [""]
        for suffix, block in zip(suffixes, blocks, strict=True):
            expected[f"rnn.{name}{suffix}"] = block.detach().unsqueeze(0)
    for weights in (read_weights(model), from_file(model, tmp_path)):
        found = by_name(weights)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert {matrix.kind for matrix in weights.matrices} == {"rnn"}


def test_gates_that_do_not_divide_stay_in_one_and_say_so() -> None:
    state = {"f.weight_ih_l0": torch.randn(10, 5), "f.weight_hh_l0": torch.randn(10, 4)}
    weights = read_weights(state)
    assert [matrix.name for matrix in weights.matrices] == list(state)
    assert "gates kept in one" in weights.matrices[0].note


def test_experts_and_bilinear_forms_are_slices() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.randn(4, 6, 5))
            self.router = nn.Parameter(torch.randn(4, 6))

    model = nn.ModuleDict({"form": nn.Bilinear(5, 6, 3), "mlp": Experts()})
    form, up, router = read_weights(model).matrices
    assert (form.kind, form.num_slices, form.shape) == ("bilinear", 3, (6, 5))
    assert (up.kind, up.num_slices, up.shape) == ("moe", 4, (6, 5))
    assert (router.kind, router.name) == ("parameter", "mlp.router")
    x, y = torch.randn(5), torch.randn(6)
    expected = model["form"](x, y) - model["form"].bias
    torch.testing.assert_close(form.read() @ y @ x, expected.detach())


@pytest.mark.parametrize("name", ["c_attn", "attn.qkv", "self_attn.qkv_proj", "Wqkv", "to_qkv"])
def test_fused_rows_are_cut_into_thirds(name: str) -> None:
    blocks = torch.randn(3, 6, 6)
    weights = by_name(read_weights({f"{name}.weight": blocks.flatten(0, 1)}))
    assert list(weights) == [f"{name}.q", f"{name}.k", f"{name}.v"]
    assert torch.equal(torch.cat(list(weights.values())), blocks)


def test_gpt2_stores_inputs_in_rows_and_a_file_shows_it() -> None:
    block = {"attn.c_attn": Conv1D(18, 6), "attn.c_proj": Conv1D(6, 6), "mlp.c_fc": Conv1D(24, 6)}
    state = {f"h.0.{name}.weight": layer.weight.detach() for name, layer in block.items()}
    weights = read_weights(state)
    assert [m.kind for m in weights.matrices] == ["attention"] * 3 + ["hf_conv1d"] * 2
    slices = by_name(weights)
    assert torch.equal(slices["h.0.attn.c_attn.v"][0], state["h.0.attn.c_attn.weight"][:, 12:].T)
    assert torch.equal(slices["h.0.attn.c_proj"][0], state["h.0.attn.c_proj.weight"].T)


@pytest.mark.parametrize(
    ("name", "rows", "why"),
    [
        ("layers.0.qkv_proj", 12, "12 rows are not 3 x 6 columns"),  # grouped-query attention
        ("query_key_value", 18, "number of heads is not known"),
        ("transformer.h.0.attn.qkv_proj", 18, "CodeGen"),
    ],
)
def test_fused_rows_that_cannot_be_told_apart_stay_in_one(name: str, rows: int, why: str) -> None:
    (matrix,) = read_weights({f"{name}.weight": torch.randn(rows, 6)}).matrices
    assert (matrix.name, matrix.kind) == (name, "attention")
    assert why in matrix.note


def test_rows_that_go_head_by_head_are_cut_when_the_heads_are_known() -> None:
    class Config:
        model_type = "gpt_neox"
        num_attention_heads = 2

    model = nn.ModuleDict({"query_key_value": nn.Linear(6, 18, bias=False)})
    model.config = Config()
    per_head = model["query_key_value"].weight.detach().reshape(2, 3, 3, 6)  # head, qkv, row
    slices = by_name(read_weights(model))
    assert torch.equal(slices["query_key_value.k"][0], per_head[:, 1].reshape(6, 6))


@pytest.mark.parametrize(
    ("dtype", "promoted"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float8_e4m3fn, torch.float32),
        (torch.float8_e5m2, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_short_floats_are_promoted(
    dtype: torch.dtype, promoted: torch.dtype, tmp_path: Path
) -> None:
    weight = torch.randn(5, 4).to(dtype)
    save_file({"fc.weight": weight}, tmp_path / "w.safetensors")
    for source in ({"fc.weight": weight}, tmp_path / "w.safetensors"):
        (matrix,) = read_weights(source).matrices
        assert matrix.dtype == str(dtype).removeprefix("torch.")
        assert matrix.read().dtype == promoted
        assert torch.equal(matrix.read()[0], weight.to(promoted))


def test_kinds_come_from_names_where_there_is_no_module() -> None:
    square, cube = torch.ones(4, 4), torch.ones(4, 4, 4)
    state = {
        "wte.weight": square,
        "embeddings.word_embeddings.weight": square,
        "embed_out.weight": square,
        "pos_embed": torch.ones(1, 4, 4),
        "time_embedding.linear_1.weight": square,
        "shared.weight": square,
        "conv.weight": cube,
        "up.deconv.weight": torch.ones(4, 4, 2, 2),
        "mlp.experts.w1": cube,
        "rel_attn.q": cube,
        "ln_f.weight": square,
        "h.0.attn.bias": torch.ones(1, 1, 4, 4),
        "mixer.A_log": square,
        "attn.relative_position_bias_table": square,
        "_fsdp_wrapped_module._flat_param": torch.ones(4),
    }
    state = {name: tensor.clone() for name, tensor in state.items()}
    weights = read_weights(state)
    assert {matrix.name: matrix.kind for matrix in weights.matrices} == {
        "wte": "embedding",
        "embeddings.word_embeddings": "embedding",
        "embed_out": "linear",
        "pos_embed": "embedding",
        "time_embedding.linear_1": "linear",
        "shared": "embedding",
        "conv": "conv1d",
        "up.deconv": "conv_transpose2d",
        "mlp.experts.w1": "moe",
        "mixer.A_log": "parameter",
        "attn.relative_position_bias_table": "embedding",
    }
    assert weights.skipped == {
        "rel_attn.q": "3-dimensional, neither convolution nor experts: shape (4, 4, 4)",
        "ln_f.weight": "norm",
        "h.0.attn.bias": "bias",
        "_fsdp_wrapped_module._flat_param": (
            "sharded over processes (FSDP); gather the full state dict first"
        ),
    }
