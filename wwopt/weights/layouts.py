"""Which matrices a stored tensor holds, told from its name, its shape and, if known, its module.

Every matrix is a stack of slices of one shape, rows are outputs: a linear weight is one slice; a
convolution one slice per kernel position and group (Conv2d 3x3: nine slices out x in); stacked
experts one per expert. Orientation is that of the operator and never changes from slice to slice.
Tensors that stack several matrices (q, k, v; gates) are cut into parts with names of their own.

Rules for names, where ``name`` is the tensor's: a trailing ``.weight`` goes; of torch's attention
also ``_weight`` (``attn.in_proj_weight`` becomes ``attn.in_proj``); parts add ``.q``, ``.k``,
``.v`` or ``.input_gate`` and so on; any other parameter keeps its whole name.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from wwopt.weights.stored_tensors import StoredTensor

# Gate order is torch's: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
_GATES = {
    1: ("",),
    3: (".reset_gate", ".update_gate", ".new_gate"),
    4: (".input_gate", ".forget_gate", ".cell_gate", ".output_gate"),
}
_RNN = re.compile(r"weight_(ih|hh|hr)((?:_l\d+)?(?:_reverse)?)$")
_TORCH_ATTENTION = re.compile(r"(?:in|q|k|v)_proj_weight$")
_EMBEDDING = re.compile(
    r"(?:^|.*_)(?:emb|embd|embed|embeds|embedding|embeddings)s?$"
    r"|embed_(?:tokens|positions|in)$|positional_embedding$|w[tp]e$|shared$"
    r"|relative_attention_bias$|.*_bias_table$"
)
_NORM = re.compile(
    r"(?:.*_)?(?:norm|layernorm|layer_norm|rmsnorm|ln|bn)(?:_?\w?\d*)$", re.IGNORECASE
)
_EXPERTS = re.compile(r"(?:^|[._])(?:experts?|moe)(?:[._]|$)", re.IGNORECASE)
_TRANSPOSED = re.compile(r"transpose|deconv|upconv", re.IGNORECASE)
_STACKED_QKV = frozenset({"c_attn", "qkv", "qkv_proj", "wqkv", "to_qkv"})  # q rows, k rows, v rows
# GPT-NeoX, BLOOM and Falcon stack q, k, v head by head, so thirds would mix them.
_QKV_BY_HEAD = frozenset({"query_key_value"})
_BY_HEAD_MODELS = frozenset({"gpt_bigcode"})  # whose c_attn does the same
_CODEGEN = re.compile(r"(?:^|\.)h\.\d+\.attn\.qkv_proj$")  # rows ordered for TPU cores
_GPT2_LINEAR = frozenset({"c_attn", "c_fc", "c_proj", "q_attn"})
_CONV = {3: "conv1d", 4: "conv2d", 5: "conv3d"}


@dataclass(frozen=True)
class ModelFacts:
    """What a tensor's own name and shape do not tell."""

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of every tensor
    heads: int | None = None  # attention heads, from the configuration
    model_type: str = ""  # Hugging Face's, e.g. "gpt_neox"
    gpt2_linear: bool = False  # c_attn, c_fc, c_proj are stored in x out


