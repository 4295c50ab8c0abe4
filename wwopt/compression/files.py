"""Compressed networks as safetensors files: what their headers say, and writing them whole."""

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
