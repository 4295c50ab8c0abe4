"""How much compressing a layer is going to cost, as far as its weights can tell.

    damage = w · ‖E‖₂ ‖E‖_F / ‖W‖_F,   E = what changed;  w = 4 for layers at the network's ends

It is the mean of unlike distances. The spectral norm is the noise in the direction where it is
strongest, Frobenius' all of it; a cut to a low rank has little of the first, and pruning little of
the second. Over the layer's norm once, it lies between the relative error, which is right where a
normalisation or the next layer takes a layer's scale out, and the absolute one, which is right
where layers add to one stream. studies/compress_budget.py judges it, and what else was tried.
"""

import math

import numpy as np
import torch

from wwopt.compression.layers import Layer, Network
from wwopt.spectra.gram_matrices import multiply_tall
from wwopt.spectra.lanczos import top_eigenvalues

END_WEIGHT = 4.0
# Errors above it cost a point of accuracy or more in a third of the cases, below it in 1 of 25.
BREAKS = 0.5
_TOLERANCE = 1e-2  # of a squared norm, in units of the mean eigenvalue


class LayerDamage:
    """What a layer is compared by."""

    def __init__(self, before: torch.Tensor, *, end: bool) -> None:
        """Keep a layer's weights, (slices, rows, columns)."""
        self._before = before.detach().float()
        self.spectral = spectral_norm(self._before)
        self.frobenius = float(torch.linalg.vector_norm(self._before))
        self.weight = END_WEIGHT if end else 1.0

    def error(self, after: torch.Tensor) -> float:
        """√(w ‖E‖₂ ‖E‖_F / ‖W‖₂ ‖W‖_F): relative, double at an end; 0 where nothing changed."""
        change = after.detach().float() - self._before
        frobenius = float(torch.linalg.vector_norm(change))
        if frobenius == 0.0:
            return 0.0
        shares = spectral_norm(change) / self.spectral, frobenius / self.frobenius
        return math.sqrt(self.weight * shares[0] * shares[1])

    def damage(self, error: float) -> float:
        """The damage of an error."""
        return error**2 * self.spectral


def spectral_norm(matrices: torch.Tensor) -> float:
    """Largest singular value of all slices one above the other, (slices, rows, columns)."""
    matrix = matrices.flatten(0, 1)
    largest = float(matrix.abs().max())
    if largest == 0.0:
        return 0.0
    scaled = matrix / largest
    tall = scaled if scaled.shape[0] >= scaled.shape[1] else scaled.mT
    gram = multiply_tall(tall.contiguous())
    tolerance = _TOLERANCE * float(np.trace(gram)) / len(gram)
    return largest * math.sqrt(float(top_eigenvalues(gram, 1, tolerance=tolerance)[0]))


def find_ends(network: Network) -> set[str]:
    """Layers that face the world: no other layer makes their inputs, or takes their outputs.

    Told from the shapes: b takes what a makes if b's inputs are a whole multiple of a's outputs
    (times what a convolution's map has of places). Names and order say nothing in many files.
    """
    sides = {layer.name: _sides(layer) for layer in network.layers}
    ends = set()
    for name, (inputs, outputs) in sides.items():
        others = [side for other, side in sides.items() if other != name]
        fed = any(inputs % made == 0 for _, made in others)
        read = any(taken % outputs == 0 for taken, _ in others)
        if not (fed and read):
            ends.add(name)
    return ends


def _sides(layer: Layer) -> tuple[int, int]:
    """Input and output channels; fused matrices, as q, k and v, count as one."""
    _, rows, columns = layer.shape
    shape = layer.tensor.shape
    channels = shape[1 - layer.axis] if len(shape) > 3 else columns
    return channels, max(1, rows // max(1, len(layer.matrices)))
