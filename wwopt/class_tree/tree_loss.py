"""The loss that teaches a network to decide well along its own tree.

    cross_entropy(logits, labels) + weight · (-log probability of the labels' paths)

Wan et al. 2021, section 3.3, with the weight of their code, 1. A node's vectors are means of rows,
so its inner products are means of the network's logits: the loss reads logits and needs no layer.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from wwopt.class_tree.hierarchy import Hierarchy
from wwopt.class_tree.inference import Paths

WEIGHT = 1.0  # of the tree's loss beside the network's


class TreeLoss(TorchFunctionMode):
    """The loss along a tree: to call in a training loop, or to enter around one that is not yours.

        loss = TreeLoss(tree.hierarchy)(logits, labels)      # instead of cross_entropy

        with TreeLoss(tree.hierarchy):                       # every cross_entropy over the classes
            train(hp, conditions, recorder)

    Inside the `with`, `torch.nn.functional.cross_entropy` and `nn.CrossEntropyLoss` add the tree's
    loss wherever their logits have one column a class and a gradient, the labels are numbers of
    classes and each counts alike; all else, a validation loss among it, is as it was.
    """

    def __init__(self, hierarchy: Hierarchy, *, weight: float = WEIGHT) -> None:
        super().__init__()
        self.hierarchy = hierarchy
        self.weight = weight
        self.added = 0  # times that the tree's loss was added

    @cached_property
    def _paths(self) -> Paths:
        return Paths(self.hierarchy)

    @cached_property
    def _means(self) -> torch.Tensor:
        """Logits, (n, C), times this are the mean logits below every node, (n, size)."""
        means = torch.zeros(len(self.hierarchy.names), self.hierarchy.size)
        for node, classes in self.hierarchy.classes.items():
            means[list(classes), node] = 1.0 / len(classes)
        return means

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The network's cross-entropy and the tree's, averaged over a batch.

        Args:
            logits: (n, C), of the network.
            labels: (n,), numbers of classes.
        """
        # Not by cross_entropy, to which an entered loss would add the tree's a second time.
        network = functional.nll_loss(logits.log_softmax(1), labels)
        return network + self.weight * self.of_tree(logits, labels)

    def of_tree(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The tree's part alone."""
        found = self._paths.log_probabilities(logits @ self._means.to(logits))
        return functional.nll_loss(found, labels)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Add the tree's loss to a cross-entropy over the classes."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is not functional.cross_entropy:
            return result
        given = dict(zip(("input", "target"), args, strict=False)) | kwargs
        logits, labels = given["input"], given["target"]
        plain = given.get("weight") is None and given.get("reduction", "mean") == "mean"
        classes = logits.ndim == 2 and logits.shape[1] == len(self.hierarchy.names)
        if not (plain and classes and logits.requires_grad and labels.dtype == torch.int64):
            return result
        self.added += 1
        return result + self.weight * self.of_tree(logits, labels)
