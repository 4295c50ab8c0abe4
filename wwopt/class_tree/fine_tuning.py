"""Train a network on along its tree, by the `train` of a study that knows nothing of trees."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.hierarchy import Hierarchy
from wwopt.class_tree.tree_loss import WEIGHT, TreeLoss


def fine_tune(
    train: Callable[[Any, Any, Any], object],
    hierarchy: Hierarchy,
    *,
    weights: Mapping[str, torch.Tensor],
    hp: Any,
    conditions: Any,
    recorder: Any,
    loss_weight: float = WEIGHT,
) -> None:
    """Call a study's `train` from given weights on, with the tree's loss added to its own.

    The weights enter the model when `train` asks `hp` for its optimizer, as every study's does; the
    tree's loss enters every `cross_entropy` over the classes. The recorder ends with the network.

    Args:
        train: a study's, `StudySpec.train`.
        hierarchy: of the classes; it stays, so that the network learns to decide along it.
        weights: to start from, the trained network's `state_dict()`.
        hp: `wwopt.LayerHyperparameters`; neural-backed decision trees fine-tune at a rate of .01.
        conditions: `wwopt.Conditions`, with the epochs to train on.
        recorder: `wwopt.study.LastNetwork()`, or any that takes a study's steps.
        loss_weight: of the tree's loss beside the network's.

    Raises:
        ClassTreeError: if `train` asks for no optimizer, its model does not take the weights, or it
            computes no cross-entropy over the classes.
    """
    start = _Start(hp, weights)
    with TreeLoss(hierarchy, weight=loss_weight) as loss:
        train(start, conditions, recorder)
    if not start.entered:
        raise ClassTreeError(
            "train asked hp for no optimizer (hp.optimizer, hp.param_groups), so that it trained a "
            "new network; load the weights in it and train with TreeLoss"
        )
    if not loss.added:
        raise ClassTreeError(
            f"train computed no cross-entropy over {len(hierarchy.names)} classes; train with "
            f"TreeLoss in its place"
        )


class _Start:
    """Hyperparameters that put the weights into the model whose optimizer they make."""

    def __init__(self, hp: Any, weights: Mapping[str, torch.Tensor]) -> None:
        self._hp, self._weights, self.entered = hp, weights, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hp, name)

    def optimizer(self, model: nn.Module, cls: Any, **defaults: Any) -> Any:
        self._enter(model)
        return self._hp.optimizer(model, cls, **defaults)

    def param_groups(self, model: nn.Module, cls: Any, **options: Any) -> Any:
        self._enter(model)
        return self._hp.param_groups(model, cls, **options)

    def _enter(self, model: nn.Module) -> None:
        try:
            model.load_state_dict(dict(self._weights))
        except RuntimeError as error:
            raise ClassTreeError(
                f"the model that train makes does not take the weights: {error}".partition("\n")[0]
            ) from error
        self.entered = True
