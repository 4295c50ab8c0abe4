"""Gram matrices of a layer's slices, at the speed of BLAS and without a second copy of the layer.

On the CPU BLAS multiplies a matrix with its own transpose, half of the product, and the entries are
widened block by block (.19 s for 22.7 million parameters, where a widened copy and a full product
cost .42). On a GPU torch does.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.spectra import unlocked_lapack

PIECE = 1 << 18  # entries; in float32 1 MB
_WIDENED = 1 << 17  # entries of a block; in float64 1 MB
_PASS = 1 << 16  # entries; in float64 512 KB, which the cache of a core holds
_TRIDIAGONAL_SIDE = 64  # below it numpy's solver, which takes stacks, is as fast
_SMALL_SLICE = 1 << 14  # entries of a slice, up to which many are multiplied in one call


def split_entries(flat: torch.Tensor) -> Iterator[torch.Tensor]:
    """Views of a vector, piece by piece."""
    yield from torch.split(flat, _PASS if flat.device.type == "cpu" else 256 * _PASS)


def empty_float32(shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Memory for a layer; numpy asks for huge pages, torch does not: 4 ms for 47 MB, not 19."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(tuple(shape), dtype=np.float32))
    return torch.empty(tuple(shape), dtype=torch.float32, device=device)


def gram_matrices(
    weights: torch.Tensor,
    dtype: torch.dtype,
    *,
    widened: Callable[[NDArray[np.float64]], None] | None = None,
) -> Iterator[Any]:
    """Yield the smaller Gram matrix of every slice, in stacks of shape (k, M, M).

    Args:
        weights: shape (slices, rows, columns).
        dtype: of the product.
        widened: is shown every contiguous block that is widened to float64; not called where
            nothing is, nor for small slices.

    Yields:
        numpy arrays for weights on the CPU, tensors for weights elsewhere; where `dtype` is another
        than the weights', only the upper triangle may be filled.
    """
    slices, rows, columns = weights.shape
    if weights.device.type != "cpu" or (slices > 1 and rows * columns <= _SMALL_SLICE):
        step = max(1, PIECE // (rows * columns))  # not all experts of a mixture at once
        for start in range(0, slices, step):
            stack = weights[start : start + step].to(dtype)
            gram = stack.mT @ stack if rows >= columns else stack @ stack.mT
            yield gram.numpy() if gram.device.type == "cpu" else gram
        return
    for matrix in weights:
        tall = matrix if rows >= columns else matrix.T
        same = tall.dtype == dtype
        yield (multiply_tall(tall) if same else _widen_and_multiply(tall, dtype, widened))[None]


def multiply_tall(tall: torch.Tensor) -> Any:
    """MᵀM of one matrix, numpy's on the CPU, a tensor elsewhere."""
    if tall.device.type != "cpu":
        return tall.mT @ tall
    matrix = tall.numpy()  # numpy sees that a matrix meets its own transpose
    with np.errstate(over="ignore", invalid="ignore"):
        return matrix.T @ matrix


def _widen_and_multiply(
    tall: torch.Tensor,
    dtype: torch.dtype,
    widened: Callable[[NDArray[np.float64]], None] | None,
) -> Any:
    """Upper triangle of MᵀM in another precision, in blocks at least as tall as wide."""
    number: Any = np.float32 if dtype == torch.float32 else np.float64
    multiply = unlocked_lapack.ssyrk if dtype == torch.float32 else unlocked_lapack.dsyrk
    matrix = tall.numpy()
    height, side = matrix.shape
    gram = np.zeros((side, side), dtype=number, order="F")
    blocks = math.ceil(height / max(side, _WIDENED // side))
    for block in np.array_split(matrix, blocks):
        with np.errstate(over="ignore", invalid="ignore"):
            wide = block.astype(number)
        if widened is not None and number is np.float64:
            widened(wide)
        by_rows = wide.flags.c_contiguous
        # BLAS reads columns first, so that rows first are the transpose, and adds in place.
        gram = multiply(
            1.0,
            wide.T if by_rows else wide,
            trans=not by_rows,
            beta=1.0,
            c=gram,
            lower=1,
            overwrite_c=1,
        )
    return gram.T


def solve_all(grams: Any) -> NDArray[np.float64]:
    """Eigenvalues of a stack of Gram matrices, in any order; NaN where a sum overflowed.

    Args:
        grams: shape (k, M, M), float32 or float64, of which the upper triangle is read; a numpy
            array, which may be overwritten, or a tensor elsewhere.
    """
    if isinstance(grams, torch.Tensor):
        finite = bool(torch.isfinite(grams).all())
        found = torch.linalg.eigvalsh(grams, UPLO="U").cpu().numpy() if finite else None
    elif not np.isfinite(grams).all():
        found = None
    elif grams.shape[1] < _TRIDIAGONAL_SIDE:
        found = np.linalg.eigvalsh(grams, UPLO="U")
    else:
        found = np.concatenate([_solve_tridiagonal(gram) for gram in grams])
    if found is None:  # the solver would raise
        return np.full(grams.shape[0] * grams.shape[1], np.nan)
    # Rounding leaves eigenvalues of a rank-deficient Gram matrix slightly below zero.
    return np.asarray(np.maximum(found, 0.0).ravel(), dtype=np.float64)


def _solve_tridiagonal(gram: Any) -> NDArray[np.float64]:
    """Eigenvalues by the two steps of LAPACK's eigvalsh, the second one always in float64.

    In place, 4.4 ms instead of 4.9 at 384² in float64; 3.6 instead of 5.3 in float32, with errors
    of about 1e-6 of the largest eigenvalue.
    """
    side = gram.shape[0]
    reduce = unlocked_lapack.ssytrd if gram.dtype == np.float32 else unlocked_lapack.dsytrd
    # The workspace sets the width of LAPACK's blocks; its default of 32 takes a tenth longer there.
    block = 16 if side <= 512 else 32
    # A row-major symmetric matrix is its own column-major transpose: overwritten without a copy.
    _, diagonal, beside, _, _ = reduce(gram.T, lower=1, lwork=block * side, overwrite_a=1)
    values, info = unlocked_lapack.dsterf(diagonal.astype(np.float64), beside.astype(np.float64))
    if info != 0:
        raise np.linalg.LinAlgError(f"{info} eigenvalues of a {side} × {side} matrix not found")
    return np.asarray(values)
