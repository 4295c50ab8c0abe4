"""The tensors of a ``.gguf`` file of llama.cpp, one at a time, quantized ones dequantized.

The package `gguf` knows the types, their blocks and how to dequantize them. The header is walked
here (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): the package's reader makes an
array object of every element of the metadata and copies strings as long as the file says they are.
Here counts and lengths are held against the file first.
"""

import functools
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from wwopt.weights.stored_tensors import StoredTensor, WeightsError, dtype_problem
from wwopt.wording import first_line, shorten

_VERSIONS = (2, 3)
_LONGEST_HEADER = 256 * 2**20  # bytes; a vocabulary of 256,000 words has about 10 MB
_LONGEST_NAME = 2**16 - 1  # bytes; the format's limit for keys
_MOST_DIMENSIONS = 4  # GGML_MAX_DIMS
_DEEPEST = 4  # arrays of arrays
_ALIGNMENT = 32  # bytes, where the metadata says nothing
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of scalars, bytes
_UINT32, _STRING, _ARRAY = 4, 8, 9
_PLAIN = {  # types whose bytes are values
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
}
QUANTIZED = "gguf "  # in front of the type, as the dtype of what was dequantized


class _FaultError(ValueError):
    """What is wrong with a file, without its name."""


@dataclass(frozen=True)
class Entry:
    """A tensor as the header has it."""

    name: str
    shape: tuple[int, ...]  # as torch has it: rows first
    type_name: str
    start: int  # bytes, in the file
    length: int  # bytes


def open_gguf(path: Path) -> list[StoredTensor]:
    """Describe every tensor of a file, in its order, under llama.cpp's names.

    Raises:
        WeightsError: if the package `gguf` is not installed, or the file is broken, of another
            version, or for machines of another byte order.
    """
    _import_gguf(path)
    try:
        with open(path, "rb") as file:
            entries = _read_entries(_Cursor(file, path.stat().st_size))
    except (_FaultError, UnicodeDecodeError) as error:
        fault = first_line(error)
        raise WeightsError(
            f"{path} is no sound GGUF file: {fault}; download or save it again"
        ) from error
    if not entries:
        raise WeightsError(f"{path} holds no tensors; is it a vocabulary alone?")
    return [_describe(path, entry) for entry in entries]


def read_gguf(path: str, entry: Entry) -> torch.Tensor:
    """Read one tensor of a file; a quantized one as float32.

    Raises:
        WeightsError: if the file changed or vanished since it was opened.
    """
    try:
        with open(path, "rb") as file:
            file.seek(entry.start)
            content = bytearray(file.read(entry.length))
    except OSError as error:
        raise WeightsError(f"{entry.name} of {path} cannot be read: {first_line(error)}") from error
    if len(content) != entry.length:
        raise WeightsError(
            f"{entry.name} of {path} ends after {len(content)} of {entry.length} bytes"
        )
    if entry.type_name not in _PLAIN:
        values = torch.from_numpy(_dequantize(content, entry.type_name))
    elif content:
        values = torch.frombuffer(content, dtype=getattr(torch, _PLAIN[entry.type_name]))
    else:
        values = torch.empty(0)
    return values.reshape(entry.shape)


def _import_gguf(path: Path) -> None:
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise WeightsError(
            f"{path} is a GGUF file: pip install 'wwopt[gguf]' to read it"
        ) from error


def _dequantize(content: bytes | bytearray, type_name: str) -> Any:
    """Blocks as float32, in one row."""
    import gguf

    kind = gguf.GGMLQuantizationType[type_name]
    blocks = np.frombuffer(content, np.uint8).reshape(-1, gguf.GGML_QUANT_SIZES[kind][1])
    with np.errstate(all="ignore"):  # of the scales in broken files: the layer's status tells
        return gguf.dequantize(blocks, kind).reshape(-1)


@functools.cache
def _why_not(type_name: str) -> str:
    """Why a quantized type cannot be read, or ""."""
    import gguf

    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]][1]
    try:
        _dequantize(bytes(size), type_name)
    except NotImplementedError:
        return f"quantized: {type_name}, which the package gguf does not dequantize"
    return ""


