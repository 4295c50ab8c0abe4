"""The training examples that lie nearest to a decision, and what they alone would decide.

Distances are Euclidean between inputs of the network's last layer, found by scikit-learn's index.
The look-up stands beside the network: the share of each class among the nearest examples, and the
mean of that and of the network's own probabilities (Khandelwal et al. 2020, arXiv:1911.00172, mix
them so for language models; the mean is their λ = 1/2).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from wwopt.class_tree.features import Features
from wwopt.class_tree.hierarchy import Hierarchy

VOTERS = 10  # nearest examples whose classes are counted; not tuned


@dataclass(frozen=True)
class Neighbour:
    """A training example near another one."""

    number: int  # its place in the training features
    label: int
    distance: float  # Euclidean, in units of the layer's inputs


@dataclass(frozen=True)
class NearestExamples:
    """An index of the training examples below each node, made where it is asked for."""

    training: Features
    hierarchy: Hierarchy
    _indexes: dict[int, tuple[NDArray[np.int64], NearestNeighbors]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def near(
        self,
        example: NDArray[np.floating],
        node: int,
        *,
        most: int = 5,
        leave_out: int | None = None,
    ) -> tuple[Neighbour, ...]:
        """The nearest training examples among those whose class lies below a node.

        Args:
            example: an input of the last layer, (d,).
            node: where a decision fell.
            most: how many.
            leave_out: place of the example itself, where it is one of them.
        """
        rows, index = self._index(node)
        wanted = min(most + (leave_out is not None), len(rows))
        if wanted == 0:
            return ()
        distances, places = index.kneighbors(np.asarray(example)[None], n_neighbors=wanted)
        found = [
            Neighbour(int(row), int(self.training.labels[row]), float(distance))
            for distance, row in zip(distances[0], rows[places[0]], strict=True)
            if row != leave_out
        ]
        return tuple(found[:most])

    def _index(self, node: int) -> tuple[NDArray[np.int64], NearestNeighbors]:
        if node not in self._indexes:
            rows = np.flatnonzero(np.isin(self.training.labels, self.hierarchy.classes[node]))
            index = NearestNeighbors()
            if rows.size:
                index.fit(self.training.inputs[rows])
            self._indexes[node] = rows, index
        return self._indexes[node]


def vote(
    training: Features, features: Features, classes: int, *, voters: int = VOTERS
) -> NDArray[np.float64]:
    """The share of each class among the nearest training examples, (n, classes).

    Args:
        training: the examples that vote.
        features: the examples that are decided; the same object where they are those, and then
            none votes for itself.
        classes: how many there are.
        voters: examples that vote; fewer where there are fewer.
    """
    index = NearestNeighbors(n_neighbors=min(voters, len(training) - (features is training)))
    index.fit(training.inputs)
    # Without an argument, scikit-learn leaves each example out of its own neighbours.
    places = index.kneighbors(
        None if features is training else features.inputs, return_distance=False
    )
    shares = np.zeros((len(features), classes))
    for column in places.T:
        shares[np.arange(len(features)), training.labels[column]] += 1.0
    shares /= places.shape[1]
    return shares
