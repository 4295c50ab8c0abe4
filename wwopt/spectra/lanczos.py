"""The largest eigenvalues of a symmetric matrix, by Lanczos' method where that is faster.

A shuffled layer is asked for its largest eigenvalue, in units of the Tracy-Widom scale, and for
those beyond a threshold. Some 30 products with a vector find them: 0.6 ms at 384², where LAPACK
needs 3.6 ms for all eigenvalues.

It is our own because it stops when those that matter stand still, and leaves the others as lower
bounds. For all eight, scipy's `eigsh` needs 1.4 to 4.7 times as long at sides from 256 to 4,096
(3.1 to 4.7 for Gaussian entries, 1.4 to 2.7 for Student t with 3 degrees of freedom), 1.0 to 3.5
times with our products; for the largest alone, which counts no traps, .4 to 1.5 times
(benchmarks/time_lanczos.py).
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.spectra import unlocked_lapack

Vector = NDArray[np.float32]

DIRECT_SIDE = 128  # up to it LAPACK is as fast as Lanczos
_CHECK_EVERY = 6  # steps between two looks at the Ritz values
_MOST_STEPS = 400  # beyond it, or on a breakdown (equal eigenvalues), LAPACK takes over
_EPS = float(np.finfo(np.float32).eps)


def top_eigenvalues(
    gram: Any, count: int, *, tolerance: float, level: float = 0.0
) -> NDArray[np.float64]:
    """Largest eigenvalues of a symmetric float32 matrix.

    Args:
        gram: shape (M, M), positive semidefinite, a numpy array or a tensor on a GPU.
        count: how many; fewer where M is smaller.
        tolerance: of the largest, and of all from `level` on; in units of the eigenvalues.
        level: those below it are lower bounds.

    Returns:
        Shape (min(count, M),), descending.
    """
    size = gram.shape[0]
    if size > DIRECT_SIDE:
        # A row-major symmetric matrix is its own column-major transpose.
        multiply = (
            partial(_multiply_there, gram)
            if isinstance(gram, torch.Tensor)
            else partial(unlocked_lapack.ssymv, 1.0, gram.T)
        )
        found = lanczos(multiply, size, count, tolerance=tolerance, level=level)
        if found is not None:
            return found
    if isinstance(gram, torch.Tensor):
        return np.asarray(torch.linalg.eigvalsh(gram).flip(0)[:count].cpu(), dtype=np.float64)
    return np.asarray(np.linalg.eigvalsh(gram)[: -count - 1 : -1], dtype=np.float64)


def _multiply_there(gram: torch.Tensor, vector: Vector) -> Vector:
    return np.asarray((gram @ torch.from_numpy(vector).to(gram.device)).cpu())


def lanczos(
    multiply: Callable[[Vector], Vector],
    size: int,
    count: int,
    *,
    tolerance: float,
    level: float = 0.0,
) -> NDArray[np.float64] | None:
    """Ritz values of a Krylov space that grows until they stand still.

    The second largest must stand still too, to ten times the tolerance: as long as the space has
    not met the largest, its neighbour passes for it. Of 4,000 Gaussian layers none was missed at a
    tolerance of .001 of the Tracy-Widom scale, in 20 to 40 steps; at .01 two were, by up to .5
    (benchmarks/error_shuffles.py).

    Args:
        multiply: the matrix, positive semidefinite, as what it does to a float32 vector.
        size: M, its side.
        count: how many.
        tolerance: see `top_eigenvalues`.
        level: see `top_eigenvalues`.

    Returns:
        Shape (count,), descending; None where equal eigenvalues break the recurrence.
    """
    steps = min(_MOST_STEPS, size // 2)
    basis = np.empty((steps + 2, size), dtype=np.float32)
    basis[0], basis[1] = 0.0, _start_vector(size)  # nothing comes before the first
    diagonal, beside = np.zeros(steps), np.zeros(steps)
    recurrence = np.zeros(2, dtype=np.float32)
    largest = 0.0
    previous: NDArray[np.float64] | None = None
    for step in range(steps):
        known, last = basis[1 : step + 2], basis[step + 1]
        new = multiply(last)
        along = float(new.dot(last))
        # Orthogonal to the last two by the recurrence, then to all: twice is enough (Parlett 1998,
        # section 6.9).
        recurrence[1] = along
        new -= recurrence.dot(basis[step : step + 2])
        new -= known.dot(new).dot(known)
        length = math.sqrt(float(new.dot(new)))
        diagonal[step] = along
        beside[step] = recurrence[0] = length
        if along > largest:
            largest = along
        if not length > 100.0 * _EPS * largest:
            return None
        np.divide(new, length, out=basis[step + 2])
        if (step + 1) % _CHECK_EVERY == 0 and step >= count:
            values, _ = unlocked_lapack.dsterf(diagonal[: step + 1], beside[:step])
            ritz = np.asarray(values[: -count - 1 : -1])
            if previous is not None and _stand_still(ritz, previous, tolerance, level):
                return ritz
            previous = ritz
    return None


def _stand_still(
    ritz: NDArray[np.float64], previous: NDArray[np.float64], tolerance: float, level: float
) -> bool:
    # Products in float32 cannot do better than this.
    tolerance = max(tolerance, 4.0 * _EPS * float(ritz[0]))
    if ritz[0] - previous[0] > tolerance:
        return False
    moved = np.abs(ritz - previous)
    wanted = max(int(np.count_nonzero(ritz >= level)), 1)
    return bool((moved[:wanted] <= tolerance).all() and (moved[1:2] <= 10.0 * tolerance).all())


@lru_cache(maxsize=16)
def _start_vector(size: int) -> NDArray[np.float32]:
    start = np.random.default_rng(0).standard_normal(size)
    return np.asarray(start / np.linalg.norm(start), dtype=np.float32)
