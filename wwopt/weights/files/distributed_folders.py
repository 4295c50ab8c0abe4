"""A ``torch.distributed.checkpoint`` folder, one tensor at a time, in one process.

Its ``.metadata`` is a pickle, which torch 2.13 loads with ``pickle.load``: a foreign one could run
code. Here it is unpickled into inert records, any name outside the format refused. Every tensor is
a list of pieces, each a small ``torch.save`` inside a ``.distcp`` file, read with weights_only.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wwopt.weights.files.checkpoint_keys import is_optimizer
from wwopt.weights.files.training_checkpoints import find_model, store_beside
from wwopt.weights.stored_tensors import (
    StoredTensor,
    WeightsError,
    dtype_name,
    dtype_problem,
    store_other,
)
from wwopt.wording import first_line

_LONGEST_METADATA = 256 * 2**20  # bytes; about 300 per piece of a tensor
_CONVERT = (
    "if you trust it, convert it: "
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.pt"
)


@dataclass(frozen=True)
class _Piece:
    """Where one block of a tensor is stored."""

    path: str
    start: int  # bytes
    length: int  # bytes
    offsets: tuple[int, ...]  # of its first element in the tensor
    sizes: tuple[int, ...]


class _Record:
    """What an object of the metadata becomes: its attributes, no behaviour."""

    values: tuple[object, ...] = ()

    def __init__(self, *values: object) -> None:
        self.values = values

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)
        else:
            self.values = state if isinstance(state, tuple) else ()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) == ("torch", "Size"):
            return tuple
        if module == "collections" and name == "OrderedDict":
            return dict
        known = module.startswith(("torch.distributed.checkpoint.", "pathlib"))
        if known or (module, name) == ("torch.serialization", "_get_layout"):
            return _Record
        raise WeightsError(f"its .metadata needs {module}.{name}, which could run code; {_CONVERT}")


def open_distributed(folder: Path, *, key: str | None = None) -> list[StoredTensor]:
    """Describe every entry of the model in a checkpoint, in its order, then what lies beside it.

    Raises:
        WeightsError: if the metadata is broken or needs more than the format, or holds several
            models and no key chooses one.
    """
    metadata = _read_metadata(folder / ".metadata")
    try:
        pieces = _find_pieces(folder, metadata.storage_data)
        entries = metadata.state_dict_metadata
        found = find_model(_nest(metadata), where=str(folder), key=key)
        tensors = [
            _describe(name, entries[leaf.name], pieces.get(leaf.name, {}))
            if isinstance(leaf, StoredTensor)
            else store_other(name, "not a tensor: bytes")
            for name, leaf in found.state.items()
        ]
        return tensors + store_beside(found)
    except (AttributeError, TypeError, ValueError, IndexError, StopIteration) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"{folder / '.metadata'} is not laid out as known: {first_line(error)}"
        ) from error


def check_plain(name: str, index: str) -> None:
    """Fail unless what an index names is the plain name of a file, beside it.

    Raises:
        WeightsError: if it leads elsewhere.
    """
    # A Windows path is no plain name either, whatever this machine runs.
    if name in {"", ".", ".."} or re.search(r"[/\\:\0]", name):
        raise WeightsError(f"{index} names {name!r}, which is outside its folder; refused")


def path_inside(folder: Path, index: str, name: str) -> Path:
    """The file that an index in a folder names, which must lie in that folder.

    Raises:
        WeightsError: if it is outside or missing.
    """
    check_plain(name, str(folder / index))
    path = folder / name
    if not path.is_file():
        raise WeightsError(f"{path} is missing, {index} names it; download it again")
    target, root = path.resolve(), folder.resolve()
    # In Hugging Face's cache snapshots/REVISION/FILE is a link to blobs/HASH.
    allowed = (root, root.parent.parent / "blobs") if root.parent.name == "snapshots" else (root,)
    if not any(target.is_relative_to(place) for place in allowed):
        raise WeightsError(f"{path} is a link to {target}, outside its folder; copy the file there")
    return path


def _read_metadata(path: Path) -> Any:
    try:
        if path.stat().st_size > _LONGEST_METADATA:
            raise WeightsError(f"{path} has more than {_LONGEST_METADATA} bytes; {_CONVERT}")
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        for opcode, argument, _ in pickletools.genops(content):
            # Both make the unpickler allocate what a number in the file says.
            too_far = opcode.name == "LONG_BINPUT" and int(argument or 0) > len(content)
            if too_far or opcode.name == "BYTEARRAY8":
                raise WeightsError(f"its .metadata has a forged {opcode.name}")
        return _Unpickler(io.BytesIO(content)).load()
    except WeightsError as error:
        raise WeightsError(f"{path.parent}: {error}") from error
    except Exception as error:  # a pickle of arbitrary bytes raises almost anything
        raise WeightsError(
            f"{path} is a broken pickle ({first_line(error)}); save it again"
        ) from error


def _find_pieces(
    folder: Path, storage: Mapping[Any, Any]
) -> dict[str, dict[tuple[int, ...], _Piece]]:
    """By name and offset: where every piece lies; sizes are filled in with the entry."""
    files: dict[str, tuple[Path, int]] = {}
    pieces: dict[str, dict[tuple[int, ...], _Piece]] = {}
    for index, info in storage.items():
        if index.offset is None if hasattr(index, "offset") else True:
            continue  # not a tensor
        if info.relative_path not in files:
            path = path_inside(folder, ".metadata", info.relative_path)
            files[info.relative_path] = path, path.stat().st_size
        path, size = files[info.relative_path]
        start, length = info.offset, info.length
        if start < 0 or length < 0 or start + length > size:
            raise WeightsError(
                f"{path} has {size} bytes, {index.fqn} should end at {start + length}"
            )
        if getattr(info, "transform_descriptors", None):
            start = length = -1  # compressed: _describe says so
        offsets = tuple(index.offset)
        pieces.setdefault(index.fqn, {})[offsets] = _Piece(str(path), start, length, offsets, ())
    return pieces


def _nest(metadata: Any) -> dict[Any, Any]:
    """The entries as they were nested before they were saved, each under its full name.

    A tensor becomes a `StoredTensor` of that name that cannot be read, and what is none bytes.
    """
    paths = getattr(metadata, "planner_data", None)
    paths = paths if isinstance(paths, Mapping) else {}
    nested: dict[Any, Any] = {}
    for fqn, entry in metadata.state_dict_metadata.items():
        leaf: Any = b""
        if hasattr(entry, "chunks"):
            leaf = store_other(fqn, "described only", shape=tuple(entry.size))
        *steps, last = paths.get(fqn) or _split_optimizer(fqn)
        node = nested
        for step in steps:
            inner = node.setdefault(step, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{fqn} lies inside of what is no mapping")
            node = inner
        node[last] = leaf
    return nested


def _split_optimizer(fqn: str) -> tuple[str, ...]:
    """Without the planner's paths a name is one key, but for the first word of an optimizer's."""
    first, dot, rest = fqn.partition(".")
    return (first, rest) if dot and is_optimizer(first, None) else (fqn,)


def _describe(name: str, entry: Any, stored: Mapping[tuple[int, ...], _Piece]) -> StoredTensor:
    shape, dtype = tuple(entry.size), _dtype(entry.properties)
    pieces = []
    for chunk in entry.chunks:
        offsets, sizes = tuple(chunk.offsets), tuple(chunk.sizes)
        if offsets not in stored:
            raise WeightsError(f"{name}: the piece at {offsets} is not stored; save it again")
        place = stored[offsets]
        pieces.append(_Piece(place.path, place.start, place.length, offsets, sizes))
    if any(piece.length < 0 for piece in pieces):
        return store_other(name, f"compressed by a stream transform; {_CONVERT}", shape=shape)
    _check_cover(name, shape, dtype, pieces)
    return StoredTensor(
        name=name,
        shape=shape,
        dtype=dtype_name(dtype),
        read=partial(read_pieces, name, shape, dtype_name(dtype), tuple(pieces)),
        identity=(pieces[0].path, pieces[0].start) if pieces else None,
        problem=dtype_problem(dtype_name(dtype)),
    )


def _dtype(properties: Any) -> torch.dtype:
    # TensorProperties pickles itself as a tuple; releases differ in what else is in it.
    values = (*properties.values, *vars(properties).values())
    return next(value for value in values if isinstance(value, torch.dtype))


def _check_cover(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, pieces: list[_Piece]
) -> None:
    """Pieces lie inside the tensor, have its size together, and bytes enough in the files."""
    inside = all(
        len(piece.offsets) == len(piece.sizes) == len(shape)
        and all(
            min(offset, size) >= 0 and offset + size <= whole
            for offset, size, whole in zip(piece.offsets, piece.sizes, shape, strict=True)
        )
        for piece in pieces
    )
    elements = sum(math.prod(piece.sizes) for piece in pieces)
    enough = sum(piece.length for piece in pieces) >= elements * dtype.itemsize
    if not inside or elements != math.prod(shape) or not enough:
        raise WeightsError(f"{name}: its {len(pieces)} pieces do not make up shape {shape}")


def read_pieces(
    name: str, shape: tuple[int, ...], dtype: str, pieces: tuple[_Piece, ...]
) -> torch.Tensor:
    """Put a tensor together.

    Raises:
        WeightsError: if a piece cannot be read or has another shape than the metadata says.
    """
    whole = torch.empty(shape, dtype=getattr(torch, dtype))
    missing = torch.ones(shape, dtype=torch.bool)  # pieces that overlap leave others out
    for piece in pieces:
        try:
            with open(piece.path, "rb") as file:
                file.seek(piece.start)
                content = io.BytesIO(file.read(piece.length))
            block = torch.load(content, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler meets arbitrary bytes and raises almost anything
            raise WeightsError(
                f"{name} in {piece.path} cannot be read: {first_line(error)}"
            ) from error
        if not isinstance(block, torch.Tensor) or tuple(block.shape) != piece.sizes:
            raise WeightsError(f"{name} in {piece.path} is not of shape {piece.sizes}")
        place = tuple(slice(o, o + s) for o, s in zip(piece.offsets, piece.sizes, strict=True))
        whole[place] = block
        missing[place] = False
    if missing.any():
        raise WeightsError(f"{name}: its {len(pieces)} pieces do not make up shape {shape}")
    return whole
