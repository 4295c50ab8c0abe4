"""The layers of a model that can be compressed, and what is left as it is."""

import difflib
import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from wwopt.compression.encoding import to_matrices
from wwopt.compression.errors import CompressionError
from wwopt.weights.layouts import MatrixPart, layer_name
from wwopt.weights.matrices import Source, read_tensors
from wwopt.weights.stored_tensors import StoredTensor, is_quantized
from wwopt.weights.tensor_names import bare_name

_OUTPUTS_SECOND = frozenset({"transposed", "conv_transpose"})  # layouts that are stored in x out


@dataclass(frozen=True)
class Layer:
    """One stored tensor that holds a weight matrix, or several that are stacked or fused."""

    name: str  # of the layer, as `wwopt analyze` has it; of fused ones without ".q" and the like
    tensor: StoredTensor
    shape: tuple[int, int, int]  # (slices, rows, columns), rows are outputs
    axis: int  # dimension of the outputs in the tensor, as of `encode_layer`
    stacked: bool  # whether the first of three dimensions counts matrices
    parts: tuple[MatrixPart, ...]  # how the layer's matrices lie in the tensor
    matrices: tuple[str, ...]  # their names, as `wwopt analyze` has them
    tied: tuple[str, ...] = ()  # other names of the same tensor

    @property
    def size(self) -> int:
        """Weights in it."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of a weight."""
        dtype = getattr(torch, self.tensor.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    def read(self) -> torch.Tensor:
        """The weights as matrices, shape (slices, rows, columns).

        Raises:
            CompressionError: if one is not finite.
            WeightsError: if they cannot be read.
        """
        return to_matrices(self.read_tensor(), axis=self.axis, stacked=self.stacked)

    def read_tensor(self) -> torch.Tensor:
        """The tensor as it is stored, on the CPU.

        Raises:
            CompressionError: if a weight is not finite.
            WeightsError: if it cannot be read.
        """
        # What is rebuilt of a weight in half precision comes in float32.
        tensor = self.tensor.read().detach().to("cpu", self.dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise CompressionError(
                f"layer {self.name!r} has weights that are not finite; compress a sound checkpoint"
            )
        return tensor


@dataclass(frozen=True)
class Network:
    """A model's tensors: its layers, and the rest, which stays as it is."""

    layers: tuple[Layer, ...]  # tied ones once
    rest: tuple[StoredTensor, ...]  # biases, norms, buffers, single rows
    names: tuple[str, ...]  # of all tensors, in the model's order

    def __getitem__(self, name: str) -> Layer:
        """The layer of that name."""
        return next(layer for layer in self.layers if layer.name == name)


def list_layers(source: Source, *, key: str | None = None) -> Network:
    """List what of a model can be compressed; nothing is read yet.

    Args:
        source: a module, a state dict or a path, as of `wwopt.analyze`.
        key: dotted path of the model in a checkpoint that holds several.

    Raises:
        CompressionError: if the model is compressed already, or has no layer.
        WeightsError: if the source cannot be read.
    """
    found = read_tensors(source, key=key)
    layers: dict[str, Layer] = {}
    rest: list[StoredTensor] = []
    taken: set[str] = set()  # names of matrices
    owners: dict[object, str] = {}  # identity -> first layer
    for tensor, parts in found:
        _refuse_quantized(tensor)
        owner = owners.get(tensor.identity) if tensor.identity is not None else None
        if not parts:
            rest.append(tensor)
        elif owner is not None:
            known = layers[owner]
            layers[owner] = replace(known, tied=(*known.tied, tensor.name))
        else:
            layer = _layer(tensor, parts, taken=taken)
            layers[layer.name] = layer
            owners[tensor.identity] = layer.name
    if not layers:
        raise CompressionError("the model has no layer with a weight matrix: nothing to compress")
    return Network(tuple(layers.values()), tuple(rest), tuple(tensor.name for tensor, _ in found))


def match_layers(network: Network, wanted: Sequence[str]) -> set[str]:
    """The layers that names or patterns mean: of layers, of their matrices, of modules around them.

    Raises:
        CompressionError: if one means none.
    """
    chosen: set[str] = set()
    for pattern in wanted:
        found = {layer.name for layer in network.layers if _is_named(layer, pattern)}
        if not found:
            names = [layer.name for layer in network.layers]
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or names[:3]
            raise CompressionError(
                f"no layer {pattern!r}; did you mean {', '.join(map(repr, near))}?"
            )
        chosen |= found
    return chosen


def _is_named(layer: Layer, pattern: str) -> bool:
    names = (layer.name, *layer.matrices, *layer.tied, layer.tensor.name)
    return any(
        name == pattern or name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)
        for name in (*names, *map(bare_name, names))
    )


def _layer(tensor: StoredTensor, parts: tuple[MatrixPart, ...], *, taken: set[str]) -> Layer:
    names = []
    for part in parts:  # as `read_weights` names them: "fc" beside "fc.weight" gets a prime
        name = part.name
        while name in taken:
            name += "'"
        taken.add(name)
        names.append(name)
    name = names[0] if len(parts) == 1 else layer_name(tensor.name)
    layout, shape = parts[0].layout, tensor.shape
    axis = 1 if layout in _OUTPUTS_SECOND else 0
    stacked = layout == "stack"
    columns = shape[2] if stacked else math.prod(shape) // shape[axis]
    return Layer(
        name=name,
        tensor=tensor,
        shape=(shape[0], shape[1], columns) if stacked else (1, shape[axis], columns),
        axis=axis,
        stacked=stacked,
        parts=parts,
        matrices=tuple(names),
    )


def _refuse_quantized(tensor: StoredTensor) -> None:
    coded = is_quantized(tensor.dtype) or tensor.dtype.startswith("float8")
    if tensor.quantized or (coded and len(tensor.shape) > 1 and not tensor.buffer):
        raise CompressionError(
            f"{tensor.name!r} is quantized already ({tensor.dtype}); compress the original, "
            "since rounding twice loses more than once"
        )
