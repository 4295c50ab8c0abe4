"""One tensor of a source: name, shape and dtype now, its values only when asked for.

A module, a state dict and a checkpoint of any format become a list of ``StoredTensor``. Reading
is a function without arguments, so a checkpoint of any size costs one tensor of memory, and a
tensor in a file travels to another process as a path and a name.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

# Where trainers keep the model in a checkpoint, most common first: Lightning's "state_dict",
# torch tutorials' "model_state_dict", DeepSpeed's "module".
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "module", "net")
# Moments of an optimizer have the shape of weights and would be mistaken for them.
OPTIMIZER_KEYS = frozenset(
    {"optim", "optims", "optimizer", "optimizers", "optimizer_states", "optimizer_state_dict"}
)
_LAZY = (UninitializedBuffer, UninitializedParameter)
_DEEPEST = 16  # nested mappings; deeper ones are cycles or not checkpoints


class WeightsError(ValueError):
    """A source that cannot be read: what, the value found, and the way out, in one line."""

    def __init__(self, message: str) -> None:
        # Names in other people's files may hold line breaks and escape sequences.
        printable = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__("".join(printable))


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor that can be read later."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # as stored, e.g. "bfloat16"
    read: Callable[[], torch.Tensor]
    identity: Hashable = None  # equal for two names of one tensor; None: not known
    problem: str = ""  # why it holds no weights that can be analysed
    kind: str = ""  # from the type of the module that owns it; "": told from name and shape
    groups: int = 1  # of a convolution
    buffer: bool = False  # a module's tensor that is not trained
    device: str = "cpu"  # kind of device that it lies on; files are read to the CPU
    rank_bound: int | None = None  # of a low-rank product
    note: str = ""  # what a reader of its spectrum should know


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a dtype without the ``torch.`` in front."""
    return str(dtype).removeprefix("torch.")


def dtype_problem(dtype: str) -> str:
    """Why tensors of this dtype are no weights, or ""."""
    if dtype.startswith("complex"):
        return f"complex: {dtype}, eigenvalues here are those of real matrices"
    if dtype.startswith(("float4_", "float6_", "float8_e8m0")):
        return f"quantized: {dtype}; save the model dequantized to analyse it"
    if dtype.startswith(("float", "bfloat")):
        return ""
    if dtype in {"int8", "uint8"}:
        return f"quantized: {dtype}; save the model dequantized to analyse it"
    return f"{dtype}: not a weight"


def store_tensor(name: str, tensor: torch.Tensor) -> StoredTensor:
    """Describe a tensor that is in memory; ``read`` returns it as it is at that moment."""
    problem = _tensor_problem(tensor)
    lazy = isinstance(tensor, _LAZY)
    identity: Hashable = id(tensor)
    if not problem and tensor.numel():
        identity = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
    return StoredTensor(
        name=name,
        shape=() if lazy else tuple(tensor.shape),
        dtype=dtype_name(tensor.dtype),
        read=partial(_refuse, name, problem) if problem else partial(_itself, tensor),
        identity=identity,
        problem=problem,
        device="cpu" if lazy else tensor.device.type,
    )


def _tensor_problem(tensor: torch.Tensor) -> str:
    if isinstance(tensor, _LAZY):
        return "lazy: no shape before the first forward pass"
    family = type(tensor).__name__
    if family in {"DTensor", "ShardedTensor"}:
        return f"sharded over processes ({family}); gather the full state dict first"
    if family == "FakeTensor" or tensor.is_meta:
        return "meta tensor: shape without values"
    if tensor.is_quantized or type(tensor).__module__.startswith("torchao"):
        return f"quantized: {dtype_name(tensor.dtype)} ({family}); dequantize it to analyse it"
    if tensor.is_nested or tensor.layout != torch.strided:
        layout = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        return f"{layout} tensor; pass it dense (to_dense()) to analyse it"
    return dtype_problem(dtype_name(tensor.dtype))


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach()


def _refuse(name: str, problem: str) -> torch.Tensor:
    raise WeightsError(f"{name} cannot be read: {problem}")


def flatten_state(state: Mapping[Any, Any], *, where: str) -> dict[str, Any]:
    """Find the state dict in what a trainer saved and flatten nested mappings to dotted names.

    Args:
        state: a state dict, or a mapping that holds one under one of ``STATE_DICT_KEYS``.
        where: what to call it in an error.

    Raises:
        WeightsError: if there is no tensor in it.
    """
    for key in STATE_DICT_KEYS:
        inner = state.get(key)
        if isinstance(inner, Mapping) and _has_tensor(inner):
            beside = {
                str(other): value
                for other, value in state.items()
                if other != key and isinstance(value, Mapping) and _has_tensor(value)
            }
            return flatten_state(inner, where=where) | beside
    if not _has_tensor(state):
        keys = ", ".join(repr(key) for key in list(state)[:5]) or "none"
        raise WeightsError(f"{where} holds no tensors (keys: {keys}); pass a state dict")
    flat: dict[str, Any] = {}
    _flatten(state, "", flat, depth=0)
    return flat


def _flatten(state: Mapping[Any, Any], prefix: str, flat: dict[str, Any], *, depth: int) -> None:
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and key not in OPTIMIZER_KEYS and depth < _DEEPEST:
            _flatten(value, f"{name}.", flat, depth=depth + 1)
        else:
            flat[name] = value


def _has_tensor(state: Mapping[Any, Any], depth: int = 0) -> bool:
    return any(
        isinstance(value, torch.Tensor)
        or (isinstance(value, Mapping) and depth < _DEEPEST and _has_tensor(value, depth + 1))
        for value in state.values()
    )


def store_state(state: Mapping[Any, Any], *, where: str = "the state dict") -> list[StoredTensor]:
    """Describe every entry of a state dict, in its order.

    Raises:
        WeightsError: if it holds no tensor.
    """
    return [
        store_tensor(name, value)
        if isinstance(value, torch.Tensor)
        else store_other(name, _reason(name, value))
        for name, value in flatten_state(state, where=where).items()
    ]


def _reason(name: str, value: object) -> str:
    if name.rpartition(".")[2] in OPTIMIZER_KEYS:
        return "optimizer state"
    if isinstance(value, Mapping):
        return "another mapping with tensors; pass it by itself to analyse it"
    return f"not a tensor: {type(value).__name__}"


def store_other(name: str, problem: str, *, shape: tuple[int, ...] = ()) -> StoredTensor:
    """Describe an entry that cannot be read as a tensor."""
    return StoredTensor(
        name=name, shape=shape, dtype="", read=partial(_refuse, name, problem), problem=problem
    )
