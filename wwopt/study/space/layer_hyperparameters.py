"""One trial's hyperparameters, layer by layer, and how they get into optimizers and dropouts."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from wwopt.study.space.model_layers import find_output_dropouts, group_parameters

Model = TypeVar("Model", bound=nn.Module)
Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)


@dataclass(frozen=True)
class LayerHyperparameters:
    """One trial's hyperparameters: each layer's own, and those of the whole training."""

    lr: Mapping[str, float]
    dropout: Mapping[str, float] = field(default_factory=dict)  # layers that have a dropout
    momentum: Mapping[str, float] = field(default_factory=dict)  # beta1 for Adam and its kin
    weight_decay: Mapping[str, float] = field(default_factory=dict)
    functional: tuple[str, ...] = ()  # layers whose dropout the model applies itself
    batch_size: int | None = None  # examples; None where it was not sampled
    width: float | None = None  # sampled factor on the layers' widths
    depth: float | None = None  # sampled factor on the number of layers

    def apply_dropout(self, model: Model) -> Model:
        """Set the rates of every layer's dropouts, in place: of modules and of attentions.

        A configuration that the model carries, as Hugging Face's, keeps the rates that it had.

        Returns:
            The same model.

        Raises:
            ValueError: if a layer has a rate but no dropout module, and is not declared functional.
        """
        places = find_output_dropouts(model)
        for layer, rate in self.dropout.items():
            if layer in self.functional:
                continue
            if not places.get(layer):
                raise ValueError(
                    f"layer {layer!r} has dropout {rate:g} but no nn.Dropout follows it; add one, "
                    f"or declare it with functional_dropout=[{layer!r}] and read hp.dropout"
                )
            for place in places[layer]:
                place.set(rate)
        return model

    def optimizer(self, model: nn.Module, cls: type[Optimizer], **defaults: Any) -> Optimizer:
        """Make an optimizer with one parameter group a layer.

        Args:
            model: whose parameters are trained.
            cls: SGD, AdamW, or any torch optimizer that knows the hyperparameters' names.
            defaults: further arguments of the optimizer, for all groups. Of `betas` the second
                and later ones stay where momentum is tuned.
        """
        return cls(self.param_groups(model, cls, betas=defaults.get("betas")), **defaults)

    def param_groups(
        self,
        model: nn.Module,
        cls: type[torch.optim.Optimizer],
        *,
        betas: tuple[float, ...] | None = None,
    ) -> list[dict[str, Any]]:
        """Parameter groups, one a layer, each with its name and hyperparameters.

        Momentum becomes the first of `betas` where the optimizer has those: AdamW accepts a key
        "momentum" without a word and ignores it.

        Args:
            model: whose parameters are grouped; frozen ones are left out.
            cls: the optimizer that will get the groups.
            betas: what follows the first beta; None for the optimizer's default.

        Raises:
            ValueError: if the optimizer does not know a hyperparameter, or the model lacks a layer.
        """
        known = inspect.signature(cls).parameters
        owners = group_parameters(model, tuple(self.lr))
        groups = []
        for layer, parameters in owners.items():
            group: dict[str, Any] = {"params": parameters, "name": layer, "lr": self.lr[layer]}
            if layer in self.momentum:
                if "betas" in known:
                    rest = (betas or known["betas"].default)[1:]
                    group["betas"] = (self.momentum[layer], *rest)
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
        """Flat form, as logged: {"lr/fc1": .1, "dropout/fc1": .2, …, "batch_size": 64}."""
        layered = {
            f"{kind}/{layer}": value
            for kind in ("lr", "dropout", "momentum", "weight_decay")
            for layer, value in getattr(self, kind).items()
        }
        whole = {kind: getattr(self, kind) for kind in ("batch_size", "width", "depth")}
        return layered | {kind: value for kind, value in whole.items() if value is not None}


# Numbers alone: a checkpoint that holds one, as of Lightning's `save_hyperparameters`, is read with
# weights_only=True.
torch.serialization.add_safe_globals([LayerHyperparameters])
