"""One layer by its plan: the tensors that are written for it, and the weights they stand for."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from wwopt.compression.compensation import CompensatedMatrix
from wwopt.compression.low_rank import Decomposition
from wwopt.compression.plans import LayerPlan, is_stored_sparsely
from wwopt.compression.pruning import count_zeros, magnitude_mask
from wwopt.compression.quantization import dequantize, quantize
from wwopt.weights.bit_packing import pack_bits
from wwopt.weights.packed_tensors import from_matrix


@dataclass(frozen=True)
class EncodedLayer:
    """A layer as it is written, in the format of `wwopt.weights.packed_tensors`."""

    weights: torch.Tensor  # what the tensors stand for, of the layer's own shape and dtype
    stored: dict[str, torch.Tensor]  # by the name in the file
    entries: dict[str, dict[str, Any]]  # what the file's metadata say of them

    @property
    def bytes(self) -> int:
        """Of the stored tensors, the header not included."""
        return sum(tensor.nbytes for tensor in self.stored.values())


def to_matrices(tensor: torch.Tensor, *, axis: int = 0, stacked: bool = False) -> torch.Tensor:
    """A tensor of at least two dimensions as (slices, rows, columns), rows are outputs.

    Args:
        tensor: a weight.
        axis: dimension of the outputs: 1 for Conv1D of GPT-2 and for transposed convolutions.
        stacked: whether the first dimension of three counts matrices, as of experts.
    """
    if stacked:
        return tensor
    if axis:
        tensor = tensor.transpose(0, 1)
    return tensor.reshape(1, tensor.shape[0], -1)


def encode_layer(
    name: str, tensor: torch.Tensor, plan: LayerPlan, *, axis: int = 0, stacked: bool = False
) -> EncodedLayer:
    """Compress one layer; arguments and errors as of `LayerEncoder`."""
    return LayerEncoder(name, tensor, axis=axis, stacked=stacked).encode(plan)


class LayerEncoder:
    """One layer that is compressed by several plans; what they have in common is computed once."""

    def __init__(
        self, name: str, tensor: torch.Tensor, *, axis: int = 0, stacked: bool = False
    ) -> None:
        """Keep a layer.

        Args:
            name: of the tensor, as the file shall have it.
            tensor: the weight, of at least two dimensions, finite.
            axis: as of `to_matrices`.
            stacked: as of `to_matrices`.
        """
        self._name, self._tensor, self._axis = name, tensor.detach(), axis
        self._matrices = to_matrices(self._tensor, axis=axis, stacked=stacked)
        self._stacked = stacked
        self._whole = _Piece(name, self._matrices.flatten(0, 1), tensor.dtype)
        self._factors: dict[int, tuple[_Piece, _Piece]] = {}  # by rank

    def encode(self, plan: LayerPlan) -> EncodedLayer:
        """Compress the layer.

        Args:
            plan: what to do with it.

        Raises:
            CompressionError: if the plan does not fit the shape, or a weight is not finite.
        """
        name, tensor, axis = self._name, self._tensor, self._axis
        if plan.changes_nothing:
            return EncodedLayer(tensor, {name: tensor.contiguous()}, {})
        about: dict[str, Any] = {"shape": list(tensor.shape), "dtype": _name(tensor.dtype)}
        if axis:
            about["axis"] = axis
        if plan.rank is None:
            found, stored, entry = self._whole.encode(plan)
            weights = from_matrix(found, tensor.shape, axis).to(tensor.dtype)
            if entry is None:  # pruned, and no smaller for it
                return EncodedLayer(weights, {name: weights}, {})
            return EncodedLayer(weights, stored, {name: about | entry})
        stored, entries, sides = {}, {name: about | {"rank": plan.rank}}, []
        slices = self._matrices.shape[:1] if self._stacked else ()
        for piece in self._factorize(plan.rank):
            side, tensors, entry = piece.encode(plan)
            sides.append(side.view(*slices, plan.rank, -1))
            if entry is None:
                tensors = {piece.name: sides[-1].to(tensor.dtype)}
            else:
                shape = {"shape": list(sides[-1].shape), "dtype": about["dtype"]}
                entries[piece.name] = shape | entry
            stored |= tensors
        left, right = (side.to(tensor.dtype).float() for side in sides)
        weights = from_matrix(left.mT @ right, tensor.shape, axis).to(tensor.dtype)
        return EncodedLayer(weights, stored, entries)

    def _factorize(self, rank: int) -> tuple["_Piece", "_Piece"]:
        if rank not in self._factors:
            left, right = (
                _Piece(f"{self._name}.{part}", factor.flatten(0, -2), self._tensor.dtype)
                for part, factor in zip(
                    ("left", "right"), self._decomposition.factorize(rank), strict=True
                )
            )
            self._factors[rank] = left, right
        return self._factors[rank]

    @cached_property
    def _decomposition(self) -> Decomposition:
        return Decomposition(self._matrices)


class _Piece:
    """A matrix, (rows, columns), that is stored by a name: a layer, or a factor of one."""

    def __init__(self, name: str, matrix: torch.Tensor, dtype: torch.dtype) -> None:
        self.name, self._matrix, self._dtype = name, matrix, dtype

    @cached_property
    def _compensated(self) -> CompensatedMatrix:
        return CompensatedMatrix(self._matrix)

    def encode(
        self, plan: LayerPlan
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, Any] | None]:
        """The values, the tensors and the entry; no entry where it stays dense."""
        name, matrix, dtype = self.name, self._matrix, self._dtype
        size = matrix.numel()
        kept = size - count_zeros(size, plan.sparsity)
        sparse = is_stored_sparsely(size, kept, plan.bits or 8 * dtype.itemsize)
        mask = magnitude_mask(matrix, plan.sparsity)
        pruned = matrix * mask if kept < size else matrix
        stored = {f"{name}.kept": pack_bits(mask, 1)} if sparse else {}
        if plan.bits is None:
            values = pruned.to(dtype)
            if not sparse:
                return values, {}, None
            return values, stored | {f"{name}.values": values[mask]}, {}
        if plan.compensate:
            keep = mask if kept < size else None
            quantized = self._compensated.round(plan.bits, group=plan.group, mask=keep)
        else:
            quantized = quantize(pruned, plan.bits, group=plan.group, clip=plan.clip)
        codes = quantized.codes[mask] if sparse else quantized.codes
        stored[f"{name}.codes"] = pack_bits(
            (codes.to(torch.int16) + 2 ** (plan.bits - 1)).to(torch.uint8), plan.bits
        )
        stored[f"{name}.scales"] = quantized.scales
        entry: dict[str, Any] = {"bits": plan.bits}
        if plan.group is not None:
            entry["group"] = plan.group
        if sparse:
            entry["kept"] = kept
        if not math.isclose(quantized.unit, 1.0):
            entry["unit"] = quantized.unit
        return dequantize(quantized), stored, entry


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
