"""Compressed tensors as wwopt writes them to safetensors, and the tensors they stand for.

A tensor NAME that is compressed lies in the file as others, and the file's metadata say under the
key `wwopt` how they are put together, as JSON {"format": 1, "tensors": {NAME: entry}, "tied":
{other name: NAME}}. An entry gives the tensor's "shape" and "dtype", and either

- "rank": NAME is leftᵀ·right of the tensors NAME.left and NAME.right, which may be compressed too;
- or not. Then its values are NAME.values, or those of NAME.codes: whole numbers of "bits" bits,
  packed without gaps (`wwopt.weights.bit_packing`), less 2^(bits-1), times a scale of NAME.scales,
  one for each row and "group" columns (without "group": for each row), times "unit" if there is
  one. With NAME.kept, a bit for every weight, they are the values of its ones; the rest is zero.

With "axis" 1 the matrix is that of the tensor with its first two dimensions exchanged; its rows are
the outputs in either case. docs/compression.md reads all this in a few lines of plain torch.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from wwopt.weights.bit_packing import count_packed, unpack_bits
from wwopt.weights.stored_tensors import StoredTensor, WeightsError

METADATA_KEY = "wwopt"
FORMAT = 1
PACKED = "packed "  # in front of how, as the dtype of what was put together


class PackedError(ValueError):
    """What is wrong with a file's packed tensors, without its name."""


def from_matrix(matrix: torch.Tensor, shape: Sequence[int], axis: int) -> torch.Tensor:
    """The tensor of that shape, of a matrix whose rows are the outputs along the axis."""
    if not axis:
        return matrix.reshape(*shape)
    return matrix.reshape(shape[1], shape[0], *shape[2:]).transpose(0, 1).contiguous()


def unpack_tensors(tensors: Sequence[StoredTensor], text: str) -> list[StoredTensor]:
    """Put together what a file's metadata say is packed; the rest stays, and so does the order.

    Args:
        tensors: of the file.
        text: what its metadata have under `METADATA_KEY`.

    Raises:
        PackedError: if the text is none of ours, or does not fit the tensors.
    """
    try:
        content = json.loads(text)
        number, entries, tied = content["format"], content["tensors"], content.get("tied", {})
        if number != FORMAT:
            raise PackedError(f"its tensors are packed in format {number!r}, known is {FORMAT}")
        if not (isinstance(entries, dict) and isinstance(tied, dict)):
            raise PackedError("what it says of packed tensors is no mapping")
        by_name = {tensor.name: tensor for tensor in tensors}
        opened = _Opened(by_name, entries)
        made = {name: opened.get(name) for name in entries if not _is_part(name, entries)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, PackedError):
            raise
        raise PackedError(f"what it says of packed tensors is damaged ({error!r})") from error
    result: dict[str, StoredTensor] = {}  # by name: the first part marks the place
    for tensor in tensors:
        target = opened.used.get(tensor.name, tensor.name)
        while _is_part(target, entries):
            target = target.rpartition(".")[0]
        result.setdefault(target, made.get(target, tensor))
    for other, name in tied.items():
        if name not in result or other in result:
            raise PackedError(f"{other!r} should be {name!r}, which is not there")
        result[other] = replace(result[name], name=other)
    return list(result.values())


def _is_part(name: str, entries: Mapping[str, Any]) -> bool:
    """Whether an entry is a factor of another."""
    owner, _, part = name.rpartition(".")
    return part in {"left", "right"} and "rank" in entries.get(owner, {})


