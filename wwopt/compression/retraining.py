"""Prune step by step and train on after each, by the `train` of a study that knows nothing of it.

The weights enter the model when `train` asks `hp` for its optimizer, and what is pruned is set back
to zero after every step of an optimizer. `torch.nn.utils.prune` would do so by hooks and renamed
parameters; such a model cannot be copied, has other keys in its state dict, and lets a tied weight
grow back under its other name. What is rounded is trained by the same hooks, see `retrain_rounded`.
And holding every weight they make of a training a measurement: `train` then logs what it always
logs, of a network that does not change.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import optuna
import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from wwopt.compression.compressed_networks import CompressedNetwork, apply_plans
from wwopt.compression.encoding import to_matrices
from wwopt.compression.errors import CompressionError
from wwopt.compression.layers import Layer, Network, list_layers
from wwopt.compression.plans import LayerPlan
from wwopt.compression.pruning import magnitude_mask
from wwopt.compression.quantization import dequantize, quantize
from wwopt.study.trial.last_network import LastNetwork
from wwopt.weights.packed_tensors import from_matrix
from wwopt.wording import first_line

_Place = tuple[int, torch.Size]  # in memory, and the shape: the same of tied weights

ROUNDS = 4  # of pruning and training on: 10 to 15 % of the weights each at a sparsity of one half


@dataclass(frozen=True)
class Retraining:
    """How a compressed network is trained on, and judged by what its training logs."""

    train: Callable[[Any, Any, Any], object]  # a study's, `StudySpec.train`
    hp: Any  # `wwopt.LayerHyperparameters`
    conditions: Any  # `wwopt.Conditions`: its epochs are those of one round
    rounds: int = ROUNDS  # 0: only measure

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise CompressionError(f"rounds of pruning must be 0 or more, got {self.rounds}")

    def measure(self, weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """What `train` logs of a network that is held as it is: an epoch's time, no change.

        Args:
            weights: the network's state dict.

        Raises:
            CompressionError: if `train` asks for no optimizer or its model does not take them.
        """
        held = {name: Hold(value=value) for name, value in weights.items()}
        return dict(self._run(weights, replace(self.conditions, epochs=1), held)[0].numbers)

    def run(
        self, weights: Mapping[str, torch.Tensor], holds: Mapping[str, "Hold"]
    ) -> dict[str, torch.Tensor]:
        """Train once from given weights on.

        Args:
            weights: to start from, a state dict.
            holds: by name, what a weight is kept at; the others are free.

        Returns:
            The state dict after training: exact weights, also where the network had rounded ones;
            tied ones share memory.

        Raises:
            CompressionError: as of `measure`, or if the training diverges.
        """
        last, exact = self._run(weights, self.conditions, holds)
        assert last.model is not None
        trained = last.model.state_dict()
        if not weights.keys() <= trained.keys():
            raise CompressionError(
                "the model that train hands to recorder.step is not the one whose optimizer it "
                f"makes: it lacks {min(weights.keys() - trained.keys())!r}"
            )
        places = {name: _place(trained[name]) for name in weights}
        copies = {
            place: exact.get(place, trained[name]).detach().to("cpu", copy=True)
            for name, place in places.items()
        }
        return {name: copies[place] for name, place in places.items()}

    def _run(
        self, weights: Mapping[str, torch.Tensor], conditions: Any, holds: Mapping[str, "Hold"]
    ) -> tuple[LastNetwork, Mapping[_Place, torch.Tensor]]:
        """The network as it was last, and the exact weights behind rounded ones, by place."""
        last = LastNetwork()
        start = _Start(self.hp, weights, holds)
        try:
            with start.holding(), torch.random.fork_rng():
                torch.manual_seed(conditions.seed)
                self.train(start, conditions, last)
        except optuna.TrialPruned as pruned:
            raise CompressionError(f"training on failed: {first_line(pruned)}") from pruned
        if not start.entered or last.model is None:
            raise CompressionError(
                "train asked hp for no optimizer (hp.optimizer, hp.param_groups) or never called "
                "recorder.step(model): it trained a new network, or none"
            )
        return last, start.exact


@dataclass(frozen=True)
class Hold:
    """What a weight is kept at while the rest is trained."""

    mask: torch.Tensor | None = None  # False where it is zero
    # What the network has of the exact weight, which is trained behind it; None: that weight.
    show: Callable[[torch.Tensor], torch.Tensor] | None = None
    value: torch.Tensor | None = None  # that it always has; None: it is trained


def retrain(
    retraining: Retraining,
    weights: Mapping[str, torch.Tensor],
    network: Network,
    plans: Mapping[str, LayerPlan],
) -> dict[str, torch.Tensor]:
    """Prune to the plans' sparsities in equal steps, and train on after each.

    Args:
        retraining: by what.
        weights: the trained network's state dict.
        network: its layers.
        plans: by layer name, of which the sparsities count.

    Returns:
        The state dict after the last round, with exactly the zeros of the plans.

    Raises:
        CompressionError: if `train` asks for no optimizer, its model does not take the weights, or
            the training diverges.
    """
    return _retrain(retraining, weights, network, plans)


def retrain_rounded(
    retraining: Retraining,
    weights: Mapping[str, torch.Tensor],
    network: Network,
    plans: Mapping[str, LayerPlan],
) -> CompressedNetwork:
    """Train on a network that is compressed by plans all the while.

    In the forward pass weights are rounded to their bits, to the nearest; steps go to exact weights
    behind them, with the gradient at the rounded ones (Courbariaux et al. 2015, BinaryConnect),
    since a step is smaller than the distance of two levels. Zeros come in equal steps, as of
    `retrain`. A layer that is cut to a rank stays as it was cut: `train` knows its product alone,
    and steps would leave the rank.

    Returns:
        The network as it was trained: bits, zeros and ranks are those of the plans.

    Raises:
        CompressionError: as of `retrain`.
    """
    cut = {layer.name for layer in network.layers if plans[layer.name].rank is not None}
    fixed = apply_plans(network, {name: plans[name] for name in cut})
    found = _retrain(retraining, weights, network, plans, fixed.weights)
    # What was rounded to the nearest is rounded to the same again.
    nearest = {
        name: replace(plan, compensate=False) for name, plan in plans.items() if name not in cut
    }
    after = apply_plans(list_layers(found), nearest)
    encoded = {n: fixed.encoded[n] if n in cut else own for n, own in after.encoded.items()}
    return replace(after, encoded=encoded, plans={**plans, **nearest})


def _retrain(
    retraining: Retraining,
    weights: Mapping[str, torch.Tensor],
    network: Network,
    plans: Mapping[str, LayerPlan],
    cut: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """The exact state dict after all rounds; rounded all the while where it is told what is cut."""
    current = dict(weights)
    for number in range(1, retraining.rounds + 1):
        holds: dict[str, Hold] = {}
        for layer in network.layers:
            plan, name = plans.get(layer.name, LayerPlan()), layer.tensor.name
            hold = Hold()
            if cut is not None and plan.rank is not None:
                hold = replace(hold, value=cut[name])
            elif cut is not None and plan.bits is not None:
                hold = replace(hold, show=partial(_round, layer, plan.bits))
            if plan.sparsity > 0.0:
                share = plan.sparsity * number / retraining.rounds
                hold = replace(hold, mask=magnitude_mask(current[name], share))
            holds |= dict.fromkeys((name, *layer.tied), hold)
        current = retraining.run(current, holds)
    return current


def _round(layer: Layer, bits: int, tensor: torch.Tensor) -> torch.Tensor:
    """A layer's tensor rounded to the nearest levels, as the file would have it."""
    matrices = to_matrices(tensor, axis=layer.axis, stacked=layer.stacked)
    found = dequantize(quantize(matrices.flatten(0, 1), bits))
    return from_matrix(found, tensor.shape, layer.axis).to(tensor.dtype)


