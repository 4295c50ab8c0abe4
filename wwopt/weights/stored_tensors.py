"""One tensor of a source: name, shape and dtype now, its values only when asked for.

A module, a state dict and a checkpoint of any format become a list of ``StoredTensor``. Reading
is a function without arguments, so a checkpoint of any size costs one tensor of memory, and a
tensor in a file travels to another process as a path and a name.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

_LAZY = (UninitializedBuffer, UninitializedParameter)


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
    readable: bool = True  # whether there are values to read, weights or not
    quantized: bool = False  # by its own dtype, or by what lies with it
    beside: bool = False  # whether it lies beside the model: optimizer state, counters, copies


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a dtype without the ``torch.`` in front."""
    return str(dtype).removeprefix("torch.")


def is_quantized(dtype: str) -> bool:
    """Whether a dtype is one of codes, which scales elsewhere make weights of."""
    return dtype in {"int8", "uint8"} or dtype.startswith(("float4_", "float6_", "float8_e8m0"))


def dtype_problem(dtype: str) -> str:
    """Why tensors of this dtype are no weights, or ""."""
    if dtype.startswith("complex"):
        return f"complex: {dtype}, eigenvalues here are those of real matrices"
    if is_quantized(dtype):
        return f"quantized: {dtype}; save the model dequantized to analyse it"
    if dtype.startswith(("float", "bfloat")):
        return ""
    return f"{dtype}: not a weight"


def store_tensor(name: str, tensor: torch.Tensor) -> StoredTensor:
    """Describe a tensor that is in memory; ``read`` returns it as it is at that moment."""
    unreadable = _why_unreadable(tensor)
    problem = unreadable or dtype_problem(dtype_name(tensor.dtype))
    lazy = isinstance(tensor, _LAZY)
    identity: Hashable = id(tensor)
    if not unreadable and tensor.numel():
        identity = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
    return StoredTensor(
        name=name,
        shape=() if lazy else tuple(tensor.shape),
        dtype=dtype_name(tensor.dtype),
        read=partial(_refuse, name, unreadable) if unreadable else partial(_itself, tensor),
        identity=identity,
        problem=problem,
        readable=not unreadable,
        quantized=_is_codes(tensor),
        device="cpu" if lazy else tensor.device.type,
    )


def _why_unreadable(tensor: torch.Tensor) -> str:
    if isinstance(tensor, _LAZY):
        return "lazy: no shape before the first forward pass"
    family = type(tensor).__name__
    if family in {"DTensor", "ShardedTensor"}:
        return f"sharded over processes ({family}); gather the full state dict first"
    if family == "FakeTensor" or tensor.is_meta:
        return "meta tensor: shape without values"
    if _is_codes(tensor):
        return f"quantized: {dtype_name(tensor.dtype)} ({family}); dequantize it to analyse it"
    if tensor.is_nested or tensor.layout != torch.strided:
        layout = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        return f"{layout} tensor; pass it dense (to_dense()) to analyse it"
    return ""


def _is_codes(tensor: torch.Tensor) -> bool:
    return tensor.is_quantized or type(tensor).__module__.startswith("torchao")


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach()


def _refuse(name: str, problem: str) -> torch.Tensor:
    raise WeightsError(f"{name} cannot be read: {problem}")


def store_other(
    name: str, problem: str, *, shape: tuple[int, ...] = (), beside: bool = False
) -> StoredTensor:
    """Describe an entry that cannot be read as a tensor."""
    return StoredTensor(
        name=name,
        shape=shape,
        dtype="",
        read=partial(_refuse, name, problem),
        problem=problem,
        readable=False,
        beside=beside,
    )
