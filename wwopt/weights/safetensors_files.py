"""The header of a ``.safetensors`` file, checked in full; tensors are read later, one at a time.

Format: 8 bytes n (little endian), n bytes of JSON {name: {dtype, shape, data_offsets}}, then the
data, without gaps or overlaps (https://github.com/huggingface/safetensors#format). A corrupted
length or offset is an error here and never an allocation.
"""

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from wwopt.weights.stored_tensors import StoredTensor, WeightsError, dtype_problem
from wwopt.weights.tensor_names import natural_key
from wwopt.wording import first_line

_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself

# name in the header -> (torch's name, bits per element)
_DTYPES = {
    "F64": ("float64", 64),
    "F32": ("float32", 32),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "F4": ("float4_e2m1fn", 4),
    "C64": ("complex64", 64),
    "I64": ("int64", 64),
    "I32": ("int32", 32),
    "I16": ("int16", 16),
    "I8": ("int8", 8),
    "U64": ("uint64", 64),
    "U32": ("uint32", 32),
    "U16": ("uint16", 16),
    "U8": ("uint8", 8),
    "BOOL": ("bool", 8),
}


def open_safetensors(path: Path) -> list[StoredTensor]:
    """Describe every tensor of a file, in natural order of names (layer 2 before layer 10).

    The format keeps no order of its own: its writers sort by dtype and name.

    Raises:
        WeightsError: if the file is no sound safetensors file.
    """
    header, data_bytes = _read_header(path)
    header.pop("__metadata__", None)
    spans = []
    tensors = []
    for name, entry in header.items():
        tensor, span = _read_entry(path, name, entry, data_bytes)
        tensors.append(tensor)
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            fault = "overlap" if start < end else "leave a gap"
            raise _broken(path, f"tensors {fault} at byte {min(start, end)} of the data")
        end = stop
    if end != data_bytes:
        raise _broken(path, f"its header describes {end} bytes of data, the file has {data_bytes}")
    return sorted(tensors, key=lambda tensor: natural_key(tensor.name))


def _broken(path: Path, fault: str) -> WeightsError:
    return WeightsError(f"{path} is no sound safetensors file: {fault}; download or save it again")


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise _broken(
                    path,
                    f"it begins with {start!r}: a header of {length} bytes in a file of {size}",
                )
            text = file.read(length)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    if not text.startswith(b"{"):
        raise _broken(path, f"its header starts with {text[:8]!r} and not with a brace")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise _broken(path, f"its header is no JSON ({first_line(error)})") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is no mapping")
    return header, size - 8 - length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice")
    return result


def _read_entry(
    path: Path, name: str, entry: object, data_bytes: int
) -> tuple[StoredTensor, tuple[int, int]]:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _broken(path, f"the name {name!r} is no Unicode text") from error
    if not isinstance(entry, Mapping) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken(path, f"{name!r} lacks dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _broken(path, f"{name!r} has the unknown dtype {dtype!r}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _broken(path, f"{name!r} has shape {shape!r} and offsets {offsets!r}")
    start, stop = offsets
    torch_name, bits = _DTYPES[dtype]
    elements = 1
    for size in shape:
        elements *= size
        # Stops before a long shape of large sizes becomes a number of a million digits.
        if elements * bits > 8 * data_bytes and 0 not in shape:
            break
    if not start <= stop <= data_bytes or elements * bits != 8 * (stop - start):
        raise _broken(path, f"{name!r} of shape {shape} and {dtype} is said to be at {offsets}")
    tensor = StoredTensor(
        name=name,
        shape=tuple(shape),
        dtype=torch_name,
        read=partial(read_safetensor, str(path), name),
        problem=dtype_problem(torch_name),
        identity=(str(path), name),
    )
    return tensor, (start, stop)


def _are_sizes(values: object) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= 64  # more dimensions than torch allows
        # bool is an int in Python; a size has at most 64 bits in the format.
        and all(type(value) is int and 0 <= value < 2**63 for value in values)
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
