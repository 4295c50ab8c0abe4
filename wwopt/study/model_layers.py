"""Find the layers of a model: its weights, the dropouts at their outputs, who owns which parameter.

A layer is a module that owns a weight matrix. Its biases belong to it; a norm layer, and any other
parameter, belongs to the layer before it. Dropout means the dropout of a layer's *output*: the
`nn.Dropout` modules between it and the next layer.
"""

import math
from typing import cast

from torch import nn

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def find_weight_layers(model: nn.Module) -> dict[str, int]:
    """Name → number of eigenvalues of each module that itself owns a matrix.

    Not among them: norm layers, and positions or class tokens of shape (1, …).
    """
    counts: dict[str, int] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not name or ".parametrizations." in f".{name}." or isinstance(module, _NORMS):
            continue
        own = [p for p in _own_parameters(module) if id(p) not in seen]
        matrices = [p for p in own if p.dim() >= 2 and min(p.shape[:2]) > 1]
        seen.update(id(p) for p in matrices)
        if matrices:
            counts[name] = max(min(p.shape[:2]) * math.prod(p.shape[2:]) for p in matrices)
    return counts


def find_output_dropouts(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Layer → the dropout modules between it and the next layer, in the order of definition."""
    weights = find_weight_layers(model)
    found: dict[str, list[nn.Module]] = {}
    layer: str | None = None
    for name, module in model.named_modules():
        if name in weights:
            layer = name
        elif layer is not None and isinstance(module, _DROPOUTS):
            found.setdefault(layer, []).append(module)
    return found


def group_parameters(model: nn.Module, layers: tuple[str, ...]) -> dict[str, list[nn.Parameter]]:
    """Layer → the trainable parameters that follow its values; every parameter exactly once."""
    missing = sorted(set(layers) - {name for name, _ in model.named_modules()})
    if missing:
        raise ValueError(f"the model has no layer {missing[0]!r}, which the trial has values for")
    owners: dict[str, list[nn.Parameter]] = {layer: [] for layer in layers}
    seen: set[int] = set()
    layer = layers[0]
    for name, module in model.named_modules():
        if name in owners:
            layer = name
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                owners[layer].append(parameter)
    return {layer: parameters for layer, parameters in owners.items() if parameters}


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of the module itself, those behind its parametrizations included."""
    own = list(module.parameters(recurse=False))
    if "parametrizations" in module._modules:
        own += list(cast(nn.Module, module._modules["parametrizations"]).parameters())
    return own