class _Cursor:
    """Reads a header from its start; a length that leads beyond the end of the file is a fault."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.position = 0

    def need(self, length: int) -> None:
        """Fail unless so many bytes are left."""
        left = min(self.size, _LONGEST_HEADER) - self.position
        if length > left:
            raise _FaultError(f"{length} bytes should follow byte {self.position}, and {left} do")

    def take(self, length: int) -> bytes:
        """The next bytes."""
        self.need(length)
        content = self.file.read(length)
        if len(content) != length:
            raise _FaultError(f"it ends at byte {self.position + len(content)}")
        self.position += length
        return content

    def skip(self, length: int) -> None:
        """Go on after so many bytes."""
        self.need(length)
        self.position += length
        self.file.seek(self.position)

    def number(self, length: int) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.take(length), "little")

    def count(self, least: int) -> int:
        """How many of something follow, each of so many bytes at the least."""
        many = self.number(8)
        self.need(many * least)
        return many

    def name(self) -> str:
        """A key, or the name of a tensor."""
        length = self.number(8)
        if length > _LONGEST_NAME:
            raise _FaultError(f"a name of {length} bytes at byte {self.position}")
        return self.take(length).decode("utf-8")


def _read_entries(cursor: _Cursor) -> list[Entry]:
    if cursor.take(4) != b"GGUF":
        raise _FaultError("it does not start with GGUF")
    version = cursor.number(4)
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
        raise _FaultError(
            "it is for big-endian machines; convert it with gguf-convert-endian"
            if swapped
            else f"it has version {version}, known are {_VERSIONS[0]} and {_VERSIONS[1]}"
        )
    tensors = cursor.number(8)
    alignment = _read_alignment(cursor)
    cursor.need(tensors * 24)
    found = [_read_entry(cursor) for _ in range(tensors)]
    start = -(-cursor.position // alignment) * alignment
    placed = [replace(entry, start=start + entry.start) for entry in found]
    _check_places(placed, start, cursor.size, alignment)
    return placed


def _read_alignment(cursor: _Cursor) -> int:
    """Walk over the metadata; of it the alignment is kept."""
    alignment, seen = _ALIGNMENT, set()
    for _ in range(cursor.count(13)):
        key, kind = cursor.name(), cursor.number(4)
        if key in seen:
            raise _FaultError(f"the key {shorten(key)!r} appears twice")
        seen.add(key)
        if key != "general.alignment":
            _skip_value(cursor, kind, 0)
            continue
        alignment = cursor.number(4)
        if kind != _UINT32 or alignment < 1 or alignment & (alignment - 1):
            raise _FaultError(f"general.alignment is {alignment} of type {kind}, no power of two")
    return alignment


def _skip_value(cursor: _Cursor, kind: int, depth: int) -> None:
    if kind in _SIZES:
        cursor.skip(_SIZES[kind])
    elif kind == _STRING:
        cursor.skip(cursor.number(8))
    elif kind == _ARRAY and depth < _DEEPEST:
        inner = cursor.number(4)
        if inner in _SIZES:
            cursor.skip(cursor.number(8) * _SIZES[inner])
        else:
            for _ in range(cursor.count(8)):
                _skip_value(cursor, inner, depth + 1)
    else:
        raise _FaultError(f"a value of the unknown type {kind} at byte {cursor.position}")


def _read_entry(cursor: _Cursor) -> Entry:
    import gguf

    name, dimensions = cursor.name(), cursor.number(4)
    if dimensions > _MOST_DIMENSIONS:
        raise _FaultError(f"{shorten(name)!r} has {dimensions} dimensions")
    shape = tuple(cursor.number(8) for _ in range(dimensions))[::-1]
    number, offset = cursor.number(4), cursor.number(8)
    try:
        kind = gguf.GGMLQuantizationType(number)
        block, bytes_a_block = gguf.GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError) as error:
        raise _FaultError(f"{shorten(name)!r} has the unknown type {number}") from error
    row = shape[-1] if shape else 1
    if row % block:
        raise _FaultError(
            f"{shorten(name)!r} has rows of {row}, no multiple of {kind.name}'s {block}"
        )
    length = math.prod(shape) // block * bytes_a_block
    return Entry(name, shape, kind.name, offset, length)


def _check_places(entries: list[Entry], start: int, size: int, alignment: int) -> None:
    """Every tensor lies in the file, by itself, under a name of its own."""
    names: set[str] = set()
    end = start
    for entry in sorted(entries, key=lambda entry: entry.start):
        short = shorten(entry.name)
        if entry.name in names:
            raise _FaultError(f"the name {short!r} appears twice")
        names.add(entry.name)
        if entry.start % alignment or entry.start < end:
            raise _FaultError(
                f"{short!r} starts at byte {entry.start}, inside of another or unaligned"
            )
        end = entry.start + entry.length
        if end > size or max(entry.shape, default=0) >= 2**63:
            raise _FaultError(f"it has {size} bytes, and {short!r} should end at {end}")


def _describe(path: Path, entry: Entry) -> StoredTensor:
    quantized = entry.type_name not in _PLAIN
    dtype = QUANTIZED + entry.type_name if quantized else _PLAIN[entry.type_name]
    problem = _why_not(entry.type_name) if quantized else ""
    return StoredTensor(
        name=entry.name,
        shape=entry.shape,
        dtype=dtype,
        read=partial(read_gguf, str(path), entry),
        identity=(str(path), entry.name),
        problem=problem or ("" if quantized else dtype_problem(dtype)),
        readable=not problem,
        quantized=quantized,
        # The experts of a layer lie in one tensor of three dimensions, as a convolution would.
        kind="moe" if len(entry.shape) == 3 and "_exps" in entry.name else "",
        note=f"dequantized from {entry.type_name}" if quantized else "",
    )
