"""Weights rounded to few levels: symmetric, weight-only, a scale a row or a group of its inputs.

    W ≈ scale · codes,  codes whole numbers from -t to t,  t = 2^(bits-1) - 1

A code of zero is exactly zero, so that what was pruned stays pruned. Scales are half floats, and
rounded up, so that no weight lies beyond the outermost level.
"""

from dataclasses import dataclass

import torch

from wwopt.compression.errors import CompressionError

BITS = (2, 3, 4, 5, 6, 7, 8)
SCALE_BYTES = 2  # of a scale, float16
# Shares of a group's largest |w| that are tried as outermost level where clipping is allowed.
# Measured on Gaussian rows of 128: of the squared error at 2, 3 and 4 bits it leaves .31, .70, .88.
CLIPS = tuple(1.0 - 0.05 * step for step in range(17))
_LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Quantized:
    """A matrix as whole numbers and scales."""

    codes: torch.Tensor  # (rows, columns) int8, from -top to top
    scales: torch.Tensor  # (rows, groups) float16, at least 0
    bits: int
    group: int | None  # columns that share a scale; None: all of a row
    unit: float = 1.0  # power of two that the scales are multiplied by

    @property
    def top(self) -> int:
        """The outermost code."""
        return top_code(self.bits)


def top_code(bits: int) -> int:
    """The outermost code: 127 of 8 bits, 7 of 4, 1 of 2."""
    return int(2 ** (bits - 1) - 1)


def count_groups(columns: int, group: int | None) -> int:
    """Scales of a row."""
    return 1 if group is None else -(-columns // group)


def quantize(
    matrix: torch.Tensor, bits: int, *, group: int | None = None, clip: bool = False
) -> Quantized:
    """Round a matrix to the nearest levels.

    Args:
        matrix: shape (rows, columns), rows are outputs; finite.
        bits: of a code, 2 to 8.
        group: columns that share a scale, the last group of a row may be shorter; None for a row.
        clip: choose the outermost level of each group by least squared error, among `CLIPS` of
            the largest |w|, instead of putting it at the largest |w|.

    Returns:
        Codes and scales; without clipping |W - scale·codes| is at most half a scale.

    Raises:
        CompressionError: if bits or group are out of range, or a weight is not finite.
    """
    check_bits(bits, group)
    rows, columns = matrix.shape
    width = columns if group is None else min(group, columns)
    groups = count_groups(columns, group)
    weights = torch.zeros(rows, groups * width)
    weights[:, :columns] = matrix.detach().to(torch.float32)
    weights = weights.view(rows, groups, width)
    if not bool(torch.isfinite(weights).all()):
        raise CompressionError("weights that are not finite cannot be rounded; see wwopt analyze")
    top = top_code(bits)
    largest = weights.abs().amax(2)
    unit = _choose_unit(float(largest.max()) / top if largest.numel() else 0.0)
    scales = _half_above(largest / (top * unit))
    if clip:
        scales = _clip(weights, scales, top=top, unit=unit)
    codes = _codes(weights, scales.float() * unit, top)
    flat = codes.to(torch.int8).view(rows, -1)[:, :columns].contiguous()
    return Quantized(flat, scales, bits, group, unit)


def dequantize(quantized: Quantized) -> torch.Tensor:
    """The matrix that codes and scales stand for, float32, shape (rows, columns)."""
    columns = quantized.codes.shape[1]
    scales = quantized.scales.float() * quantized.unit
    width = columns if quantized.group is None else quantized.group
    return quantized.codes.float() * scales.repeat_interleave(width, dim=1)[:, :columns]


def check_bits(bits: int, group: int | None) -> None:
    """Refuse what cannot be packed.

    Raises:
        CompressionError: if bits or group are out of range.
    """
    if bits not in BITS:
        raise CompressionError(f"bits must be {BITS[0]} to {BITS[-1]}, got {bits}")
    if group is not None and group < 1:
        raise CompressionError(f"a group holds at least one column, got {group}")


def _codes(weights: torch.Tensor, scales: torch.Tensor, top: int) -> torch.Tensor:
    """Nearest codes of (rows, groups, width) under scales of (rows, groups)."""
    steps = torch.where(scales > 0.0, scales, 1.0).unsqueeze(2)
    return (weights / steps).round_().clamp_(-top, top)


def _clip(weights: torch.Tensor, scales: torch.Tensor, *, top: int, unit: float) -> torch.Tensor:
    best, least = scales, torch.full(scales.shape, torch.inf)
    for share in CLIPS:
        tried = _half_above(scales.float() * share)
        full = tried.float() * unit
        errors = (_codes(weights, full, top) * full.unsqueeze(2) - weights).square_().sum(2)
        best = torch.where(errors < least, tried, best)
        least = torch.minimum(errors, least)
    return best


def _choose_unit(largest_scale: float) -> float:
    """1 where half floats hold the scales well; else the power of two that puts the largest at 1.

    Rows far below the largest then lose digits, which are noise to the layer.
    """
    if largest_scale == 0.0 or 2.0**-8 <= largest_scale <= _LARGEST_HALF / 2.0:
        return 1.0
    return float(2.0 ** torch.tensor(largest_scale, dtype=torch.float64).log2().floor())


def _half_above(scales: torch.Tensor) -> torch.Tensor:
    """The least half floats that are not below."""
    halves = scales.to(torch.float16)
    above = (halves.view(torch.int16) + 1).view(torch.float16)  # the next; none is negative
    return torch.where(halves.float() < scales, above, halves)
