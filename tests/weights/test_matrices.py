"""What a matrix must do, act as its layer, first; then names, sources compared, and reasons."""

import copy
import pickle
import re
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune

from wwopt.weights.matrices import Weights, read_weights
from wwopt.weights.stored_tensors import WeightsError


def by_name(weights: Weights) -> dict[str, torch.Tensor]:
    return {matrix.name: matrix.read() for matrix in weights.matrices}


def assert_same(weights: Weights, others: Weights) -> None:
    """Same layers with the same values, in any order."""
    ours, theirs = by_name(weights), by_name(others)
    assert ours.keys() == theirs.keys()
    for name, slices in ours.items():
        torch.testing.assert_close(slices, theirs[name], rtol=1e-6, atol=1e-7)


def from_file(model: nn.Module, folder: Path) -> Weights:
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "w.safetensors")
    return read_weights(folder / "w.safetensors")


class Conv1D(nn.Module):
    """Hugging Face's linear layer with weights in x out, known to wwopt by its name."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns))
        self.bias = nn.Parameter(torch.zeros(columns))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


# --- a matrix acts as its layer -------------------------------------------------------------


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


# --- fused q, k, v --------------------------------------------------------------------------


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


# --- parametrised weights -------------------------------------------------------------------


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


# --- dtypes and what is no weight -----------------------------------------------------------


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


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.ones(3), "vector"),
        (torch.tensor(1.0), "scalar"),
        (torch.ones(0, 5), r"empty: shape \(0, 5\)"),
        (torch.ones(1, 9), "one row or column: 1 x 9"),
        (torch.ones(9, 1), "one row or column: 9 x 1"),
        (torch.ones(3, 3, dtype=torch.int64), "int64: not a weight"),
        (torch.ones(3, 3, dtype=torch.bool), "bool: not a weight"),
        (torch.ones(3, 3, dtype=torch.complex64), "complex"),
        (torch.ones(3, 3, device="meta"), "meta tensor"),
        (torch.eye(3).to_sparse(), "sparse_coo tensor"),
        (torch.ones(2, 3, 4, 5, 6, 7), "6-dimensional"),
        ("text", "not a tensor: str"),
    ],
)
def test_what_is_no_matrix_has_a_reason(tensor: object, why: str) -> None:
    weights = read_weights({"fc.weight": torch.ones(2, 2), "x.weight": tensor})
    assert [matrix.name for matrix in weights.matrices] == ["fc"]
    assert re.search(why, weights.skipped["x.weight"])


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


def test_values_that_are_not_finite_are_read_as_they_are() -> None:
    weight = torch.tensor([[torch.nan, torch.inf], [0.0, -torch.inf]])
    (matrix,) = read_weights({"fc.weight": weight}).matrices
    assert torch.equal(matrix.read()[0].isnan(), weight.isnan())


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


@given(
    st.dictionaries(
        st.text("abh.0_weight", min_size=1, max_size=12),
        st.lists(st.integers(0, 3), max_size=5).map(tuple),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=150, deadline=None)
def test_every_tensor_is_a_matrix_or_has_a_reason(shapes: dict[str, tuple[int, ...]]) -> None:
    weights = read_weights({name: torch.ones(shape) for name, shape in shapes.items()})
    names = [name for m in weights.matrices for name in (m.name, *m.tied)]
    assert len(set(names)) == len(names)
    for matrix in weights.matrices:
        slices, rows, columns = matrix.read().shape
        assert (slices, max(rows, columns), min(rows, columns)) == (
            matrix.num_slices,
            *matrix.shape,
        )
    assert all(weights.skipped.values())
    assert len({name.partition(".q")[0] for name in names}) + len(weights.skipped) >= 1


# --- tied weights, sources against each other, base, layers ---------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(12, 6)
        self.fc = nn.Linear(6, 6)
        self.again = self.fc
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.wte.weight


def test_tied_weights_count_once_under_their_first_name(tmp_path: Path) -> None:
    model = Tied()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    for source in (model, model.state_dict(), tmp_path / "w.pt"):
        tied = {matrix.name: matrix.tied for matrix in read_weights(source).matrices}
        assert tied == {"wte": ("head",), "fc": ("again",)}


def test_equal_values_are_not_tied() -> None:
    assert (
        len(read_weights({"a.weight": torch.ones(3, 3), "b.weight": torch.ones(3, 3)}).matrices)
        == 2
    )


def test_module_state_dict_and_files_agree(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(9, 6), nn.Linear(6, 8), nn.Conv2d(4, 6, 3), nn.MultiheadAttention(6, 2)
    ).to(torch.bfloat16)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    expected = read_weights(model)
    assert_same(read_weights(model.state_dict()), expected)
    assert_same(read_weights(tmp_path / "w.pt"), expected)
    assert_same(from_file(model, tmp_path), expected)
    assert {matrix.dtype for matrix in expected.matrices} == {"bfloat16"}


def test_a_matrix_in_a_file_can_be_sent_to_another_process(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LSTM(4, 5))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    for weights in (from_file(model, tmp_path), read_weights(tmp_path / "w.pt")):
        for matrix in weights.matrices:
            sent = pickle.dumps(matrix)
            assert len(sent) < 2000  # a path and a name, no values
            assert torch.equal(pickle.loads(sent).read(), matrix.read())


def test_reading_is_late() -> None:
    layer = nn.Linear(3, 3)
    (matrix,) = read_weights(layer).matrices
    with torch.no_grad():
        layer.weight.fill_(7.0)
    assert torch.equal(matrix.read(), torch.full((1, 3, 3), 7.0))
    assert not matrix.read().requires_grad


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "module._orig_mod.model."])
def test_base_is_subtracted_by_name_whatever_wraps_it(prefix: str) -> None:
    before = {"fc1.weight": torch.randn(4, 3), "fc2.weight": torch.randn(5, 4)}
    step = {name: torch.randn_like(weight) for name, weight in before.items()}
    after = {prefix + name: before[name] + step[name] for name in reversed(before)}
    weights = read_weights(after, base=before)
    assert weights.skipped == {}
    for matrix in weights.matrices:
        expected = step[f"{matrix.name.removeprefix(prefix)}.weight"]
        torch.testing.assert_close(matrix.read()[0], expected)
    assert len(read_weights(before, base=after).matrices) == 2


def test_an_extra_layer_shifts_no_pairs_and_is_named() -> None:
    before = {
        "a.weight": torch.ones(3, 3),
        "c.weight": torch.ones(4, 4),
        "d.weight": torch.ones(2, 2),
    }
    after = {
        "a.weight": torch.ones(3, 3) * 3,
        "b.weight": torch.ones(3, 3),
        "c.weight": torch.ones(5, 4),
    }
    weights = read_weights(after, base=before)
    assert read_weights(before, base={"a.weight": torch.eye(3).int()}).matrices == ()
    assert {matrix.name: float(matrix.read()[0, 0, 0]) for matrix in weights.matrices} == {"a": 2.0}
    assert weights.skipped == {
        "b.weight": "not in the base",
        "c.weight": "shape (5, 4) here, (4, 4) in the base",
        "d.weight": "only in the base",
    }


def test_an_exact_partner_is_not_taken_by_a_prefixed_name() -> None:
    both = {"fc.weight": torch.ones(2, 2), "model.fc.weight": torch.ones(2, 2) * 2}
    weights = read_weights(both, base={"fc.weight": torch.ones(2, 2)})
    assert [matrix.name for matrix in weights.matrices] == ["fc"]
    assert weights.skipped == {"model.fc.weight": "not in the base"}


def test_a_head_around_the_base_is_seen_through() -> None:
    base = {f"h.{i}.weight": torch.ones(3, 3) * i for i in range(4)}
    tuned = {f"transformer.{name}": weight + 1 for name, weight in base.items()}
    tuned |= {"lm_head.weight": torch.ones(3, 3)}
    for source, other, sign in ((tuned, base, 1.0), (base, tuned, -1.0)):
        weights = read_weights(source, base=other)
        assert len(weights.matrices) == 4
        assert all(torch.equal(m.read()[0], torch.full((3, 3), sign)) for m in weights.matrices)
        assert list(weights.skipped) == ["lm_head.weight"]


def test_one_common_name_is_no_wrapper() -> None:
    base = {"fc.weight": torch.ones(3, 3), "out.weight": torch.ones(3, 3)}
    weights = read_weights({"encoder.fc.weight": torch.ones(3, 3)}, base=base)
    assert weights.matrices == ()


def test_a_file_and_a_module_can_be_compared(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ConvTranspose2d(4, 4, 3, groups=2))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    weights = read_weights(tmp_path / "w.safetensors", base=model)
    assert [matrix.num_slices for matrix in weights.matrices] == [1, 18]  # the module knows groups
    assert weights.matrices[1].kind == "conv_transpose2d"
    assert all(not matrix.read().any() for matrix in weights.matrices)


def test_layers_are_chosen_by_name_module_or_pattern() -> None:
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 1), "fc": nn.Linear(4, 4)})
    weights = read_weights(model, layers=["attn.in_proj", "f?"])
    assert [m.name for m in weights.matrices] == [
        "attn.in_proj.q",
        "attn.in_proj.k",
        "attn.in_proj.v",
        "fc",
    ]
    assert weights.skipped["attn.out_proj"] == "not selected"
    assert [m.name for m in read_weights(Tied(), layers=["head"]).matrices] == ["wte"]
    compiled = {"_orig_mod.fc.weight": torch.ones(3, 3)}
    assert [m.name for m in read_weights(compiled, layers=["fc"]).matrices] == ["_orig_mod.fc"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["fc_1"], r"no layer 'fc_1'; did you mean 'fc1'"),
        (["zzzz"], r"no layer 'zzzz'; did you mean 'fc1'"),
        (["fc1.bias"], r"layer 'fc1.bias' is not analysed: vector"),
        (["conv"], r"layer 'conv' is not analysed: one channel per group"),
        ("fc1", "must be a list of names, got the string 'fc1'"),
    ],
)
def test_an_unknown_layer_is_an_error_with_a_way_out(layers: list[str], message: str) -> None:
    model = nn.ModuleDict({"fc1": nn.Linear(3, 3), "conv": nn.Conv2d(1, 3, 3)})
    with pytest.raises(WeightsError, match=message):
        read_weights(model, layers=layers)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "holds no tensors .keys: none.; pass a state dict"),
        ({"lr": 0.1}, "keys: 'lr'"),
        (3, "cannot read weights from a int; pass an nn.Module"),
    ],
)
def test_what_is_no_source_says_so(source: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_weights(source)


def test_a_mapping_in_itself_ends() -> None:
    state: dict[str, object] = {"fc.weight": torch.ones(3, 3)}
    state["again"] = {"again": state}
    assert "fc" in by_name(read_weights(state))


def test_a_module_without_weights_has_none() -> None:
    assert read_weights(nn.ReLU()) == Weights((), {})


def test_a_trainers_checkpoint_holds_the_state_dict_somewhere() -> None:
    state = nn.Linear(4, 3).state_dict()
    checkpoint = {"epoch": 3, "model": state, "optimizer": {"m": torch.ones(4, 3)}, "ema": state}
    weights = read_weights(checkpoint)
    assert [matrix.name for matrix in weights.matrices] == ["weight"]
    assert weights.skipped["optimizer"] == "optimizer state"
    assert weights.skipped["ema"].startswith("another mapping with tensors")