@dataclass(frozen=True)
class MatrixPart:
    """One matrix (a stack of equal slices) inside a stored tensor."""

    name: str
    kind: str
    layout: str  # "matrix" | "transposed" | "stack" | "conv" | "conv_transpose"
    groups: int = 1  # of a convolution
    index: int = 0  # which of ``count`` blocks of rows
    count: int = 1
    heads: int = 1  # blocks repeat head by head
    note: str = ""

    def slice_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(num_slices, rows, columns) of this part in a tensor of ``shape``."""
        if self.layout == "stack":
            return shape[0], shape[1], shape[2]
        if self.layout == "transposed":
            return 1, shape[1] // self.count, shape[0]
        if self.layout == "conv":
            return self.groups * math.prod(shape[2:]), shape[0] // self.groups, shape[1]
        if self.layout == "conv_transpose":
            return self.groups * math.prod(shape[2:]), shape[1], shape[0] // self.groups
        return 1, shape[0] // self.count, shape[1]

    def slices(self, tensor: torch.Tensor) -> torch.Tensor:  # (num_slices, rows, columns)
        """Cut this part out of the tensor and promote it to float32, float64 stays."""
        if tensor.dtype not in {torch.float32, torch.float64}:
            tensor = tensor.to(torch.float32)
        if self.layout == "stack":
            return tensor
        if self.layout in {"conv", "conv_transpose"}:
            grouped = tensor.reshape(
                self.groups, tensor.shape[0] // self.groups, tensor.shape[1], -1
            )
            order = (0, 3, 1, 2) if self.layout == "conv" else (0, 3, 2, 1)
            return grouped.permute(*order).flatten(0, 1)
        matrix = tensor.T if self.layout == "transposed" else tensor
        if self.count > 1:
            blocks = matrix.reshape(self.heads, self.count, -1, matrix.shape[1])
            matrix = blocks[:, self.index].flatten(0, 1)
        return matrix.unsqueeze(0)


def matrix_parts(tensor: StoredTensor, facts: ModelFacts) -> tuple[MatrixPart, ...] | str:
    """The matrices a tensor holds, in the order of its rows, or the reason it holds none."""
    if tensor.problem:
        return tensor.problem
    shape = tensor.shape
    if tensor.name.endswith("_flat_param"):
        return "sharded over processes (FSDP); gather the full state dict first"
    if len(shape) < 2:
        return "vector" if shape else "scalar"
    if 0 in shape:
        return f"empty: shape {shape}"
    if tensor.buffer:
        return "buffer: not trained"
    kind = tensor.kind or _kind_from_name(tensor.name, shape, facts)
    parts = _cut(tensor, kind, facts)
    if isinstance(parts, str):
        return parts
    num_slices, rows, columns = parts[0].slice_shape(shape)
    if min(rows, columns) == 1:
        if kind.startswith("conv"):
            slices = f"{num_slices} slices of {rows} x {columns}"
            return f"one channel per group ({slices}, a depthwise or one-channel convolution)"
        return f"one row or column: {rows} x {columns}"
    return parts


def layer_name(tensor_name: str) -> str:
    """The name of the layer that owns a weight: the module path where there is one."""
    if _TORCH_ATTENTION.search(tensor_name):
        return tensor_name.removesuffix("_weight")
    return tensor_name.removesuffix(".weight")


def _kind_from_name(name: str, shape: tuple[int, ...], facts: ModelFacts) -> str:
    *path, leaf = name.split(".")
    module = path[-1] if leaf == "weight" and path else leaf
    if leaf == "bias" or leaf.endswith("_bias"):
        return "bias"
    if _NORM.match(module):
        return "norm"
    if len(shape) == 2:
        if _RNN.search(leaf):
            return "rnn"
        if _TORCH_ATTENTION.search(leaf):
            return "attention"
        if facts.gpt2_linear and module in _GPT2_LINEAR:
            return "hf_conv1d"
        if _EMBEDDING.match(module):
            return "embedding"
        return "linear" if leaf == "weight" else "parameter"
    if len(shape) == 3 and _EXPERTS.search(name):
        return "moe"
    if len(shape) == 3 and "bilinear" in name.lower():
        return "bilinear"
    if leaf == "weight" and len(shape) in _CONV:
        kind = _CONV[len(shape)]
        return kind.replace("conv", "conv_transpose") if _TRANSPOSED.search(name) else kind
    if len(shape) == 3:
        return "embedding" if shape[0] == 1 else "unknown"
    return "unknown"


def _cut(tensor: StoredTensor, kind: str, facts: ModelFacts) -> tuple[MatrixPart, ...] | str:
    name, shape = layer_name(tensor.name), tensor.shape
    if kind in {"bias", "norm"}:
        return kind
    if kind == "unknown":
        return f"{len(shape)}-dimensional, neither convolution nor experts: shape {shape}"
    if kind.startswith("conv_transpose"):
        return (MatrixPart(name, kind, "conv_transpose", groups=tensor.groups),)
    if kind.startswith("conv"):
        return (MatrixPart(name, kind, "conv", groups=tensor.groups),)
    if len(shape) == 3:
        return (MatrixPart(name, kind, "stack"),)
    if len(shape) > 3:
        return f"{len(shape)}-dimensional {kind} weight: shape {shape}"
    if kind == "rnn":
        return _cut_gates(name, shape, facts)
    return _cut_attention(name, kind, shape, facts)


def _cut_gates(name: str, shape: tuple[int, ...], facts: ModelFacts) -> tuple[MatrixPart, ...]:
    matched = _RNN.search(name)
    if matched is None or matched[1] == "hr":  # the projection of an LSTM has no gates
        return (MatrixPart(name, "rnn", "matrix"),)
    stem = name[: matched.start()]
    # The hidden size is the width of weight_hh, or what a projecting LSTM's weight_hr projects.
    beside = (f"{stem}weight_hr{matched[2]}", f"{stem}weight_hh{matched[2]}")
    hidden = next((facts.shapes[other][-1] for other in beside if other in facts.shapes), 0)
    gates = _GATES.get(shape[0] // hidden) if hidden and shape[0] % hidden == 0 else None
    if gates is None:
        note = f"{shape[0]} rows are not 1, 3 or 4 times {hidden} hidden units: gates kept in one"
        return (MatrixPart(name, "rnn", "matrix", note=note),)
    return tuple(
        MatrixPart(name + gate, "rnn", "matrix", index=i, count=len(gates))
        for i, gate in enumerate(gates)
    )


def _cut_attention(
    name: str, kind: str, shape: tuple[int, ...], facts: ModelFacts
) -> tuple[MatrixPart, ...]:
    layout = "transposed" if kind == "hf_conv1d" else "matrix"
    module = name.rpartition(".")[2].lower()
    by_head = module in _QKV_BY_HEAD or facts.model_type in _BY_HEAD_MODELS
    stacked = module in _STACKED_QKV or (kind == "attention" and module == "in_proj")
    if not (stacked or module in _QKV_BY_HEAD):
        return (MatrixPart(name, kind, layout),)
    rows, columns = shape if layout == "matrix" else (shape[1], shape[0])
    heads = (facts.heads or 0) if by_head else 1
    if rows != 3 * columns:
        note = f"q, k and v kept in one: {rows} rows are not 3 x {columns} columns"
    elif _CODEGEN.search(name):
        note = "q, k and v kept in one: CodeGen orders their rows for TPU cores"
    elif heads == 0 or columns % heads:
        note = "q, k and v kept in one: rows go head by head, and the number of heads is not known"
    else:
        return tuple(
            MatrixPart(f"{name}.{part}", "attention", layout, index=i, count=3, heads=heads)
            for i, part in enumerate("qkv")
        )
    return (MatrixPart(name, "attention", layout, note=note),)
