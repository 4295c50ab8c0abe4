"""What ``torch.save`` wrote, of any age: pickled tensors, read without running their code.

Only ``torch.load(weights_only=True)`` is used. A pickle that needs more is refused: loading it
would let the file run any code.
"""

import functools
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wwopt.weights.stored_tensors import StoredTensor, WeightsError
from wwopt.weights.training_checkpoints import find_model, store_state
from wwopt.wording import first_line


def open_pickled(path: Path, *, key: str | None = None) -> list[StoredTensor]:
    """Describe every entry of the model in a file, in its order, then what lies beside it.

    Raises:
        WeightsError: if the file is broken, holds no tensors, needs more than tensors, or holds
            several models and no key chooses one.
    """
    stamp = _stamp(path)
    loaded = _load(str(path), stamp)
    return [
        _readable_from_file(tensor, path, stamp, key)
        for tensor in store_state(loaded, where=str(path), key=key)
    ]


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when the file does."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    return status.st_mtime_ns, status.st_size


def _readable_from_file(
    tensor: StoredTensor, path: Path, stamp: tuple[int, int], key: str | None
) -> StoredTensor:
    """The same entry, held as path and name: the loaded tensors can go, and it can be pickled."""
    if not tensor.readable:
        return tensor
    return replace(
        tensor,
        read=partial(read_pickled, str(path), tensor.name, stamp, key=key),
        # The addresses behind it may be those of another shard, once this one is closed.
        identity=(str(path), tensor.identity),
    )


def read_pickled(
    path: str, name: str, stamp: tuple[int, int], *, key: str | None = None
) -> torch.Tensor:
    """Read one tensor of a file.

    Raises:
        WeightsError: if the file changed since it was opened.
    """
    if _stamp(Path(path)) != stamp:
        raise WeightsError(f"{path} changed while it was being read; read it again")
    tensor = _find(path, stamp, key)[name]
    assert isinstance(tensor, torch.Tensor)
    return tensor


@functools.lru_cache(maxsize=2)
def _find(path: str, stamp: tuple[int, int], key: str | None) -> Mapping[str, Any]:
    return find_model(_load(path, stamp), where=path, key=key).state


# Two files, which `check` and `--base` read in turn; the tensors of each are asked for in a row.
# With mmap they cost addresses, not memory.
@functools.lru_cache(maxsize=2)
def _load(path: str, stamp: tuple[int, int]) -> dict[Any, Any]:
    is_zip = _is_archive(path, stamp[1])  # since torch 1.6; older files cannot be memory mapped
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats, which are read all the same
            if path.endswith(".safetensors"):  # whose name is all that torch looks at
                with open(path, "rb") as file:
                    loaded = torch.load(file, map_location="cpu", weights_only=True)
            else:
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # the unpickler meets arbitrary bytes and raises almost anything
        raise _refusal(path, error) from error
    if isinstance(loaded, torch.Tensor):
        return {"weight": loaded}
    if not isinstance(loaded, dict):
        kind = type(loaded).__name__
        raise WeightsError(f"{path} holds a {kind}, no state dict; save model.state_dict()")
    return loaded


def _is_archive(path: str, size: int) -> bool:
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{path} is a broken archive: {error}; save it again") from error
    if unpacked > size:
        # torch stores without compression: this archive would unpack without bound.
        raise WeightsError(
            f"{path} has {size} bytes and claims {unpacked}; save it with torch.save"
        )
    return True


def _refusal(path: str, error: Exception) -> WeightsError:
    text = str(error)
    if "TorchScript" in text:
        way_out = "save torch.jit.load(path).state_dict() and pass that"
        return WeightsError(f"{path} is a TorchScript program; {way_out}")
    found = re.search(r"Unsupported (?:global|class|operand)[: ]+(?:GLOBAL )?(\S+)", text)
    if found:
        return WeightsError(
            f"{path} needs {found[1]}: loading it would run code; if you trust it, load it with "
            "torch.load(path, weights_only=False) and save its state_dict()"
        )
    reason = first_line(error, named=True)
    return WeightsError(f"{path} is no file of tensors ({reason})")
