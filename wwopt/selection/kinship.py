"""Which candidates come from one another, or from one base? Told by their singular vectors.

Training from another initialisation leaves other vectors; a fine-tune keeps its base's. What is
compared are the 10 leading left and right singular vectors of up to three layers, the first, the
middle and the last of those that are large enough, by the mean |uᵀu'| of the pairs that match
best. The smaller of the two sides counts: on the other one two networks may both have the data's
directions, as the pixels of a first layer.

Kin are also runs from one initialisation, which share its weights: docs/selection.md says how far.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from wwopt.spectra.one_thread import one_thread
from wwopt.spectra.singular_vectors import SingularVectors, find_singular_vectors, match_vectors
from wwopt.weights.matrices import WeightMatrix, Weights
from wwopt.weights.tensor_names import bare_name, natural_key
from wwopt.wording import count

TOP = 10  # singular vectors of a side
LAYERS = 3  # that are compared, at a price of .4 s each at 4,096 × 4,096 on one core
SMALLEST = 32  # M; ten vectors of fewer dimensions always overlap
LARGEST = 1 << 26  # entries; larger ones, mostly embeddings, are left out
# Networks trained apart have .1 to .2, the worst fine-tunes of small networks .4.
KIN = 0.3
BY_CHANCE = 1.5 * 1.75  # over √n, n the larger dimension: half as much again as independent vectors

Directions = Mapping[str, SingularVectors]  # layer, by its bare name → its leading vectors


@dataclass(frozen=True)
class Kin:
    """Candidates whose leading singular vectors are the same."""

    names: tuple[str, ...]
    overlap: float  # mean |uᵀu'| of the pair that is least alike, of those that were compared
    layers: tuple[str, ...]  # that were compared

    @property
    def words(self) -> str:
        """What that means for an order."""
        return (
            f"share their leading singular vectors (overlap {self.overlap:.2f} in "
            f"{count(len(self.layers), 'layer')}; trained apart, 0.1 to 0.2): fine-tunes of one "
            "base or of one another, which no spectrum orders, or runs from one initialisation"
        )


def read_directions(weights: Weights) -> Directions:
    """The leading singular vectors of a few layers; empty where none is large enough."""
    chosen = _choose(weights.matrices)
    found = {}
    for matrix in chosen:
        with torch.no_grad(), one_thread():
            slices = matrix.read().detach().float()
            beside = slices.permute(1, 0, 2).flatten(1)  # kernel positions side by side
            if bool(beside.isfinite().all()):
                vectors = find_singular_vectors(beside, TOP)
                found[bare_name(matrix.name)] = SingularVectors(
                    vectors.left.cpu(), vectors.values.cpu(), vectors.right.cpu()
                )
    return found


def _choose(matrices: Sequence[WeightMatrix]) -> list[WeightMatrix]:
    """The same layers of all candidates of one architecture, in whatever order a file has them."""
    fitting = [
        m
        for m in sorted(matrices, key=lambda m: natural_key(bare_name(m.name)))
        if m.shape[1] >= SMALLEST
        and math.prod(m.shape) * m.num_slices <= LARGEST
        and (m.num_slices == 1 or m.kind.startswith("conv"))
    ]
    # An embedding's rows are the words' and alike in models of one vocabulary: only for want.
    fitting = [m for m in fitting if m.kind != "embedding"] or fitting
    places = {round(i * (len(fitting) - 1) / (LAYERS - 1)) for i in range(LAYERS)}
    return [fitting[place] for place in sorted(places)] if fitting else []


def find_kin(candidates: Mapping[str, Directions]) -> tuple[Kin, ...]:
    """Group candidates that are kin, directly or through others.

    Args:
        candidates: name → its directions, of one family; layers are matched by name and shape.
    """
    groups: list[list[str]] = []
    overlaps: list[float] = []
    layers: list[set[str]] = []
    for name, ours in candidates.items():
        bound = []
        for place, group in enumerate(groups):
            for other in group:  # one link is enough
                overlap, of, limit = compare_directions(ours, candidates[other])
                if overlap >= limit:
                    bound.append((place, overlap, of))
                    break
        merged, least, of_layers = [name], math.inf, set[str]()
        for place, overlap, of in reversed(bound):
            merged = groups.pop(place) + merged
            least = min(least, overlap, overlaps.pop(place))
            of_layers |= layers.pop(place) | set(of)
        groups.append(merged)
        overlaps.append(least)
        layers.append(of_layers)
    return tuple(
        Kin(tuple(group), overlap, tuple(sorted(of, key=natural_key)))
        for group, overlap, of in zip(groups, overlaps, layers, strict=True)
        if len(group) > 1
    )


def compare_directions(
    ours: Directions, theirs: Directions
) -> tuple[float, tuple[str, ...], float]:
    """How alike two candidates are.

    Returns:
        The overlap, mean over the layers that both have; those layers; and the overlap from which
        on they are kin. NaN, none and NaN where they have no layer in common.
    """
    shared = [
        name
        for name, vectors in ours.items()
        if name in theirs and theirs[name].left.shape == vectors.left.shape
        and theirs[name].right.shape == vectors.right.shape
    ]  # fmt: skip
    if not shared:
        return math.nan, (), math.nan
    overlaps = [
        min(
            match_vectors(ours[name].left, theirs[name].left),
            match_vectors(ours[name].right, theirs[name].right),
        )
        for name in shared
    ]
    sizes = [max(len(ours[name].left), len(ours[name].right)) for name in shared]
    limit = _mean(max(KIN, BY_CHANCE / math.sqrt(size)) for size in sizes)
    return _mean(overlaps), tuple(shared), limit


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)
