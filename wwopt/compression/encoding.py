"""One layer by its plan: the tensors that are written for it, and the weights they stand for."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from wwopt.compression.compensation import quantize_compensated
from wwopt.compression.low_rank import check_rank, factorize
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
    """Compress one layer.

    Args:
        name: of the tensor, as the file shall have it.
        tensor: the weight, of at least two dimensions, finite.
        plan: what to do with it.
        axis: as of `to_matrices`.
        stacked: as of `to_matrices`.

    Raises:
        CompressionError: if the plan does not fit the shape, or a weight is not finite.
    """
    tensor = tensor.detach()
    if plan.changes_nothing:
        return EncodedLayer(tensor, {name: tensor.contiguous()}, {})
    matrices = to_matrices(tensor, axis=axis, stacked=stacked)
    about: dict[str, Any] = {"shape": list(tensor.shape), "dtype": _name(tensor.dtype)}
    if axis:
        about["axis"] = axis
    if plan.rank is None:
        found, stored, entry = _encode_piece(name, matrices.flatten(0, 1), tensor.dtype, plan)
        weights = from_matrix(found, tensor.shape, axis).to(tensor.dtype)
        if entry is None:  # pruned, and no smaller for it
            return EncodedLayer(weights, {name: weights}, {})
        return EncodedLayer(weights, stored, {name: about | entry})
    check_rank(plan.rank, min(matrices.shape[1:]))
    stored, entries, sides = {}, {name: about | {"rank": plan.rank}}, []
    for part, factor in zip(("left", "right"), factorize(matrices, plan.rank), strict=True):
        if not stacked:
            factor = factor[0]
        own = f"{name}.{part}"
        side, tensors, entry = _encode_piece(own, factor.flatten(0, -2), tensor.dtype, plan)
        sides.append(side.view(factor.shape))
        if entry is None:
            tensors = {own: sides[-1].to(tensor.dtype)}
        else:
            shape = {"shape": list(factor.shape), "dtype": about["dtype"]}
            entries[own] = shape | entry
        stored |= tensors
    left, right = (side.to(tensor.dtype).float() for side in sides)
    weights = from_matrix(left.mT @ right, tensor.shape, axis).to(tensor.dtype)
    return EncodedLayer(weights, stored, entries)


def _encode_piece(
    name: str, matrix: torch.Tensor, dtype: torch.dtype, plan: LayerPlan
) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, Any] | None]:
    """The values, the tensors and the entry of (rows, columns); no entry where it stays dense."""
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
        quantized = quantize_compensated(matrix, plan.bits, group=plan.group, mask=keep)
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
