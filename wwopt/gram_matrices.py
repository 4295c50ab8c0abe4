"""Gram matrices of a layer's slices, at the speed of BLAS and without a second copy of the layer.

On the CPU numpy multiplies, which sees that a matrix meets its own transpose and computes half of
the product; the entries are widened block by block (.24 s for 22.7 million parameters, where a
widened copy and a full product cost .42). On a GPU torch does.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

PIECE = 1 << 18  # entries; in float64 2 MB, which the cache holds
_SMALL_SLICE = 1 << 14  # entries of a slice, up to which many are multiplied in one call


def limit_blas_threads(threads: int | None = None) -> Any:
    """Let numpy's BLAS use some threads; as many as torch may: who shares a machine limits torch.

    Args:
        threads: 1 for what is computed in float32, whose last digits depend on their number.
    """
    return _blas().limit(limits=threads or torch.get_num_threads(), user_api="blas")


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def split_entries(flat: torch.Tensor) -> Iterator[torch.Tensor]:
    """Views of a vector, piece by piece."""
    for start in range(0, flat.numel(), PIECE):
        yield flat[start : start + PIECE]


def gram_matrices(weights: torch.Tensor, dtype: torch.dtype) -> Iterator[Any]:
    """Yield the smaller Gram matrix of every slice, in stacks of shape (k, M, M).

    Args:
        weights: shape (slices, rows, columns).
        dtype: of the product.

    Yields:
        numpy arrays for weights on the CPU, tensors for weights elsewhere.
    """
    slices, rows, columns = weights.shape
    if weights.device.type != "cpu" or (slices > 1 and rows * columns <= _SMALL_SLICE):
        step = max(1, PIECE // (rows * columns))  # not all experts of a mixture at once
        for start in range(0, slices, step):
            stack = weights[start : start + step].to(dtype)
            gram = stack.mT @ stack if rows >= columns else stack @ stack.mT
            yield gram.numpy() if gram.device.type == "cpu" else gram
        return
    number: Any = np.float32 if dtype == torch.float32 else np.float64
    for matrix in weights.numpy():
        yield _gram(matrix if rows >= columns else matrix.T, number)[None]


def _gram(matrix: Any, number: Any) -> Any:
    """MᵀM of a tall matrix, in blocks at least as tall as wide."""
    height, side = matrix.shape
    gram = np.zeros((side, side), dtype=number)
    step = height if matrix.dtype == number else max(side, 2 * PIECE // side)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, height, step):
            block = np.asarray(matrix[start : start + step], dtype=number)
            gram += block.T @ block
    return gram


def solve_all(grams: Any) -> NDArray[np.float64]:
    """Eigenvalues of a stack of Gram matrices, in any order; NaN where a sum overflowed."""
    if isinstance(grams, torch.Tensor):
        finite = bool(torch.isfinite(grams).all())
        found = torch.linalg.eigvalsh(grams).cpu().numpy() if finite else None
    else:
        found = np.linalg.eigvalsh(grams) if np.isfinite(grams).all() else None
    if found is None:  # the solver would raise
        return np.full(grams.shape[0] * grams.shape[1], np.nan)
    # Rounding leaves eigenvalues of a rank-deficient Gram matrix slightly below zero.
    return np.asarray(np.maximum(found, 0.0).ravel(), dtype=np.float64)
