"""Find the layers of a model: its weights, the dropouts at their outputs, who owns which parameter.

A layer is a module that owns a weight matrix. Its biases belong to it; a norm layer, and any other
parameter, belongs to the layer before it. Dropout means the dropout of a layer's *output*: the
`nn.Dropout` modules between it and the next layer. An attention that keeps the rate of its own
dropout as a number, as Llama's does, has it at the output of its values: of its last layer but for
the output projection.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import nn

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

# Names under which an attention keeps the rate of its dropout as a number; of 408 forwards in
# transformers 5.24 that read such a number, 405 have it under one of these.
_RATES = (
    "attention_dropout", "attn_dropout", "attn_dropout_p", "dropout", "dropout_p", "dropout_prob",
)  # fmt: skip
_PROJECTIONS = ("c_proj", "dense", "o", "o_proj", "out", "out_proj", "proj", "to_out", "wo")


@dataclass(frozen=True)
class DropoutPlace:
    """Where a model keeps the rate of one dropout."""

    module: nn.Module
    attribute: str  # "p" of an nn.Dropout

    def set(self, rate: float) -> None:
        """Set the rate; it is read at each forward."""
        setattr(self.module, self.attribute, rate)


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


def find_output_dropouts(model: nn.Module) -> dict[str, list[DropoutPlace]]:
    """Layer → the dropouts between it and the next layer, in the order of definition."""
    weights = find_weight_layers(model)
    found: dict[str, list[DropoutPlace]] = {}
    layer: str | None = None
    for name, module in model.named_modules():
        if name in weights:
            layer = name
        elif layer is not None and isinstance(module, _DROPOUTS):
            found.setdefault(layer, []).append(DropoutPlace(module, "p"))
        for attribute in _rates_of(module):
            if (owner := _values_of(name, list(weights))) is not None:
                found.setdefault(owner, []).append(DropoutPlace(module, attribute))
    return found


def _rates_of(module: nn.Module) -> Iterator[str]:
    """The attributes in which an attention that is not torch's own keeps the rate of a dropout."""
    kind = type(module)
    if "Attention" in kind.__name__ and not kind.__module__.startswith("torch."):
        for attribute in _RATES:
            rate = vars(module).get(attribute)
            if isinstance(rate, int | float) and not isinstance(rate, bool) and 0.0 <= rate < 1.0:
                yield attribute


def _values_of(attention: str, layers: list[str]) -> str | None:
    """The layer of an attention whose output its own dropout follows; None if it has no layer."""
    prefix = f"{attention}." if attention else ""
    inside = [layer for layer in layers if layer.startswith(prefix)]
    before = [n for n in inside if n.removeprefix(prefix).split(".")[0] not in _PROJECTIONS]
    return next(reversed(before or inside), None)


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


def name_groups(model: nn.Module, layers: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Layer → all names of the parameters that `group_parameters` gives it, its own shortened."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {
        layer: tuple(n.removeprefix(f"{layer}.") for p in parameters for n in names[id(p)])
        for layer, parameters in group_parameters(model, layers).items()
    }


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of the module itself, those behind its parametrizations included."""
    own = list(module.parameters(recurse=False))
    if "parametrizations" in module._modules:
        own += list(cast(nn.Module, module._modules["parametrizations"]).parameters())
    return own
