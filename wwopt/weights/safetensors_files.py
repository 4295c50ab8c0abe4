"""The tensors of a ``.safetensors`` file: described from its header, read later one at a time.

The library holds the header's lengths, offsets and shapes against the file
(https://github.com/huggingface/safetensors#format). Where it is kinder than the format, which
forbids them, double names and other liberties are refused here: two readers of such a file may see
two networks.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from wwopt.weights.packed_tensors import METADATA_KEY, PackedError, unpack_tensors
from wwopt.weights.stored_tensors import StoredTensor, WeightsError, dtype_problem
from wwopt.weights.tensor_names import natural_key
from wwopt.wording import first_line, shorten

LONGEST_HEADER = 100_000_000  # bytes; the library's own limit
_FIELDS = {"dtype", "shape", "data_offsets"}
_TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F6_E2M3": "float6_e2m3",
    "F6_E3M2": "float6_e3m2",
    "F4": "float4_e2m1fn",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def open_safetensors(
    path: Path,
    *,
    called: str | None = None,
    place: Callable[[StoredTensor], StoredTensor] = lambda tensor: tensor,
) -> list[StoredTensor]:
    """Describe every tensor of a file, in natural order of names (layer 2 before layer 10).

    The format keeps no order of its own: its writers sort by dtype and name.

    Args:
        path: of the file.
        called: what to call it in errors; None for its path.
        place: says of each tensor where it lies, if not in this file.

    Raises:
        WeightsError: if the file is no sound safetensors file.
    """
    where = called or str(path)
    try:
        # For torch the library maps the file copy-on-write, which one larger than memory cannot be.
        with safe_open(path, framework="np") as file:
            names = _read_names(path, where)
            tensors = [_describe(path, name, file.get_slice(name), where) for name in names]
            packed = (file.metadata() or {}).get(METADATA_KEY)
    except OSError as error:
        raise WeightsError(f"{where} cannot be read: {first_line(error)}") from error
    except SafetensorError as error:
        fault = first_line(error).removeprefix("Error while deserializing header: ")
        raise broken(where, fault) from error
    tensors = sorted(map(place, tensors), key=lambda tensor: natural_key(tensor.name))
    if packed is None:
        return tensors
    try:
        return unpack_tensors(tensors, packed)
    except PackedError as error:
        raise broken(where, str(error)) from error


def broken(where: str, fault: str) -> WeightsError:
    """The error about a file, by what it is called, and what is wrong with it."""
    return WeightsError(f"{where} is no sound safetensors file: {fault}; download or save it again")


def _read_names(path: Path, where: str) -> list[str]:
    """The names of a header that the library accepted, in its order, if it takes no liberties."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, os.fstat(file.fileno()).st_size, LONGEST_HEADER))
    if not text.startswith(b"{"):
        raise broken(where, f"its header starts with {text[:8]!r} and not with a brace")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise broken(where, f"its header is no JSON ({first_line(error)})") from error
    header.pop("__metadata__", None)
    for name, entry in header.items():
        plain = isinstance(entry, dict) and entry.keys() == _FIELDS
        if not (plain and isinstance(entry["dtype"], str)):
            short = shorten(name)  # it may be as long as the file
            raise broken(where, f"{short!r} is not given by dtype, shape and data_offsets alone")
    return list(header)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result


def _describe(path: Path, name: str, stored: Any, where: str) -> StoredTensor:
    shape, dtype = tuple(stored.get_shape()), _TORCH_NAMES.get(stored.get_dtype())
    if dtype is None:
        raise broken(where, f"{shorten(name)!r} has the unknown dtype {stored.get_dtype()!r}")
    if len(shape) > 64 or max(shape, default=0) >= 2**63:
        sizes = f"{len(shape)} dimensions of up to {max(shape)}"
        raise broken(where, f"{shorten(name)!r} has {sizes}, as no tensor of torch has")
    return StoredTensor(
        name=name,
        shape=shape,
        dtype=dtype,
        read=partial(read_safetensor, str(path), name),
        problem=dtype_problem(dtype),
        identity=(str(path), name),
    )


def read_safetensor(path: str, name: str) -> torch.Tensor:
    """Read one tensor of a file.

    Raises:
        WeightsError: if the file changed or vanished since it was opened.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(name)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{name} of {path} cannot be read: {first_line(error)}") from error
    assert isinstance(tensor, torch.Tensor)
    return tensor
