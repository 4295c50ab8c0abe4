"""Prune step by step and train on after each, by the `train` of a study that knows nothing of it.

The weights enter the model when `train` asks `hp` for its optimizer, and what is pruned is set back
to zero after every step of an optimizer. `torch.nn.utils.prune` would do so by hooks and renamed
parameters; such a model cannot be copied, has other keys in its state dict, and lets a tied weight
grow back under its other name. The same hook, holding every weight, makes of a training a
measurement: `train` then logs what it always logs, of a network that does not change.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import optuna
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from wwopt.compression.errors import CompressionError
from wwopt.compression.layers import Network
from wwopt.compression.plans import LayerPlan
from wwopt.compression.pruning import magnitude_mask
from wwopt.study.last_network import LastNetwork
from wwopt.wording import first_line

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
        conditions = replace(self.conditions, epochs=1)
        return dict(self.run(weights, conditions).numbers)

    def run(
        self,
        weights: Mapping[str, torch.Tensor],
        conditions: Any,
        *,
        masks: Mapping[str, torch.Tensor] | None = None,
    ) -> LastNetwork:
        """Train once from given weights on.

        Args:
            weights: to start from, a state dict.
            conditions: to train under.
            masks: by name, False where a weight is held at zero; None to hold all as it is.

        Raises:
            CompressionError: as of `measure`, or if the training diverges.
        """
        last = LastNetwork()
        start = _Start(self.hp, weights, masks)
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
        return last


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
    current = dict(weights)
    for number in range(1, retraining.rounds + 1):
        masks: dict[str, torch.Tensor] = {}
        for layer in network.layers:
            plan = plans.get(layer.name, LayerPlan())
            if plan.sparsity == 0.0:
                continue
            name = layer.tensor.name
            mask = magnitude_mask(current[name], plan.sparsity * number / retraining.rounds)
            for other in (name, *layer.tied):
                masks[other] = mask
                current[other] = current[other] * mask
        last = retraining.run(current, retraining.conditions, masks=masks)
        assert last.model is not None
        trained = last.model.state_dict()
        if not current.keys() <= trained.keys():
            raise CompressionError(
                "the model that train hands to recorder.step is not the one whose optimizer it "
                f"makes: it lacks {min(current.keys() - trained.keys())!r}"
            )
        current = {name: trained[name].detach().to("cpu", copy=True) for name in current}
    return current


class _Start:
    """Hyperparameters that put weights into the model whose optimizer they make, and hold some."""

    def __init__(
        self,
        hp: Any,
        weights: Mapping[str, torch.Tensor],
        masks: Mapping[str, torch.Tensor] | None,
    ) -> None:
        self._hp, self._weights, self._masks = hp, weights, masks
        self._own: Mapping[str, torch.Tensor] = {}  # the model's, once it is there
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
        """After every step of any optimizer, set back what is held."""
        handle = register_optimizer_step_post_hook(lambda *_: self._hold())
        try:
            yield
        finally:
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
        self._own = {name: own[name] for name in self._weights}
        self.entered = True

    @torch.no_grad()
    def _hold(self) -> None:
        if self._masks is None:
            for name, tensor in self._own.items():
                tensor.copy_(self._weights[name])
        else:
            for name, mask in self._masks.items():
                if name in self._own:
                    self._own[name].mul_(mask.to(self._own[name].device))


def _misfit(why: str) -> CompressionError:
    return CompressionError(f"the model that train makes does not take the weights: {why}")
