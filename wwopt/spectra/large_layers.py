"""Spectra of layers too large to decompose: the tail by block Lanczos, the bulk by quadrature.

One Krylov space from a block of random vectors serves both. Its converged Ritz values are the
largest eigenvalues. All Ritz values, weighted by their share in the first block, are a quadrature
of the spectral density (stochastic Lanczos quadrature: Ubaru, Chen & Saad 2017, SIAM J. Matrix
Anal. Appl. 38:1075; in blocks: Golub & Meurant 1994): what has not converged becomes quantiles of
that density, scaled so that all eigenvalues sum to the squared Frobenius norm, which is known.

The cost is some 2,000 products of the layer with a vector, 16 at a time, instead of a
decomposition, and no M × M matrix is formed.
docs/speed.md holds the error against full spectra.
"""

import math
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.spectra.inner_products import frobenius_norm
from wwopt.spectra.lanczos import lanczos

METHOD = "block Lanczos tail, quadrature bulk"
QUICK_METHOD = "quick: 16 steps of block Lanczos"

# Random vectors. The error of the bulk's moments falls as 1/√(block·M); the tail converges faster
# for few vectors and many steps, the products run faster for many vectors.
_BLOCK = 16
_FEWEST_STEPS = 32  # resolution of the bulk: polynomials of twice the degree are integrated exactly
_QUICK_STEPS = 16  # twelve take the Hill estimate as far, and alpha half as far
_WIDE = 2048  # M from which 16 vectors order layers by their Hill estimate; 32 below
_LARGEST_SPACE = 2048  # dimensions; M/4 below, where alpha is off by up to 4 %
_CONVERGED = 1e-4  # residual of an eigenvalue of the tail, relative to it
_PIECE = 1 << 22  # entries widened at a time


def estimate_top(
    weights: torch.Tensor, count: int, *, tolerance: float, level: float = 0.0
) -> NDArray[np.float64]:
    """Largest eigenvalues of the smaller Gram matrix of one float32 slice, descending.

    Those below `level` are lower bounds (see `wwopt.spectra.lanczos`).
    """
    tall = weights if weights.shape[0] >= weights.shape[1] else weights.mT
    multiply = partial(_multiply_vector, tall)
    found = lanczos(multiply, tall.shape[1], count, tolerance=tolerance, level=level)
    return estimate_spectrum(tall)[: -count - 1 : -1] if found is None else found


