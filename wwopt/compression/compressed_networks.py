"""A network by the plans of its layers: what is written, and the weights that this stands for.

apply_plans(source, {"fc1": LayerPlan(bits=4), ...}) -> CompressedNetwork
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from wwopt.compression.encoding import EncodedLayer, encode_layer
from wwopt.compression.errors import CompressionError
from wwopt.compression.files import count_file_bytes, describe_packed, write_tensors
from wwopt.compression.layers import Network, list_layers
from wwopt.compression.plans import LayerPlan
from wwopt.weights.matrices import Source
from wwopt.wording import write_names


@dataclass(frozen=True)
class CompressedNetwork:
    """All tensors of a network, those of its layers by their plans."""

    network: Network  # before
    plans: Mapping[str, LayerPlan]  # of every layer
    encoded: Mapping[str, EncodedLayer]  # by layer
    rest: Mapping[str, torch.Tensor]  # by name: biases, norms, buffers, as they were
    tied: Mapping[str, str]  # other name -> the name under which a tensor is stored

    @cached_property
    def stored(self) -> dict[str, torch.Tensor]:
        """What is written, by the name in the file."""
        stored = dict(self.rest)
        for layer in self.encoded.values():
            stored |= layer.stored
        return stored

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Of the file; empty where nothing is packed, and any reader reads it."""
        entries = {name: e for layer in self.encoded.values() for name, e in layer.entries.items()}
        return describe_packed(entries, self.tied) if entries or self.tied else {}

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """The state dict that the file stands for, dequantized, in the model's order."""
        found = dict(self.rest)
        for layer in self.network.layers:
            found[layer.tensor.name] = self.encoded[layer.name].weights
        found |= {other: found[name] for other, name in self.tied.items()}
        return {name: found[name] for name in self.network.names if name in found}

    @cached_property
    def bytes(self) -> int:
        """Of the file as `write` writes it, header included."""
        return count_file_bytes(self.stored, self.metadata)

    def write(self, path: Path, *, dense: bool = False) -> int:
        """Write the network as safetensors; an interrupted write leaves no file.

        Args:
            path: of the file.
            dense: the weights dequantized, under their own names and dtypes, tied ones once; for
                frameworks, and as large as before.

        Returns:
            Bytes of the file.

        Raises:
            CompressionError: if it cannot be written.
        """
        if not dense:
            return write_tensors(path, self.stored, self.metadata)
        once = {name: value for name, value in self.weights.items() if name not in self.tied}
        return write_tensors(path, once, {"format": "pt"})


def apply_plans(
    source: Source | Network, plans: Mapping[str, LayerPlan], *, key: str | None = None
) -> CompressedNetwork:
    """Compress the layers of a network by their plans; without data, and without judging them.

    Args:
        source: a module, a state dict or a path, as of `wwopt.analyze`; or what `list_layers` made
            of one.
        plans: by layer name; a layer without one stays as it is.
        key: as of `list_layers`.

    Raises:
        CompressionError: if there is no such layer, a plan does not fit its shape, or a weight is
            not finite.
        WeightsError: if the source cannot be read.
    """
    network = source if isinstance(source, Network) else list_layers(source, key=key)
    names = [layer.name for layer in network.layers]
    strangers = [name for name in plans if name not in names]
    if strangers:
        raise CompressionError(f"no layer {strangers[0]!r}; the layers are {write_names(names)}")
    encoded: dict[str, EncodedLayer] = {}
    tied: dict[str, str] = {}
    for layer in network.layers:
        encoded[layer.name] = encode_layer(
            layer.tensor.name,
            layer.read_tensor(),
            plans.get(layer.name, LayerPlan()),
            axis=layer.axis,
            stacked=layer.stacked,
        )
        tied |= dict.fromkeys(layer.tied, layer.tensor.name)
    rest: dict[str, torch.Tensor] = {}
    owners: dict[object, str] = {}
    for tensor in network.rest:
        owner = owners.setdefault(tensor.identity, tensor.name) if tensor.identity else tensor.name
        if owner == tensor.name:
            rest[tensor.name] = tensor.read().detach().cpu().contiguous()
        else:
            tied[tensor.name] = owner
    full = {name: plans.get(name, LayerPlan()) for name in names}
    return CompressedNetwork(network, full, encoded, rest, tied)
