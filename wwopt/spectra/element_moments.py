"""Moments of a layer's entries: mean, variance, kurtosis and largest magnitude.

Two passes over the entries, in pieces that the cache holds: a copy of the layer in float64, and one
of its deviations, would cost more than the eigenvalues. Where something else has the pieces in the
cache anyway, `PowerSums` needs no pass at all.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import blas

from wwopt.spectra.gram_matrices import split_entries


class PowerSums:
    """Sums of the first four powers of entries that come block by block, in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._max_abs = 0.0
        self._sums = [0.0] * 4
        self._squares: NDArray[np.float64] = np.empty(0)

    def add(self, block: NDArray[np.float64]) -> None:
        """Add the entries of a contiguous block, which is not modified."""
        values = block.ravel(order="K")
        if values.size > self._squares.size:
            self._squares = np.empty(values.size)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.multiply(values, values, out=self._squares[: values.size])
            added = values.sum(), values.dot(values), values.dot(squares), squares.dot(squares)
        self._sums = [total + float(more) for total, more in zip(self._sums, added, strict=True)]
        self._max_abs = max(self._max_abs, abs(float(values[blas.idamax(values)])))
        self._count += values.size

    def moments(self, count: int) -> dict[str, float] | None:
        """As `element_moments`; None where sums about 0 are of no use about the mean.

        That is where the mean exceeds a deviation, where fourth powers leave the range of float64,
        and where the number of entries is another than `count`.
        """
        first, second, third, fourth = (total / max(count, 1) for total in self._sums)
        in_range = 1e-280 < fourth < math.inf
        if self._count != count or not in_range or not 2.0 * first * first <= second:
            return None
        variance = second - first * first
        fourth += first * (first * (6.0 * second - 3.0 * first * first) - 4.0 * third)
        return {
            "element_mean": first,
            "element_variance": variance * (count / max(count - 1, 1)),
            "kurtosis": fourth / (variance * variance),
            "max_abs": self._max_abs,
        }


def element_moments(weights: torch.Tensor, dtype: torch.dtype) -> dict[str, float]:
    """Mean, variance (ddof = 1), kurtosis and largest |w| over all entries of a layer.

    Args:
        weights: any shape.
        dtype: of the sums.

    Returns:
        The fields of `LayerSpectrum` of these names; some are NaN where an entry is not finite.
    """
    n = weights.numel()
    pieces = list(split_entries(weights.reshape(-1)))
    low, high = (float(bound) for bound in torch.aminmax(weights))
    mean = sum(float(piece.to(dtype).mean()) * (piece.numel() / n) for piece in pieces)
    # The mean of a constant layer may be off by rounding.
    largest = max(high - mean, mean - low)
    if largest <= 16.0 * torch.finfo(dtype).eps * abs(mean):
        largest = 0.0
    second = fourth = 0.0
    # In units of the largest: fourth powers leave the range of float32 from 1e10 on.
    scale = min(1.0 / largest, torch.finfo(dtype).max) if largest > 0.0 else 1.0
    if largest > 0.0:
        for piece in pieces:
            values = piece.to(dtype, copy=True).sub_(mean).mul_(scale)
            second += float(values.dot(values)) / n
            squares = values.square_()
            fourth += float(squares.dot(squares)) / n
    return {
        "element_mean": mean,
        "element_variance": second / scale / scale * (n / max(n - 1, 1)),
        # A constant layer has no fourth moment to speak of: call it Gaussian rather than NaN.
        "kurtosis": fourth / (second * second) if second > 0 else 3.0,
        "max_abs": max(abs(low), abs(high)),
    }
