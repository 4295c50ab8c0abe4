"""Compressed networks as safetensors files: how many bytes they have, and writing them whole."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from wwopt.compression.errors import CompressionError
from wwopt.weights.packed_tensors import FORMAT, METADATA_KEY

# The format's names of dtypes, in the order in which its writer lays tensors out: by alignment.
_DTYPES = {
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def describe_packed(
    entries: Mapping[str, Mapping[str, Any]], tied: Mapping[str, str]
) -> dict[str, str]:
    """The metadata of a file, by which `wwopt.weights.packed_tensors` puts tensors together.

    Args:
        entries: of the packed tensors.
        tied: other name -> the name under which the tensor is stored.

    Returns:
        One key, so that the same network makes the same file.
    """
    content = {"format": FORMAT, "tensors": entries, "tied": tied, "about": "docs/compression.md"}
    return {METADATA_KEY: json.dumps(content, separators=(",", ":"))}


def count_file_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> int:
    """Bytes of the file that `write_tensors` makes, header included."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place = {dtype: number for number, dtype in enumerate(_DTYPES)}
    offset = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (place[item[1].dtype], item[0])):
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return 8 + -(-len(text) // 8) * 8 + offset


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> int:
    """Write a safetensors file, whole or not at all: under another name first.

    Args:
        path: of the file; one that is there is replaced.
        tensors: on the CPU.
        metadata: of the header.

    Returns:
        Bytes of the file.

    Raises:
        CompressionError: if it cannot be written.
    """
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        try:
            save_file(_apart(tensors), beside, metadata=dict(metadata) or None)
            _allow_as_usual(beside)
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise CompressionError(f"{path} cannot be written: {error.strerror or error}") from error
    return path.stat().st_size


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors without gaps that share no memory: the library refuses others."""
    seen: set[int] = set()
    apart = {}
    for name, given in tensors.items():
        tensor = given.contiguous()
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def _allow_as_usual(path: str) -> None:
    """Give a temporary file, which its owner alone may read, what the umask leaves of rw-rw-rw-."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)
