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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
# Columns that make up for each other. H has their square, and is decomposed: the factor of an
# embedding of 30,522 words would take 19 GB, and hours.
_MOST = 2048


def quantize_compensated(
    matrix: torch.Tensor,
    bits: int,
    *,
    group: int | None = None,
    mask: torch.Tensor | None = None,
) -> Quantized:
    """Round a matrix to levels so that its outputs change least; as `CompensatedMatrix.round`.

    Args:
        matrix: shape (rows, columns), rows are outputs; finite.
        bits: of a code, 2 to 8.
        group: columns that share a scale; None for a row.
        mask: weights that stay.
    """
    return CompensatedMatrix(matrix).round(bits, group=group, mask=mask)


class CompensatedMatrix:
    """A matrix that is rounded in several ways; what they have in common is computed once."""

    def __init__(self, matrix: torch.Tensor) -> None:
        """Keep a matrix of shape (rows, columns), rows are outputs; finite."""
        self._weights = matrix.detach().to(torch.float32)
        self._scales: dict[tuple[int, int | None], tuple[torch.Tensor, float]] = {}

    @cached_property
    def _parts(self) -> "list[_Compensation]":
        """Of columns that lie side by side and make up for each other, in equal parts."""
        count = math.ceil(self._weights.shape[1] / _MOST)
        return [_Compensation.of(part) for part in self._weights.tensor_split(count, dim=1)]

    def round(
        self, bits: int, *, group: int | None = None, mask: torch.Tensor | None = None
    ) -> Quantized:
        """Round to levels so that the outputs change least.

        Args:
            bits: of a code, 2 to 8.
            group: columns that share a scale; None for a row.
            mask: weights that stay, (rows, columns) bool; the others get code 0, and their loss is
                made up for as rounding errors are. None: all stay.

        Returns:
            Codes and scales in the format of `quantize`.

        Raises:
            CompressionError: if bits or group are out of range.
        """
        check_bits(bits, group)
        top = top_code(bits)
        if (bits, group) not in self._scales:
            importance = torch.cat([part.importance for part in self._parts])
            self._scales[bits, group] = _choose_scales(self._weights, importance, top, group)
        scales, unit = self._scales[bits, group]
        each = scales.float() * unit
        codes, start = torch.empty(self._weights.shape, dtype=torch.int8), 0
        for part in self._parts:
            own = slice(start, start + len(part.importance))
            keep = None if mask is None else mask[:, own]
            places = (part.order + start) // (group or self._weights.shape[1])
            codes[:, own] = part.round(self._weights[:, own], each, places.tolist(), top, keep)
            start = own.stop
        return Quantized(codes, scales, bits, group, unit)


def stand_in(weights: torch.Tensor) -> torch.Tensor:
    """The inputs' second moment as the weights suggest it, (columns, columns), mean diagonal 2."""
    identity = DAMPING * torch.eye(weights.shape[1])
    largest = weights.abs().max()
    if float(largest) == 0.0:
        return identity
    scaled = weights / largest  # squares of very large or small weights leave float32
    gram = scaled.mT @ scaled
    return gram / gram.diagonal().mean() + identity


@dataclass(frozen=True)
class _Compensation:
    """How an error in one column of a matrix is made up for by those that are rounded after it."""

    importance: torch.Tensor  # diagonal of H, (columns,)
    order: torch.Tensor  # in which the columns are rounded
    factor: torch.Tensor  # upper, (columns, columns) in that order, H⁻¹ = factorᵀ·factor

    @classmethod
    def of(cls, weights: torch.Tensor) -> "_Compensation":
        H = stand_in(weights)
        importance = H.diagonal().clone()
        # Those that matter most come first: there are most others left to make up for them.
        order = importance.argsort(descending=True, stable=True)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(H[order][:, order].double()))
        return cls(importance, order, torch.linalg.cholesky(inverse, upper=True).float())

    def round(
        self,
        weights: torch.Tensor,
        scales: torch.Tensor,
        places: Sequence[int],
        top: int,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Codes (rows, columns), int8, under scales of (rows, groups); places are the groups."""
        rows, columns = weights.shape
        # A column of the matrix is a row here, so that its numbers lie side by side.
        left, codes = weights.T[self.order], torch.empty(columns, rows)
        keep = None if mask is None else mask.T[self.order]
        each = scales.T.contiguous()
        steps = torch.where(each > 0.0, each, 1.0)
        for start in range(0, columns, _BLOCK):
            stop = min(start + _BLOCK, columns)
            block, to_come = left[start:stop], self.factor[start:stop, stop:]
            errors = torch.empty_like(block)
            for j, (column, code, error) in enumerate(
                zip(block, codes[start:stop], errors, strict=True)
            ):
                place, row = places[start + j], self.factor[start + j, start + j : stop]
                torch.div(column, steps[place], out=code).round_().clamp_(-top, top)
                if keep is not None:
                    code.mul_(keep[start + j])
                torch.addcmul(column, code, each[place], value=-1.0, out=error).div_(row[0])
                block[j + 1 :].addr_(row[1:], error, alpha=-1.0)
            left[stop:].addmm_(to_come.T, errors, alpha=-1.0)
        found = torch.empty(rows, columns, dtype=torch.int8)
        found[:, self.order] = codes.T.to(torch.int8)
        return found


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