class _Opened:
    """The tensors of a file, and the entries that say how some of them go together."""

    def __init__(
        self, by_name: Mapping[str, StoredTensor], entries: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.by_name = by_name
        self.entries = entries
        self.used: dict[str, str] = {}  # tensor of the file -> the entry that it is a part of

    def get(self, name: str) -> StoredTensor:
        """The tensor that an entry stands for, or one of the file."""
        if name not in self.entries:
            return self.by_name[name]
        entry = self.entries[name]
        shape, dtype = tuple(entry["shape"]), getattr(torch, entry["dtype"])
        if not isinstance(dtype, torch.dtype):
            raise PackedError(f"{name!r} should have the dtype {entry['dtype']!r}")
        if not (shape and all(isinstance(n, int) and 0 < n < 2**31 for n in shape)):
            raise PackedError(f"{name!r} should have the shape {shape}")
        if entry.get("axis", 0) not in ((0, 1) if len(shape) > 1 else (0,)):
            raise PackedError(f"{name!r} has no axis {entry['axis']!r}")
        read, how, identity = (
            self._product(name, entry, shape)
            if "rank" in entry
            else self._piece(name, entry, shape)
        )
        return StoredTensor(
            name=name,
            shape=shape,
            dtype=PACKED + how,
            read=partial(_finish, read, shape, entry.get("axis", 0), dtype),
            identity=identity,
            quantized=True,
            note=f"dequantized from {how}" if "bits" in how or "rank" in how else "",
        )

    def _part(self, name: str, part: str) -> StoredTensor:
        found = self.by_name[f"{name}.{part}"]
        self.used[found.name] = name
        return found

    def _product(
        self, name: str, entry: Mapping[str, Any], shape: tuple[int, ...]
    ) -> tuple[Callable[[], torch.Tensor], str, Any]:
        sides = [self.get(f"{name}.{part}") for part in ("left", "right")]
        for side in sides:
            self.used.setdefault(side.name, name)
        left, right = sides
        fits = left.shape[:-1] == right.shape[:-1] and left.shape[-2] == entry["rank"]
        size = math.prod(left.shape[:-2]) * left.shape[-1] * right.shape[-1]
        if not fits or size != math.prod(shape):
            raise PackedError(f"{name!r} of {shape} is no product of {left.shape}, {right.shape}")
        inner = left.dtype.removeprefix(PACKED)
        return (
            partial(_multiply, left.read, right.read),
            f"rank {entry['rank']}, {inner}",
            (left.identity, right.identity),
        )

    def _piece(
        self, name: str, entry: Mapping[str, Any], shape: tuple[int, ...]
    ) -> tuple[Callable[[], torch.Tensor], str, Any]:
        size = math.prod(shape)
        bits, kept = entry.get("bits"), None
        if f"{name}.kept" in self.by_name:
            kept = self._part(name, "kept")
            _expect(kept, (count_packed(size, 1),))
        if bits is None:
            values = self._part(name, "values")
            if kept is None or len(values.shape) != 1:
                raise PackedError(f"{name!r} has values without saying which are kept")
            read = partial(_scatter, values.read, kept.read, size, values.shape[0])
            return read, f"sparse {entry['dtype']}", (values.identity, kept.identity)
        if not (isinstance(bits, int) and 2 <= bits <= 8):
            raise PackedError(f"{name!r} should have codes of {bits!r} bits")
        codes, scales = self._part(name, "codes"), self._part(name, "scales")
        count = size if kept is None else int(entry["kept"])
        if not 0 <= count <= size:
            raise PackedError(f"{name!r} of {size} weights keeps {count}")
        _expect(codes, (count_packed(count, bits),))
        rows = scales.shape[0] if len(scales.shape) == 2 else 0
        if rows < 1 or size % rows:
            raise PackedError(f"{name!r} of {size} weights has scales of shape {scales.shape}")
        columns = size // rows
        group = entry.get("group", columns)
        if not (isinstance(group, int) and group >= 1):
            raise PackedError(f"{name!r} has groups of {group!r}")
        _expect(scales, (rows, -(-columns // group)))
        read_codes = partial(_uncode, codes.read, bits, count)
        if kept is not None:
            read_codes = partial(_scatter, read_codes, kept.read, size, count)
        read = partial(_scale, read_codes, scales.read, group, float(entry.get("unit", 1.0)))
        how = f"{bits} bits" if kept is None else f"sparse {bits} bits"
        return read, how, (codes.identity, scales.identity)


def _expect(tensor: StoredTensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise PackedError(f"{tensor.name!r} should have the shape {shape}, not {tensor.shape}")


def _finish(
    read: Callable[[], torch.Tensor], shape: tuple[int, ...], axis: int, dtype: torch.dtype
) -> torch.Tensor:
    return from_matrix(read(), shape, axis).to(dtype)


def _multiply(left: Callable[[], torch.Tensor], right: Callable[[], torch.Tensor]) -> torch.Tensor:
    product: torch.Tensor = left().float().mT @ right().float()
    return product


def _uncode(codes: Callable[[], torch.Tensor], bits: int, count: int) -> torch.Tensor:
    zero: float = 2.0 ** (bits - 1)
    return unpack_bits(codes(), bits, count).float() - zero


def _scatter(
    values: Callable[[], torch.Tensor], kept: Callable[[], torch.Tensor], size: int, count: int
) -> torch.Tensor:
    mask, found = unpack_bits(kept(), 1, size).bool(), values()
    if int(mask.sum()) != count:
        raise WeightsError(f"{count} values are stored for {int(mask.sum())} weights")
    result = torch.zeros(size, dtype=found.dtype)
    result[mask] = found
    return result


def _scale(
    codes: Callable[[], torch.Tensor], scales: Callable[[], torch.Tensor], group: int, unit: float
) -> torch.Tensor:
    factors = scales().float() * unit
    matrix: torch.Tensor = codes().view(factors.shape[0], -1)
    return matrix * factors.repeat_interleave(group, dim=1)[:, : matrix.shape[1]]
