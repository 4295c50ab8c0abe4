"""Gram matrices of shuffled layers: several shuffles for little more than the price of one.

Multiplying a shuffled layer costs far more than shuffling it. So of a large layer only the first
shuffle is multiplied, its upper and its lower half of rows apart. Every further one permutes the
columns of the lower half, which permutes the rows and columns of that half's Gram matrix, and adds.

The law of every score is exactly that of the first: what is shuffled uniformly stays so under any
permutation that does not look at it. Only the independence of a layer's scores is weakened, so
that their mean scatters more. It holds as far as the edge of a sum forgets the edges of its parts
(a top eigenvector is lost once a vanishing share of the entries is drawn anew: Bordenave, Lugosi &
Zhivotovskiy 2020, Probab. Theory Relat. Fields 177:1103). Measured correlation of two scores: .13
for Gaussian entries, .2 to .3 for Student-t entries with 5 degrees of freedom, and .6 to .7 with 3,
where huge entries that meet in a row stay together (benchmarks/error_shuffles.py).
"""

from collections.abc import Iterator
from typing import Any

import torch

from wwopt.spectra.gram_matrices import PIECE, gram_matrices, multiply_tall
from wwopt.spectra.shuffles import column_permutation, iterate_shuffles

# Columns, up to which every shuffle is multiplied: that costs no more there, and scores of halves
# would depend more on each other (correlation .3 at 64²).
MULTIPLIED_SIDE = 255


def shuffled_grams(
    entries: torch.Tensor, *, mean: float = 0.0, scale: float = 1.0, seed: int, count: int
) -> Iterator[tuple[int, Any]]:
    """Yield (index of the shuffle, Gram matrix of a slice) for every slice and shuffle.

    Args:
        entries: shape (slices, rows, columns), float32 or float64.
        mean: subtracted from them.
        scale: divides them then; 0 stands for a constant layer.
        seed: of all shuffles.
        count: how many.

    Yields:
        The smaller Gram matrix of a slice, shape (M, M), a numpy array for entries on the CPU, a
        tensor for entries elsewhere; in any order.
    """
    together = min(entries.shape[1:]) > MULTIPLIED_SIDE
    drawn = 1 if together else count
    shuffles = iterate_shuffles(entries, mean=mean, scale=scale, seed=seed, count=drawn)
    for index, shuffled in enumerate(shuffles):
        if together:
            for tall in shuffled if entries.shape[1] >= entries.shape[2] else shuffled.mT:
                yield from enumerate(_recombine(tall, seed, count))
        else:
            for stack in gram_matrices(shuffled, torch.float32):
                yield from ((index, gram) for gram in stack)


def _recombine(tall: torch.Tensor, seed: int, count: int) -> Iterator[Any]:
    """Gram matrix of a shuffled slice, then those of further shuffles of it."""
    upper, lower = (torch.as_tensor(multiply_tall(half)) for half in tall.tensor_split(2))
    side = tall.shape[1]
    step = max(1, PIECE // side)
    for index in range(count):
        if index == 0:
            gram = upper + lower
        else:
            gram = upper.clone()
            order = column_permutation(seed, index, side).to(lower.device)
            # Some rows at a time, which the cache holds.
            for rows, here in zip(torch.split(gram, step), torch.split(order, step), strict=True):
                rows += lower.index_select(0, here).index_select(1, order)
        yield gram.numpy() if gram.device.type == "cpu" else gram