class _Start:
    """Hyperparameters that put weights into the model whose optimizer they make, and hold some."""

    def __init__(
        self, hp: Any, weights: Mapping[str, torch.Tensor], holds: Mapping[str, Hold]
    ) -> None:
        self._hp, self._weights, self._holds = hp, weights, holds
        # The model's, once it is there, by place in memory: a tied weight is held once.
        self._held: dict[_Place, tuple[torch.Tensor, Hold]] = {}
        self.exact: dict[_Place, torch.Tensor] = {}  # what is trained behind what the model shows
        self.entered = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hp, name)

    def optimizer(self, model: nn.Module, cls: Any, **defaults: Any) -> Any:
        self._enter(model)
        return self._hp.optimizer(model, cls, **defaults)

    def param_groups(self, model: nn.Module, cls: Any, **options: Any) -> Any:
        self._enter(model)
        return self._hp.param_groups(model, cls, **options)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Around every step of any optimizer: what is trained before, what is shown after."""
        handles = (
            register_optimizer_step_pre_hook(lambda *_: self._uncover()),
            register_optimizer_step_post_hook(lambda *_: self._hold()),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, model: nn.Module) -> None:
        try:
            fit = model.load_state_dict(dict(self._weights), strict=False)
        except RuntimeError as error:
            raise _misfit(" ".join(str(error).split())[:300]) from error
        own = model.state_dict()  # which shares the model's memory
        # A file has tied weights once.
        entered = {own[name].data_ptr() for name in self._weights if name in own}
        missing = [name for name in fit.missing_keys if own[name].data_ptr() not in entered]
        if missing or fit.unexpected_keys:
            told = [f"they lack {missing[0]!r}"] if missing else []
            told += [f"there is no {name!r} in it" for name in fit.unexpected_keys[:1]]
            raise _misfit(", ".join(told))
        known = {name: hold for name, hold in self._holds.items() if name in own}
        self._held = {_place(own[name]): (own[name], hold) for name, hold in known.items()}
        self._hold()
        self.entered = True

    @torch.no_grad()
    def _uncover(self) -> None:
        for place, exact in self.exact.items():
            self._held[place][0].copy_(exact)

    @torch.no_grad()
    def _hold(self) -> None:
        for place, (own, hold) in self._held.items():
            if hold.value is not None:
                own.copy_(hold.value)
            if hold.mask is not None:
                own.mul_(hold.mask.to(own.device))
            if hold.show is not None:
                self.exact[place] = own.clone()
                own.copy_(hold.show(own.to("cpu")))


def _place(tensor: torch.Tensor) -> _Place:
    return tensor.data_ptr(), tensor.shape


def _misfit(why: str) -> CompressionError:
    return CompressionError(f"the model that train makes does not take the weights: {why}")
