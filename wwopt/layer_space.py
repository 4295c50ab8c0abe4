"""The search space of a model's layers: suggest hyperparameters per layer, apply them to training.

Three hyperparameters for each of 20 layers are 60 dimensions, and how the space is parametrised
matters more (2 to 21 times) than the sampler (1.5 to 3 times). Hence `tie`:

    "global"  one value for all layers
    "block"   one value for each block: layers whose names agree up to their first number
    "depth"   a profile over depth with three knots (first, middle, last), linear between them,
              for learning rates and weight decays linear in their logarithm: the default
    "layer"   one value for each layer

Whatever the tie, what is recorded is each layer's own value.

A layer is a module that owns a weight matrix. Its biases belong to it; a norm layer, and any other
parameter, belongs to the layer before it. Dropout means the dropout of a layer's *output*: the
`nn.Dropout` modules between it and the next layer.
"""

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args

import optuna
import torch
from torch import nn

Range = tuple[float, float]  # (low, high), both included
Tie = Literal["global", "block", "depth", "layer"]
Model = TypeVar("Model", bound=nn.Module)
Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)

LOGARITHMIC = frozenset({"lr", "weight_decay"})  # sampled and interpolated in log10
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_KNOTS = ("first", "middle", "last")


@dataclass(frozen=True)
class LayerHyperparameters:
    """One trial's hyperparameters, layer by layer."""

    lr: Mapping[str, float]
    dropout: Mapping[str, float] = field(default_factory=dict)  # layers that have a dropout
    momentum: Mapping[str, float] = field(default_factory=dict)  # beta1 for Adam and its kin
    weight_decay: Mapping[str, float] = field(default_factory=dict)
    functional: tuple[str, ...] = ()  # layers whose dropout the model applies itself

    def apply_dropout(self, model: Model) -> Model:
        """Set the rate of every layer's dropout modules, in place.

        Returns:
            The same model.

        Raises:
            ValueError: if a layer has a rate but no dropout module, and is not declared functional.
        """
        modules = _output_dropouts(model)
        for layer, rate in self.dropout.items():
            if layer in self.functional:
                continue
            if not modules.get(layer):
                raise ValueError(
                    f"layer {layer!r} has dropout {rate:g} but no nn.Dropout follows it; add one, "
                    f"or declare it with functional_dropout=[{layer!r}] and read hp.dropout"
                )
            for module in modules[layer]:
                module.p = rate  # type: ignore[assignment]  # nn.Module types every attribute
        return model

    def optimizer(self, model: nn.Module, cls: type[Optimizer], **defaults: Any) -> Optimizer:
        """Make an optimizer with one parameter group a layer.

        Args:
            model: whose parameters are trained.
            cls: SGD, AdamW, or any torch optimizer that knows the hyperparameters' names.
            defaults: further arguments of the optimizer, for all groups.
        """
        return cls(self.param_groups(model, cls), **defaults)

    def param_groups(
        self, model: nn.Module, cls: type[torch.optim.Optimizer]
    ) -> list[dict[str, Any]]:
        """Parameter groups, one a layer, each with its name and hyperparameters.

        Momentum becomes the first of `betas` where the optimizer has those: AdamW accepts a key
        "momentum" without a word and ignores it.

        Raises:
            ValueError: if the optimizer does not know a hyperparameter, or the model lacks a layer.
        """
        known = inspect.signature(cls).parameters
        owners = _parameters_by_layer(model, tuple(self.lr))
        groups = []
        for layer, parameters in owners.items():
            group: dict[str, Any] = {"params": parameters, "name": layer, "lr": self.lr[layer]}
            if layer in self.momentum:
                if "betas" in known:
                    group["betas"] = (self.momentum[layer], *known["betas"].default[1:])
                elif "momentum" in known:
                    group["momentum"] = self.momentum[layer]
                else:
                    raise ValueError(
                        f"{cls.__name__} has neither momentum nor betas; tune without momentum"
                    )
            if layer in self.weight_decay:
                if "weight_decay" not in known:
                    raise ValueError(f"{cls.__name__} has no weight_decay; tune without it")
                group["weight_decay"] = self.weight_decay[layer]
            groups.append(group)
        return groups

    def to_dict(self) -> dict[str, float]:
        """Flat form, as logged: {"lr/fc1": .1, "dropout/fc1": .2, …}."""
        return {
            f"{kind}/{layer}": value
            for kind in ("lr", "dropout", "momentum", "weight_decay")
            for layer, value in getattr(self, kind).items()
        }


