"""Rounding in which later inputs make up for the errors of earlier ones, without any data.

GPTQ (Frantar et al. 2023, ICLR; arXiv:2210.17323) rounds a matrix column by column and moves what
is left over to the columns that are still to come, so that the outputs W x change least. It needs
H = E[x xᵀ] of the inputs. Here the weights stand in for them: training builds W from products with
its inputs, so WᵀW is large where they were.

    H = WᵀW / mean(diag WᵀW) + I

The outermost level of each group is chosen by the least Σ_j H_jj |error_j|³, among `CLIPS` of the
largest |w|: least squares clips large weights too readily, which shrinks the layer's strongest
directions. `studies/compress_budget.py` has what both are worth.
"""

import math

import torch

from wwopt.compression.quantization import (
    CLIPS,
    Quantized,
    _choose_unit,
    _half_above,
    check_bits,
    count_groups,
    top_code,
)

DAMPING = 1.0  # weight of I in H
POWER = 3.0  # of an error, where the outermost level is chosen
_BLOCK = 64  # columns between two updates of all that are to come


def quantize_compensated(
    matrix: torch.Tensor,
    bits: int,
    *,
    group: int | None = None,
    mask: torch.Tensor | None = None,
) -> Quantized:
    """Round a matrix to levels so that its outputs change least.

    Args:
        matrix: shape (rows, columns), rows are outputs; finite.
        bits: of a code, 2 to 8.
        group: columns that share a scale; None for a row.
        mask: weights that stay, (rows, columns) bool; the others get code 0, and their loss is made
            up for as rounding errors are. None: all stay.

    Returns:
        Codes and scales in the format of `quantize`.

    Raises:
        CompressionError: if bits or group are out of range.
    """
    check_bits(bits, group)
    weights = matrix.detach().to(torch.float32)
    columns = weights.shape[1]
    top = top_code(bits)
    H = stand_in(weights)
    scales, unit = _choose_scales(weights, H.diagonal(), top, group)
    wide = (scales.float() * unit).repeat_interleave(group or columns, dim=1)[:, :columns]
    keep = torch.ones_like(weights, dtype=torch.bool) if mask is None else mask
    # The columns that matter most come first: there are most others left to make up for them.
    order = H.diagonal().argsort(descending=True, stable=True)
    codes = torch.empty_like(weights)
    codes[:, order] = _round_in_order(
        weights[:, order], wide[:, order], keep[:, order], H[order][:, order], top
    )
    return Quantized(codes.to(torch.int8), scales, bits, group, unit)


def stand_in(weights: torch.Tensor) -> torch.Tensor:
    """The inputs' second moment as the weights suggest it, (columns, columns), mean diagonal 2."""
    identity = DAMPING * torch.eye(weights.shape[1])
    largest = weights.abs().max()
    if float(largest) == 0.0:
        return identity
    scaled = weights / largest  # squares of very large or small weights leave float32
    gram = scaled.mT @ scaled
    return gram / gram.diagonal().mean() + identity


def _round_in_order(
    weights: torch.Tensor, scales: torch.Tensor, keep: torch.Tensor, H: torch.Tensor, top: int
) -> torch.Tensor:
    """Codes of the columns, rounded from the first to the last."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H.double()))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    steps = torch.where(scales > 0.0, scales, 1.0)
    left, codes = weights.clone(), torch.empty_like(weights)
    for start in range(0, weights.shape[1], _BLOCK):
        stop = min(start + _BLOCK, weights.shape[1])
        errors = torch.empty(len(weights), stop - start)
        for j in range(start, stop):
            code = (left[:, j] / steps[:, j]).round_().clamp_(-top, top) * keep[:, j]
            error = (left[:, j] - code * scales[:, j]) / factor[j, j]
            left[:, j + 1 : stop] -= error[:, None] * factor[j, j + 1 : stop]
            codes[:, j], errors[:, j - start] = code, error
        left[:, stop:] -= errors @ factor[start:stop, stop:]
    return codes


def _choose_scales(
    weights: torch.Tensor, importance: torch.Tensor, top: int, group: int | None
) -> tuple[torch.Tensor, float]:
    """Scales (rows, groups), float16, and their unit."""
    rows, columns = weights.shape
    width = columns if group is None else min(group, columns)
    groups = count_groups(columns, group)
    padded = torch.zeros(rows + 1, groups * width)
    padded[:rows, :columns], padded[rows, :columns] = weights, importance
    pieces, matters = padded[:rows].view(rows, groups, width), padded[rows].view(groups, width)
    largest = pieces.abs().amax(2)
    unit = _choose_unit(float(largest.max()) / top)
    near = 2.0 ** math.floor(math.log2(float(largest.max()) or 1.0))  # cubes leave float32
    full = _half_above(largest / (top * unit))
    pieces = pieces / near
    best, least = full, torch.full(full.shape, torch.inf)
    for share in CLIPS:
        tried = _half_above(full.float() * share)
        step = tried.float().unsqueeze(2) * (unit / near)
        codes = (pieces / torch.where(step > 0.0, step, 1.0)).round_().clamp_(-top, top)
        errors = ((codes * step - pieces).abs_() ** POWER * matters).sum(2)
        best = torch.where(errors < least, tried, best)
        least = torch.minimum(errors, least)
    return best, unit
