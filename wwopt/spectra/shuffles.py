"""Shuffled layers: seeded permutations that stay in the cache.

A shuffle destroys every structure of a layer but the distribution of its entries. What is asked of
it is its largest eigenvalues, in units of the Tracy-Widom scale, about M^(-2/3) of the edge: so the
entries are standardised and multiplied in float32 (measured error of the score: 6e-6 at 384², 4e-5
at 4096²).

Small layers are permuted uniformly. A uniform permutation of millions of entries costs a cache
miss for every one, twice (30 ns to draw and 10 ns to gather; the multiplication costs 4). Large
ones are therefore shuffled within tiles, dealt out so that every new tile gets an equal share of
every old one, and shuffled within tiles again: 4 ns, and the same null (tests/test_shuffles.py).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.spectra.gram_matrices import empty_float32

# Entries. Permutations up to this size are drawn uniformly: 5 ns an entry, and shared by all
# layers of the size.
UNIFORM_SIZE = 1 << 20
_TILE = 1 << 16  # entries; a tile, its copy and its permutation fit into a core's cache of 1 MB
_LINE = 16  # entries, 64 bytes; copied at once, an eighth of the time of one by one
_POOL = 8  # permutations that the tiles of a layer share, each tile with offsets of its own

Fill = Callable[[torch.Tensor, torch.Tensor], None]  # writes entries to a float32 tensor


def iterate_shuffles(
    entries: torch.Tensor, *, mean: float = 0.0, scale: float = 1.0, seed: int, count: int
) -> Iterator[torch.Tensor]:
    """Permute all entries of a layer, `count` times; its slices are one pool.

    The permutation depends on (seed, index of the shuffle, number of entries) alone, neither on
    the device nor on the order in which layers are analysed.

    Args:
        entries: any shape, float32 or float64; not modified.
        mean: subtracted from them.
        scale: divides them then; 0 stands for a constant layer, whose entries all become 0.
        seed: of all shuffles.
        count: how many.

    Yields:
        A contiguous float32 tensor of the same shape and device, which the next but one step
        overwrites: fresh memory costs as much as the permutation.
    """
    fill: Fill = partial(_standardise, mean=mean, scale=scale)
    new, spare = empty_float32(entries.shape, entries.device), None
    for index in range(count):
        flat = new.view(-1)
        if flat.numel() > UNIFORM_SIZE:
            _shuffle_tiles(entries.reshape(-1), flat, seed, index, fill)
        else:
            order = _uniform_permutation(seed, index, flat.numel()).to(flat.device)
            filled = torch.empty_like(flat)
            fill(entries.reshape(-1), filled)
            torch.index_select(filled, 0, order, out=flat)
        yield new
        if index + 1 < count:
            # Each shuffle goes on from the one before.
            entries, fill = new, _copy
            new, spare = (torch.empty_like(new) if spare is None else spare), new


def _standardise(entries: torch.Tensor, out: torch.Tensor, *, mean: float, scale: float) -> None:
    if scale == 0.0:  # its mean may be off by rounding
        out.zero_()
    elif entries.dtype == out.dtype:
        torch.sub(entries, mean, out=out).div_(scale)
    else:  # in float64 where the weights are: a mean of 1e9 deviations stays one
        out.copy_((entries - mean).div_(scale))


def _copy(entries: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(entries)


def _shuffle_tiles(old: torch.Tensor, new: torch.Tensor, seed: int, index: int, fill: Fill) -> None:
    size = old.numel()
    tiles = size // _TILE
    length = size // tiles
    line = max(1, min(_LINE, length // tiles))  # every new tile gets one of every old tile, or more
    length -= length % line
    whole = tiles * length
    generator = np.random.default_rng([seed, index, size])
    offsets = generator.integers(0, length, size=(2, tiles, 2))
    rotated, mixed = (torch.empty(length, dtype=new.dtype, device=new.device) for _ in range(2))
    dealt = new[:whole].view(length // line, tiles, line)
    permute = partial(_permute_tile, offsets[0], _pool(seed, index, 0, length, new.device), rotated)
    for tile in range(tiles):
        permute(tile, old[tile * length : (tile + 1) * length], fill=fill, out=mixed)
        # Deal the entries of every old tile out to all new ones, a cache line at a time.
        dealt[:, tile].copy_(mixed.view(-1, line))
    # The entries that no tile holds, fewer than a line of every tile, change places with others.
    left = size - whole
    place = int(generator.integers(0, whole - left))
    new[whole:] = new[place : place + left]
    fill(old[whole:], new[place : place + left])
    permute = partial(_permute_tile, offsets[1], _pool(seed, index, 1, length, new.device), rotated)
    for tile in range(tiles):
        values = new[tile * length : (tile + 1) * length]
        permute(tile, values, fill=_copy, out=values)


def _permute_tile(
    offsets: NDArray[np.int64],
    pool: Sequence[torch.Tensor],
    rotated: torch.Tensor,
    tile: int,
    values: torch.Tensor,
    *,
    fill: Fill,
    out: torch.Tensor,
) -> None:
    """Permute a tile by one of a few permutations, between two rotations of its own."""
    length = values.numel()
    before, after = (int(offset) for offset in offsets[tile])
    fill(values[before:], rotated[: length - before])
    fill(values[:before], rotated[length - before :])
    torch.index_select(rotated, 0, pool[tile % _POOL][after : after + length], out=out)


def _pool(
    seed: int, index: int, half: int, length: int, device: torch.device
) -> list[torch.Tensor]:
    parts = range(half * _POOL, (half + 1) * _POOL)
    return [_tile_permutation(seed, index, part, length).to(device) for part in parts]


@lru_cache(maxsize=64)
def column_permutation(seed: int, index: int, columns: int) -> torch.Tensor:
    """A uniform permutation for one shuffle, shape (columns,), int32, on the CPU."""
    return _permutation(seed, index, 2 * _POOL, columns)


@lru_cache(maxsize=16)  # three shuffles of five sizes, at most 64 MB
def _uniform_permutation(seed: int, index: int, size: int) -> torch.Tensor:
    return _permutation(seed, index, 0, size)


@lru_cache(maxsize=96)  # three shuffles of two sizes, 50 MB
def _tile_permutation(seed: int, index: int, part: int, size: int) -> torch.Tensor:
    return _permutation(seed, index, part, size).repeat(2)  # any rotation of it is a part


def _permutation(seed: int, index: int, part: int, size: int) -> torch.Tensor:
    entropy = np.random.SeedSequence([seed, index, part]).generate_state(1, np.uint64)[0]
    # Drawn on the CPU: the same numbers whatever the device.
    generator = torch.Generator().manual_seed(int(entropy >> np.uint64(1)))
    # Half the memory of the default, and a gather twice as fast.
    return torch.randperm(size, generator=generator, dtype=torch.int32)