@dataclass(frozen=True)
class LayerSpace:
    """Ranges of hyperparameters over the layers of one architecture; make it with `from_model`."""

    layers: tuple[str, ...]  # in the model's order
    ranges: Mapping[str, Range]  # "lr", "dropout", "momentum", "weight_decay" → (low, high)
    dropout_layers: tuple[str, ...]  # those of `layers` with a dropout at their output
    eigenvalues: Mapping[str, int]  # layer → eigenvalues that its weights have, slices pooled
    tie: Tie = "depth"
    functional: tuple[str, ...] = ()

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        lr: Range,
        dropout: Range | None,
        momentum: Range | None,
        weight_decay: Range | None = None,
        tie: Tie = "depth",
        include: Sequence[str] | None = None,
        functional_dropout: Iterable[str] = (),
    ) -> "LayerSpace":
        """Find the layers of a model and span a space over them.

        Args:
            model: an instance of the architecture; only names and shapes are kept.
            lr: (low, high) of the learning rate; both positive, sampled in its logarithm.
            dropout: (low, high) of the rate at each layer's output; None leaves the model's own.
            momentum: (low, high); None leaves the optimizer's own.
            weight_decay: (low, high), as lr; None leaves the optimizer's own.
            tie: how layers share their values; see the module's docstring.
            include: names of the layers that get values; the others follow the nearest included
                layer before them (else the first). None for all.
            functional_dropout: layers whose dropout the model applies itself; read hp.dropout.

        Raises:
            ValueError: on an unknown layer or tie, an impossible range, or a model without layers.
        """
        weights = _weight_layers(model)
        names = tuple(weights) if include is None else tuple(include)
        functional = tuple(functional_dropout)
        unknown = [name for name in (*names, *functional) if name not in weights]
        if unknown:
            raise ValueError(
                f"unknown layer {unknown[0]!r}; the model's layers are {', '.join(weights)}"
            )
        if not names:
            raise ValueError(f"{type(model).__name__} has no layer with a weight matrix")
        if tie not in get_args(Tie):
            raise ValueError(f"unknown tie {tie!r}; known: {', '.join(get_args(Tie))}")
        ranges = {"lr": lr, "dropout": dropout, "momentum": momentum, "weight_decay": weight_decay}
        given = {kind: _checked(kind, r) for kind, r in ranges.items() if r is not None}
        dropouts = _output_dropouts(model)
        ordered = tuple(name for name in weights if name in names)
        return cls(
            layers=ordered,
            ranges=given,
            dropout_layers=tuple(n for n in ordered if dropouts.get(n) or n in functional),
            eigenvalues={name: weights[name] for name in ordered},
            tie=tie,
            functional=functional,
        )

    def suggest(self, trial: optuna.trial.BaseTrial) -> LayerHyperparameters:
        """Ask a trial for its values and store every layer's own in its user attributes."""
        values: dict[str, dict[str, float]] = {}
        for kind, (low, high) in self.ranges.items():
            layers = self.dropout_layers if kind == "dropout" else self.layers
            log = kind in LOGARITHMIC
            values[kind] = {}
            for layer, shares in self._knots(layers).items():
                knots = [
                    (trial.suggest_float(f"{kind}/{knot}", low, high, log=log), share)
                    for knot, share in shares
                ]
                values[kind][layer] = _interpolate(knots, log=log)
        hp = LayerHyperparameters(**values, functional=self.functional)
        trial.set_user_attr("hyperparameters", hp.to_dict())
        return hp

    def describe(self) -> dict[str, Any]:
        """The space as plain data: what must not change when a study is resumed."""
        return {
            "layers": list(self.layers),
            "ranges": {kind: list(r) for kind, r in self.ranges.items()},
            "dropout_layers": list(self.dropout_layers),
            "tie": self.tie,
        }

    def _knots(self, layers: Sequence[str]) -> dict[str, list[tuple[str, float]]]:
        """Layer → [(knot, its share in the layer's value)]; shares sum to 1."""
        if self.tie == "global":
            return {layer: [("all", 1.0)] for layer in layers}
        if self.tie == "block":
            return {layer: [(_block(layer), 1.0)] for layer in layers}
        if self.tie == "layer" or len(layers) < len(_KNOTS):
            return {layer: [(layer, 1.0)] for layer in layers}
        shares: dict[str, list[tuple[str, float]]] = {}
        for index, layer in enumerate(layers):
            position = index / (len(layers) - 1) * (len(_KNOTS) - 1)
            left = min(int(position), len(_KNOTS) - 2)
            part = position - left
            both = [(f"depth={_KNOTS[left]}", 1.0 - part), (f"depth={_KNOTS[left + 1]}", part)]
            shares[layer] = [(knot, share) for knot, share in both if share > 0.0]
        return shares


def _interpolate(knots: list[tuple[float, float]], *, log: bool) -> float:
    if len(knots) == 1:
        return knots[0][0]
    if log:
        return math.exp(math.fsum(share * math.log(value) for value, share in knots))
    return math.fsum(share * value for value, share in knots)


def _block(layer: str) -> str:
    """The block of a layer: `encoder.layers.3` for `encoder.layers.3.fc1`, `conv1` for `conv1`."""
    parts = layer.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else parts[0]


def _checked(kind: str, given: Range) -> Range:
    low, high = (float(bound) for bound in given)
    top = {"dropout": 1.0, "momentum": 1.0}.get(kind, math.inf)
    bottom = math.nextafter(0.0, 1.0) if kind in LOGARITHMIC else 0.0
    if not (bottom <= low <= high < top):
        limits = f"{'0 <' if kind in LOGARITHMIC else '0 <='} low <= high < {top:g}"
        raise ValueError(f"{kind} must be (low, high) with {limits}, got ({low:g}, {high:g})")
    return low, high


def _weight_layers(model: nn.Module) -> dict[str, int]:
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


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of the module itself, those behind its parametrizations included."""
    own = list(module.parameters(recurse=False))
    if "parametrizations" in module._modules:
        own += list(cast(nn.Module, module._modules["parametrizations"]).parameters())
    return own


def _output_dropouts(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Layer → the dropout modules between it and the next layer, in the order of definition."""
    weights = _weight_layers(model)
    found: dict[str, list[nn.Module]] = {}
    layer: str | None = None
    for name, module in model.named_modules():
        if name in weights:
            layer = name
        elif layer is not None and isinstance(module, _DROPOUTS):
            found.setdefault(layer, []).append(module)
    return found


def _parameters_by_layer(
    model: nn.Module, layers: tuple[str, ...]
) -> dict[str, list[nn.Parameter]]:
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
