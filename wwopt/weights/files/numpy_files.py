"""The arrays of an ``.npz`` archive: described from their headers, read later one at a time.

What `numpy.load(allow_pickle=False)` reads, and no more. An archive says three times how long an
array is: in its directory, in its headers and by what is there. The first two are held against the
file before anything is read, and memory grows with what is really unpacked.
"""

import io
import math
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy

from wwopt.weights.stored_tensors import (
    StoredTensor,
    WeightsError,
    dtype_problem,
    store_other,
)
from wwopt.wording import first_line, shorten

_LONGEST_HEADER = 16 * 2**10  # bytes that are looked at; numpy reads no more than 10,000 of text
_PIECE = 16 * 2**20  # bytes that are unpacked at once
_MOST_DIMENSIONS = 64  # of an array of numpy
# numpy writes these two. Others would allocate what the file says (LZMA's dictionary).
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DEFLATE = 1032  # bytes that deflate makes of one at the most (https://zlib.net/zlib_tech.html)
_NAMES = {  # numpy's kind and size of an element -> torch's dtype
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
    "c8": "complex64",
    "c16": "complex128",
    "b1": "bool",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
}
_OBJECTS = (
    "Python objects: loading them would run code; if you trust the file, load it with "
    "numpy.load(path, allow_pickle=True) and save its arrays of numbers"
)


@dataclass(frozen=True)
class _Header:
    """What the first bytes of a member say, held against its length."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    start: int  # of the values, in bytes


def open_npz(path: Path) -> list[StoredTensor]:
    """Describe every array of an archive, in its order.

    Raises:
        WeightsError: if the archive is broken, or claims more than it can hold.
    """
    tensors: dict[str, StoredTensor] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            size = path.stat().st_size
            members = archive.infolist()
            if sum(member.compress_size for member in members) > size:
                raise _broken(path, "its members are longer than the file")
            for member in members:
                tensor = _describe(path, archive, member)
                if tensor.name in tensors:
                    raise _broken(path, f"the name {shorten(tensor.name)!r} appears twice")
                tensors[tensor.name] = tensor
    except WeightsError:
        raise
    except Exception as error:  # zipfile and numpy meet arbitrary bytes and raise almost anything
        raise _broken(path, first_line(error, named=True)) from error
    if tensors and all(tensor.problem == _OBJECTS for tensor in tensors.values()):
        raise WeightsError(f"{path} holds {_OBJECTS}")
    return list(tensors.values())


def read_npz(path: str, member: str, name: str) -> torch.Tensor:
    """Read one array of an archive.

    Args:
        path: of the archive.
        member: the array's file in it.
        name: what to call it in an error.

    Raises:
        WeightsError: if its bytes are not those that were promised, or the file changed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(member)
            header = _read_header(archive, info)
            values = _unpack(archive, info)
    except Exception as error:  # as above
        raise WeightsError(
            f"{name} of {path} cannot be read: {first_line(error, named=True)}; save it again"
        ) from error
    array = np.frombuffer(values, dtype=header.dtype, offset=header.start)
    array = array.astype(header.dtype.newbyteorder("="), copy=False)
    if header.fortran_order:
        return torch.from_numpy(array.reshape(header.shape[::-1]).transpose())
    return torch.from_numpy(array.reshape(header.shape))


def _broken(path: Path, fault: str) -> WeightsError:
    return WeightsError(f"{path} is no sound NumPy archive: {fault}; download or save it again")


def _describe(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> StoredTensor:
    name = member.filename.removesuffix(".npy")
    if name == member.filename:
        return store_other(name, "not an array")
    header = _read_header(archive, member)
    if header.dtype.hasobject:
        return store_other(name, _OBJECTS, shape=header.shape)
    dtype = _NAMES.get(header.dtype.str[1:], "")
    if not dtype:
        what = f"{header.dtype.name}: no dtype of torch; save it as float32"
        return store_other(name, what, shape=header.shape)
    return StoredTensor(
        name=name,
        shape=header.shape,
        dtype=dtype,
        read=partial(read_npz, str(path), member.filename, name),
        identity=(str(path), name),
        problem=dtype_problem(dtype),
    )


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Header:
    if member.compress_type not in _METHODS:
        raise ValueError(f"compressed by method {member.compress_type}, which numpy does not use")
    most = member.compress_size * (_DEFLATE if member.compress_type == zipfile.ZIP_DEFLATED else 1)
    if member.file_size > most:
        raise ValueError(f"{member.compress_size} bytes claim to be {member.file_size}")
    with archive.open(member) as stream:
        start = io.BytesIO(stream.read(min(_LONGEST_HEADER, member.file_size)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's parser, about numbers that are none
        version = npy.read_magic(start)
        if version == (1, 0):
            shape, fortran_order, dtype = npy.read_array_header_1_0(start)
        elif version == (2, 0):
            shape, fortran_order, dtype = npy.read_array_header_2_0(start)
        else:  # 3.0 is for names of fields, which no weight has
            raise ValueError(f"an array of format {version[0]}.{version[1]}")
    if len(shape) > _MOST_DIMENSIONS or any(n < 0 or n >= 2**63 for n in shape):
        raise ValueError("a shape that no array has")
    needed, found = math.prod(shape) * dtype.itemsize, member.file_size - start.tell()
    if not dtype.hasobject and needed != found:
        raise ValueError(f"{found} bytes of values, where shape {shape} has {needed}")
    return _Header(tuple(map(int, shape)), fortran_order, dtype, start.tell())


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytearray:
    """All bytes of a member; its checksum is compared at the end."""
    values = bytearray()
    with archive.open(member) as stream:
        while piece := stream.read(_PIECE):
            values += piece
    if len(values) != member.file_size:
        raise zlib.error(f"{len(values)} bytes, where {member.file_size} were promised")
    return values