def _multiply_vector(tall: torch.Tensor, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    if tall.device.type == "cpu":  # by numpy's BLAS, whose threads are limited
        matrix = tall.numpy()
        return np.asarray(matrix.T @ (matrix @ vector))
    there = torch.from_numpy(vector).to(tall.device)
    return np.asarray((tall.mT @ (tall @ there)).cpu())


def estimate_quickly(weights: torch.Tensor) -> NDArray[np.float64]:
    """Estimate all eigenvalues of the smaller Gram matrix of one slice, in 32 passes over it.

    As `estimate_spectrum` in a smaller space, which holds the error of the averaged Hill estimate:
    it is that of the random block, and falls as 1/√(block·M).
    """
    side = min(weights.shape)
    block = _BLOCK if side >= _WIDE else 2 * _BLOCK
    return estimate_spectrum(weights.float(), space=block * _QUICK_STEPS, block=block)


def estimate_spectrum(
    weights: torch.Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    space: int | None = None,
    block: int | None = None,
) -> NDArray[np.float64]:
    """Estimate all eigenvalues of the smaller Gram matrix of one slice.

    Args:
        weights: shape (rows, columns).
        dtype: of the products. float64 takes five times as long, for a λmax that is exact to 1e-15
            and not to 3e-7, and bulk quantiles that differ in no digit of the metrics.
        space: dimension of the Krylov space; None for M/4, at most 2,048.
        block: vectors multiplied at once; None for 16, and fewer in a space below 512.

    Returns:
        Shape (M,), ascending: the largest ones exact to about 1e-6, the others quantiles of the
        estimated density.
    """
    tall = weights if weights.shape[0] >= weights.shape[1] else weights.mT
    side = tall.shape[1]
    space = max(1, min(space or min(side // 4, _LARGEST_SPACE), side))
    block = min(block or max(1, min(_BLOCK, space // _FEWEST_STEPS)), space)
    square_sum = frobenius_norm(weights) ** 2
    scale = math.sqrt(square_sum / tall.numel()) or 1.0
    ritz, shares, residuals = _block_lanczos(tall, scale, dtype, block, space // block)
    ritz, residuals = np.maximum(ritz, 0.0) * scale**2, residuals * scale**2
    # From the top, as far as all have converged.
    failed = np.flatnonzero(residuals[::-1] > _CONVERGED * ritz[::-1])
    known = int(failed[0]) if failed.size else ritz.size
    tail = ritz[ritz.size - known :]
    nodes, mass = ritz[: ritz.size - known], shares[: ritz.size - known]
    count = side - known
    if count == 0 or nodes.size == 0:
        return np.sort(np.concatenate([np.zeros(count), tail]))
    places = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
    bulk = np.interp((np.arange(count) + 0.5) / count, places, nodes)
    left = square_sum - float(tail.sum())
    if bulk.sum() > 0.0 and left > 0.0:
        bulk = np.minimum(bulk * (left / bulk.sum()), tail[0] if known else np.inf)
    return np.sort(np.concatenate([bulk, tail]))


def _block_lanczos(
    tall: torch.Tensor, scale: float, dtype: torch.dtype, block: int, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Ritz values of tall/scale, ascending, their shares in the first block, their residuals."""
    side = tall.shape[1]
    start = np.random.default_rng(0).standard_normal((side, block))
    vectors, _ = torch.linalg.qr(torch.from_numpy(start).to(tall.device, dtype))
    basis = torch.empty((side, block * (steps + 1)), dtype=dtype, device=tall.device)
    basis[:, :block] = vectors
    projected = torch.zeros((block * steps, block * steps), dtype=dtype, device=tall.device)
    beside = vectors.new_zeros((block, block))
    for step in range(steps):
        here = slice(step * block, (step + 1) * block)
        known = basis[:, : (step + 1) * block]
        new = _multiply(tall, scale, basis[:, here])
        along = known.mT @ new
        projected[: (step + 1) * block, here] = along
        new = new - known @ along
        new = new - known @ (known.mT @ new)  # twice is enough (Parlett 1998, section 6.9)
        fresh, beside = torch.linalg.qr(new)
        # Where the space is exhausted (low rank), QR made directions up: take them from outside.
        fresh, correction = torch.linalg.qr(fresh - known @ (known.mT @ fresh))
        beside = correction @ beside
        basis[:, (step + 1) * block : (step + 2) * block] = fresh
        if step + 1 < steps:
            projected[(step + 1) * block : (step + 2) * block, here] = beside
    projected = (projected + projected.mT) / 2.0
    ritz, vectors = torch.linalg.eigh(projected)
    shares = vectors[:block].square().sum(dim=0)
    residuals = torch.linalg.vector_norm(beside @ vectors[-block:], dim=0)
    found = [part.double().cpu().numpy() for part in (ritz, shares, residuals)]
    return found[0], found[1], found[2]


def _multiply(tall: torch.Tensor, scale: float, vectors: torch.Tensor) -> torch.Tensor:
    """Gram matrix of tall/scale times a block of vectors, converting some rows at a time."""
    result = torch.zeros_like(vectors)
    step = max(1, _PIECE // tall.shape[1])
    for start in range(0, tall.shape[0], step):
        rows = tall[start : start + step].to(vectors.dtype)
        # Scaled between the products: squares of small weights leave the range of float32.
        result += rows.mT @ ((rows @ vectors) / scale)
    return result / scale
