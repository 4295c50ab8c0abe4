"""A matrix as the product of two thin ones, and how many columns they should have.

The best approximation of rank r keeps the r largest singular values (Eckart & Young 1936). The
choices of r that need no data read the spectrum λ = σ²:

- `erg`: SETOL's (Martin & Hinrichs 2025), from the top up to the eigenvalue at which the product
  of all so far, rescaled to mean 1, falls below 1; cut there, their MLP lost no test accuracy;
- `tail`: as many as lie in the tail of the power-law fit;
- a share of energy: the least r that holds so much of Σλ.
"""

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.compression.errors import CompressionError
from wwopt.spectra.norms import count_detx
from wwopt.spectra.power_law import fit_power_law

RankRule = Literal["erg", "tail"]


def factorize(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best approximation of a rank, W ≈ leftᵀ·right, the singular values shared equally.

    Args:
        matrix: shape (..., rows, columns), finite.
        rank: from 1 to the smaller side.

    Returns:
        left, shape (..., rank, rows), and right, shape (..., rank, columns), in float32.

    Raises:
        CompressionError: if the rank is out of range.
    """
    return Decomposition(matrix).factorize(rank)


class Decomposition:
    """The singular values and vectors of a matrix, for several ranks to cut it to."""

    def __init__(self, matrix: torch.Tensor) -> None:
        """Decompose a matrix of shape (..., rows, columns), finite, once it is asked."""
        self._matrix = matrix.detach()

    @cached_property
    def _usv(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        U, S, Vh = torch.linalg.svd(self._matrix.to(torch.float64), full_matrices=False)
        return U, S, Vh

    def factorize(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As the function of that name."""
        check_rank(rank, min(self._matrix.shape[-2:]))
        U, S, Vh = self._usv
        root = S[..., :rank].sqrt()
        left = (U[..., :rank] * root.unsqueeze(-2)).mT
        right = root.unsqueeze(-1) * Vh[..., :rank, :]
        return left.to(torch.float32).contiguous(), right.to(torch.float32).contiguous()


def check_rank(rank: int, most: int) -> None:
    """Refuse a rank that a matrix cannot be cut to.

    Raises:
        CompressionError: if it is out of range.
    """
    if not 1 <= rank <= most:
        raise CompressionError(f"rank must be from 1 to {most}, the smaller side, got {rank}")


def choose_rank(matrix: torch.Tensor, rule: RankRule | float) -> int:
    """The rank to cut a matrix to, by its spectrum.

    Args:
        matrix: shape (rows, columns), finite; of a stack (slices, rows, columns) the eigenvalues
            of all slices are taken together and the rank is that of a slice, rounded up.
        rule: "erg", "tail", or the share of energy to keep, above 0 to 1.

    Returns:
        From 1 to the smaller side.

    Raises:
        CompressionError: if the share is out of range.
    """
    values = torch.linalg.svdvals(matrix.detach().to(torch.float64)).square().flatten()
    eigenvalues: NDArray[np.float64] = np.sort(values.numpy())
    slices = matrix.shape[0] if matrix.ndim == 3 else 1
    return max(1, -(-_count(eigenvalues, rule) // slices))


def _count(eigenvalues: NDArray[np.float64], rule: RankRule | float) -> int:
    if rule == "erg":
        return count_detx(eigenvalues) or eigenvalues.size  # 0: all equal, none to be left out
    if rule == "tail":
        fit = fit_power_law(eigenvalues)
        return fit.num_pl_spikes or eigenvalues.size
    if not 0.0 < rule <= 1.0:
        raise CompressionError(f"a share of energy is above 0 and at most 1, got {rule:g}")
    held = np.cumsum(eigenvalues[::-1])
    if rule == 1.0 or not held[-1] > 0.0:
        return eigenvalues.size
    # Sums differ in the last digits from what they would be exactly.
    return int(np.searchsorted(held, rule * held[-1] * (1.0 - 1e-12))) + 1
