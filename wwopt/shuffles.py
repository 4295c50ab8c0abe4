"""Shuffled layers: seeded permutations that stay in the cache, and the top of their spectra.

A shuffle destroys every structure of a layer but the distribution of its entries. What is asked of
it is its largest eigenvalues, in units of the Tracy-Widom scale, about M^(-2/3) of the edge: so the
entries are standardised and multiplied in float32 (measured error of the score: 6e-6 at 384², 4e-5
at 4096²), and Lanczos' method finds the top (1.2 ms instead of 3.3 at 384², .2 s instead of 2.8 at
4096²).

Small layers are permuted uniformly. A uniform permutation of millions of entries costs a cache
miss for every one, twice (30 ns to draw and 10 ns to gather; the multiplication costs 4). Large
ones are therefore shuffled within tiles, dealt out so that every new tile gets an equal share of
every old one, and shuffled within tiles again: 6 ns, and the same null (tests/test_shuffles.py).
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack

# Entries. Permutations up to this size are drawn uniformly: 5 ns an entry, and shared by all
# layers of the size.
UNIFORM_SIZE = 1 << 20
_TILE = 1 << 16  # entries; a tile, its copy and its permutation fit into a core's cache of 1 MB
_POOL = 8  # permutations that the tiles of a layer share, each tile with offsets of its own

_DIRECT_SIDE = 128  # up to it LAPACK is as fast as Lanczos
_CHECK_EVERY = 10  # steps of Lanczos between two looks at the Ritz values
_MOST_STEPS = 400  # beyond it, or on a breakdown (equal eigenvalues), LAPACK takes over


def iterate_shuffles(entries: torch.Tensor, *, seed: int, count: int) -> Iterator[torch.Tensor]:
    """Permute all entries of a layer, `count` times; its slices are one pool.

    The permutation depends on (seed, index of the shuffle, number of entries) alone, neither on
    the device nor on the order in which layers are analysed.

    Args:
        entries: any shape, contiguous; overwritten.
        seed: of all shuffles.
        count: how many.

    Yields:
        A tensor of the same shape, dtype and device, which the next step overwrites: fresh memory
        costs as much as the permutation.
    """
    old = entries.view(-1)
    new = torch.empty_like(old)
    for index in range(count):
        # Each shuffle goes on from the one before.
        if old.numel() > UNIFORM_SIZE:
            _shuffle_tiles(old, new, seed, index)
        else:
            order = _uniform_permutation(seed, index, old.numel()).to(old.device)
            torch.index_select(old, 0, order, out=new)
        old, new = new, old
        yield old.view(entries.shape)


def _shuffle_tiles(old: torch.Tensor, new: torch.Tensor, seed: int, index: int) -> None:
    size = old.numel()
    tiles = size // _TILE
    length = size // tiles
    whole = tiles * length
    generator = np.random.default_rng([seed, index, size])
    _permute_tiles(old, length, seed, index, 0, generator)
    # Deal the entries of every old tile out to all new ones.
    new[:whole].view(length, tiles).copy_(old[:whole].view(tiles, length).T)
    # The entries that no tile holds, fewer than there are tiles, change places with others.
    left = size - whole
    place = int(generator.integers(0, whole - left))
    new[whole:] = new[place : place + left]
    new[place : place + left] = old[whole:]
    _permute_tiles(new, length, seed, index, _POOL, generator)


def _permute_tiles(
    entries: torch.Tensor,
    length: int,
    seed: int,
    index: int,
    part: int,
    generator: np.random.Generator,
) -> None:
    """Permute every tile by one of a few permutations, between two rotations of its own."""
    pool = [
        _tile_permutation(seed, index, part + k, length).to(entries.device) for k in range(_POOL)
    ]
    rotated = torch.empty(length, dtype=entries.dtype, device=entries.device)
    for tile in range(entries.numel() // length):
        before, after = (int(offset) for offset in generator.integers(0, length, size=2))
        values = entries[tile * length : (tile + 1) * length]
        rotated[: length - before] = values[before:]
        rotated[length - before :] = values[:before]
        order = pool[tile % _POOL]
        torch.index_select(rotated, 0, order[: length - after], out=values[after:])
        torch.index_select(rotated, 0, order[length - after :], out=values[:after])


@lru_cache(maxsize=16)  # three shuffles of five sizes, at most 64 MB
def _uniform_permutation(seed: int, index: int, size: int) -> torch.Tensor:
    return _permutation(seed, index, 0, size)


@lru_cache(maxsize=96)  # three shuffles of two sizes, 25 MB
def _tile_permutation(seed: int, index: int, part: int, size: int) -> torch.Tensor:
    return _permutation(seed, index, part, size)


def _permutation(seed: int, index: int, part: int, size: int) -> torch.Tensor:
    entropy = np.random.SeedSequence([seed, index, part]).generate_state(1, np.uint64)[0]
    # Drawn on the CPU: the same numbers whatever the device.
    generator = torch.Generator().manual_seed(int(entropy >> np.uint64(1)))
    # Half the memory of the default, and a gather twice as fast.
    return torch.randperm(size, generator=generator, dtype=torch.int32)


def all_eigenvalues(gram: Any) -> NDArray[np.float64]:
    """Eigenvalues of a symmetric float32 matrix, ascending.

    Reduced to tridiagonal form in float32, solved in float64: 3.6 ms instead of 5.3 at 384², with
    errors of about 1e-6 of the largest eigenvalue.
    """
    if isinstance(gram, torch.Tensor):
        values = np.asarray(torch.linalg.eigvalsh(gram).cpu(), dtype=np.float64)
        return np.asarray(np.maximum(values, 0.0))
    size = gram.shape[0]
    if size < 3:
        return np.asarray(np.maximum(np.linalg.eigvalsh(gram), 0.0), dtype=np.float64)
    # A row-major symmetric matrix is its own column-major transpose: overwritten without a copy.
    _, diagonal, beside, _, _ = lapack.ssytrd(gram.T, lower=1, lwork=32 * size, overwrite_a=1)
    values, _ = lapack.dsterf(diagonal.astype(np.float64), beside.astype(np.float64))
    return np.asarray(np.maximum(values, 0.0))


def top_eigenvalues(gram: Any, count: int) -> NDArray[np.float64]:
    """Largest eigenvalues of a symmetric matrix, by Lanczos' method where that is faster.

    Args:
        gram: shape (M, M), positive semidefinite, a numpy array or a tensor on a GPU.
        count: how many; fewer where M is smaller.

    Returns:
        Shape (min(count, M),), descending; the error is below a hundredth of the Tracy-Widom scale,
        of the first far below.
    """
    size = gram.shape[0]
    if size > _DIRECT_SIDE:
        found = lanczos(gram, count)
        if found is not None:
            return found
    if isinstance(gram, torch.Tensor):
        return np.asarray(torch.linalg.eigvalsh(gram).flip(0)[:count].cpu(), dtype=np.float64)
    return np.asarray(np.linalg.eigvalsh(gram)[: -count - 1 : -1], dtype=np.float64)


def lanczos(gram: Any, count: int) -> NDArray[np.float64] | None:
    """Ritz values of a Krylov space that grows until they stand still.

    Args:
        gram: as in `top_eigenvalues`, or anything with a shape, a dtype and products with vectors.
        count: how many.

    Returns:
        Shape (count,), descending; None where equal eigenvalues break the recurrence.
    """
    size = gram.shape[0]
    steps = min(_MOST_STEPS, size // 2)
    start = _start_vector(size)
    if isinstance(gram, torch.Tensor):
        basis: Any = gram.new_empty((steps + 1, size))
        basis[0] = torch.from_numpy(start)
    else:
        basis = np.empty((steps + 1, size), dtype=gram.dtype)
        basis[0] = start
    # Of the largest: a hundredth of the Tracy-Widom scale, for the slowest of them.
    tolerance = 1e-2 * size ** (-2.0 / 3.0)
    eps = float(np.finfo(np.float32).eps)
    diagonal, beside = np.zeros(steps), np.zeros(steps)
    previous: NDArray[np.float64] | None = None
    for step in range(steps):
        known, last = basis[: step + 1], basis[step]
        new = gram @ last
        diagonal[step] = float(new @ last)
        # Orthogonal to the last two by the recurrence, then to all: twice is enough (Parlett 1998,
        # section 6.9).
        new -= diagonal[step] * last
        if step > 0:
            new -= beside[step - 1] * basis[step - 1]
        new -= (known @ new) @ known
        beside[step] = math.sqrt(float(new @ new))
        if not beside[step] > 100.0 * eps * max(float(diagonal[: step + 1].max()), 0.0):
            return None
        basis[step + 1] = new / beside[step]
        if (step + 1) % _CHECK_EVERY == 0 and step + 1 >= 3 * count:
            values, _ = lapack.dsterf(diagonal[: step + 1], beside[:step])
            ritz = values[: -count - 1 : -1]
            if previous is not None and np.abs(ritz - previous).max() <= tolerance * ritz[0]:
                return np.asarray(ritz)
            previous = ritz
    return None


@lru_cache(maxsize=16)
def _start_vector(size: int) -> NDArray[np.float32]:
    start = np.random.default_rng(0).standard_normal(size)
    return np.asarray(start / np.linalg.norm(start), dtype=np.float32)
