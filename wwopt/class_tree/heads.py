"""The last linear layer of a classifier, found in a model or a checkpoint without running it.

Its rows are the classes. A linear layer is taken for the last one where no other layer's inputs are
as many as its outputs: what it puts out goes nowhere. Files do not tell the order of layers
(those of safetensors are sorted by name), so nothing is guessed beyond that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wwopt.class_tree.errors import ClassTreeError
from wwopt.weights.matrices import Source, WeightMatrix, Weights, read_vector, read_weights
from wwopt.wording import write_names

LISTED = 8  # layers named in an error


@dataclass(frozen=True)
class Head:
    """A classifier's last layer: logits = inputs · weightᵀ + bias."""

    layer: str  # its name
    weight: NDArray[np.float64]  # (C, d), a row a class
    bias: NDArray[np.float64]  # (C,), zeros where it has none

    def logits(self, inputs: NDArray[np.floating]) -> NDArray[np.float64]:
        """What the network says of inputs of this layer, (n, d) → (n, C)."""
        scores: NDArray[np.float64] = np.asarray(inputs, np.float64) @ self.weight.T + self.bias
        return scores


def find_head(
    source: Source,
    *,
    layer: str | None = None,
    classes: int | None = None,
    key: str | None = None,
) -> Head:
    """Read the last linear layer.

    Args:
        source: a module, a state dict, or the path of a checkpoint.
        layer: its name; None to find it.
        classes: how many there are, where that is known: chooses among several last layers.
        key: dotted path of the model in a checkpoint that holds several.

    Raises:
        ClassTreeError: if no layer can be the last one or several can, the named one is no matrix,
            or a value is not finite.
        WeightsError: if the source cannot be read, or has no layer of that name.
    """
    weights = read_weights(source, layers=None if layer is None else [layer], key=key)
    matrix = _choose(weights, classes) if layer is None else _take(weights, layer)
    weight = matrix.read().squeeze(0).double().cpu().numpy()
    whole = "bias" if matrix.name == "weight" else f"{matrix.name}.bias"  # of a layer alone
    vector = read_vector(source, whole, key=key)
    bias = np.zeros(len(weight)) if vector is None else vector.double().cpu().numpy()
    for what, values in (("weights", weight), ("biases", bias)):
        if not np.isfinite(values).all():
            raise ClassTreeError(f"layer {matrix.name!r} has {what} that are not finite")
    return Head(matrix.name, weight, bias)


def _take(weights: Weights, layer: str) -> WeightMatrix:
    found = [matrix for matrix in weights.matrices if matrix.num_slices == 1]
    if len(found) == 1:
        return found[0]
    names = [matrix.name for matrix in weights.matrices]
    if found:
        raise ClassTreeError(f"{layer!r} names {len(found)} layers: {write_names(names, LISTED)}")
    kind = weights.matrices[0].kind
    raise ClassTreeError(f"layer {layer!r} is of kind {kind}, no matrix with a row for each class")


def _choose(weights: Weights, classes: int | None) -> WeightMatrix:
    linear = [matrix for matrix in weights.matrices if matrix.kind == "linear"]
    if not linear:
        kinds = [f"{matrix.name} ({matrix.kind})" for matrix in weights.matrices]
        held = f"its layers are {write_names(kinds, LISTED)}" if kinds else "it has no layer"
        raise ClassTreeError(f"the model has no linear layer, whose rows would be classes: {held}")
    last = [matrix for matrix in linear if not _is_read_on(matrix, weights.matrices)]
    if len(last) != 1 and classes is not None:
        last = [matrix for matrix in last or linear if matrix.outputs == classes] or last
    if len(last) == 1:
        return last[0]
    if last:
        raise ClassTreeError(
            f"{len(last)} linear layers may be the last one: {_list(last)}; choose by --layer NAME "
            f"(layer=)"
        )
    raise ClassTreeError(
        f"no linear layer is told to be the last one, since the outputs of each are as many as "
        f"another layer's inputs: {_list(linear)}; choose by --layer NAME (layer=)"
    )


def _is_read_on(matrix: WeightMatrix, others: Sequence[WeightMatrix]) -> bool:
    # What a linear layer puts out goes to no convolution, whose three inputs are colours.
    return any(
        other is not matrix
        and not other.kind.startswith("conv")
        and sum(other.shape) - other.outputs == matrix.outputs
        for other in others
    )


def _list(matrices: Sequence[WeightMatrix]) -> str:
    return write_names([f"{m.name} ({m.outputs} rows)" for m in matrices], LISTED)
