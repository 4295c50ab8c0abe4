"""How much of what an encoder says of sentences stays, told without labels.

Embeddings are of length 1, so that products are cosines, as whoever searches by them has it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

NEAREST = 10  # neighbours whose set is compared
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Of the same sentences by two encoders; arrays have a number for each sentence."""

    cosines: Array  # of its two embeddings
    ranks: float  # Spearman's, of the similarities of all pairs
    nearest: Array  # 1 where its nearest neighbour is the same, else 0
    overlap: Array  # share of its ten nearest that are the same


def compare(before: torch.Tensor, after: torch.Tensor) -> Agreement:
    """Compare embeddings of length 1, both of shape (sentences, width)."""
    old, new = _similarities(before), _similarities(after)
    pairs = np.triu_indices(len(old), 1)
    ranks = float(spearmanr(old[pairs], new[pairs]).statistic)
    tops = [(-s).argsort(axis=1, kind="stable")[:, :NEAREST] for s in (old, new)]
    same = (tops[0][:, :, None] == tops[1][:, None, :]).any(2)
    return Agreement(
        cosines=(before.double() * after.double()).sum(1).numpy(),
        ranks=ranks,
        nearest=(tops[0][:, 0] == tops[1][:, 0]).astype(float),
        overlap=same.mean(1),
    )


def _similarities(embeddings: torch.Tensor) -> Array:
    """Of every pair; of a sentence with itself the least, so that it is nobody's neighbour."""
    found = (embeddings.double() @ embeddings.double().mT).numpy()
    np.fill_diagonal(found, -np.inf)
    return np.asarray(found)
