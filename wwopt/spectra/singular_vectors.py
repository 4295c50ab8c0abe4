"""Singular vectors of a matrix, how two sets compare, and what of a spectrum leaves its noise.

With W = Σ s_i u_i v_iᵀ, largest s first. Small matrices are decomposed, by their smaller Gram
matrix in float64. Of larger ones the leading vectors come from randomised subspace iteration
(Halko, Martinsson & Tropp 2011, `torch.svd_lowrank`): .35 s for 10 of a 4,096 × 4,096 layer on one
core, where all take a minute.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize

from wwopt.spectra.gram_matrices import gram_matrices, solve_all
from wwopt.spectra.large_layers import estimate_quickly
from wwopt.spectra.marchenko_pastur import marchenko_pastur_quantiles, trap_z
from wwopt.spectra.traps import TRAP_THRESHOLD

WHOLE_SIDE = 512  # M up to which a matrix is decomposed; .1 s there on one core
EXACT_SIDE = 1536  # M up to which eigenvalues alone are exact; 1 s there
_SPARE = 10  # vectors beside those wanted, as Halko et al. advise
_PASSES = 4  # of subspace iteration


@dataclass(frozen=True, eq=False)
class SingularVectors:
    """The leading singular vectors of a matrix, in the order of their values."""

    left: torch.Tensor  # (rows, k), orthonormal columns
    values: torch.Tensor  # (k,), descending
    right: torch.Tensor  # (columns, k), orthonormal columns


def find_singular_vectors(
    matrix: torch.Tensor, count: int, *, whole_side: int = WHOLE_SIDE
) -> SingularVectors:
    """The leading singular vectors of a matrix of shape (rows, columns), the same in every run.

    Args:
        matrix: finite; in any floating dtype.
        count: how many are wanted, at most the smaller dimension.
        whole_side: smaller dimension up to which the matrix is decomposed.
    """
    side = min(matrix.shape)
    count = min(count, side)
    if side > whole_side:
        known = [matrix.device] if matrix.is_cuda else []
        with torch.random.fork_rng(devices=known):
            torch.manual_seed(0)
            wide = min(count + _SPARE, side)
            left, values, right = torch.svd_lowrank(matrix.float(), q=wide, niter=_PASSES)
        return SingularVectors(left[:, :count], values[:count], right[:, :count])
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
    tall = tall.to(torch.float64)
    _, vectors = torch.linalg.eigh(tall.mT @ tall)
    short = vectors.flip(1)[:, :count]
    long = tall @ short
    values = torch.linalg.vector_norm(long, dim=0)
    long = long / values.clamp_min(torch.finfo(torch.float64).tiny)
    left, right = (long, short) if matrix.shape[0] >= matrix.shape[1] else (short, long)
    dtype = torch.float64 if matrix.dtype == torch.float64 else torch.float32
    return SingularVectors(left.to(dtype), values.to(dtype), right.to(dtype))


def match_vectors(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Mean |uᵀu'| over pairs, one of each set, that make it largest.

    Args:
        ours: shape (n, k), orthonormal columns.
        theirs: shape (n, j), orthonormal columns.

    Returns:
        1 for the same directions in whatever order and with whatever signs, about √(2/(πn)) for
        independent ones; NaN where a set is empty.
    """
    cosines = (ours.mT @ theirs).abs().double().cpu().numpy()
    if not cosines.size:
        return math.nan
    rows, columns = optimize.linear_sum_assignment(cosines, maximize=True)
    return float(min(cosines[rows, columns].mean(), 1.0))


def principal_angles(ours: torch.Tensor, theirs: torch.Tensor) -> NDArray[np.float64]:
    """Angles between two spaces in degrees, ascending (Björck & Golub 1973).

    Args:
        ours: shape (n, k), orthonormal columns.
        theirs: shape (n, j), orthonormal columns.
    """
    cosines = torch.linalg.svdvals((ours.mT @ theirs).double()).cpu().numpy()
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, 0.0, 1.0))))


def squared_singular_values(matrix: torch.Tensor) -> NDArray[np.float64]:
    """All squared singular values of a matrix, ascending; beyond 1,536 columns estimated.

    The estimate is that of `analyze(quick=True)`: the largest are exact to 1e-6, the others
    quantiles, and their sum is exact.
    """
    if min(matrix.shape) > EXACT_SIDE:
        return estimate_quickly(matrix)
    (gram,) = gram_matrices(matrix[None], torch.float64)
    return np.sort(solve_all(gram))


@dataclass(frozen=True)
class BeyondNoise:
    """What of a spectrum leaves the Marchenko-Pastur bulk of its own noise."""

    directions: int  # eigenvalues beyond the edge
    share: float  # of the energy, that they hold
    deviation: float  # of the noise's entries


def find_beyond_noise(
    eigenvalues: NDArray[np.float64], *, N: int, M: int, least: float = 0.0
) -> BeyondNoise:
    """Count the eigenvalues beyond the edge of the noise below them.

    The noise's variance follows from the median eigenvalue, which a few directions do not move
    (Gavish & Donoho 2014, arXiv:1305.5870, section III.E); beyond is what is 4 Tracy-Widom units or
    more above the edge, as for traps.

    Args:
        eigenvalues: of the Gram matrix, shape (M,), in any order.
        N: larger dimension.
        M: smaller dimension.
        least: variance of the entries that is noise in any case, such as that of rounding.
    """
    total = float(eigenvalues.sum())
    if not total > 0.0:
        return BeyondNoise(0, 0.0, 0.0)
    median = float(np.median(eigenvalues)) / float(marchenko_pastur_quantiles(N / M, 1)[0])
    variance = max(median / N, least)
    if not variance > 0.0:
        beyond = eigenvalues > 0.0
    else:
        beyond = np.array([trap_z(float(x), N, M, variance) >= TRAP_THRESHOLD for x in eigenvalues])
    share = float(eigenvalues[beyond].sum()) / total
    return BeyondNoise(int(beyond.sum()), share, math.sqrt(variance))
