"""Whether a model averages its loss over the gradient accumulation, as Trainer takes for granted.

Since transformers 4.46 Trainer hands a model whose `forward` has `**kwargs` the number of items in
all micro-batches of an optimizer step (`num_items_in_batch`) and leaves the mean to it. A model
that takes the number and ignores it, as BertForSequenceClassification does, trains on a loss and a
gradient that are too large by the number of micro-batches.
"""

from typing import Any

import torch
from torch import nn

ITEMS = "num_items_in_batch"


class AccumulationWatch:
    """Looks at a model's first training forward; `ignored` says what came out."""

    def __init__(self, model: nn.Module) -> None:
        self.ignored: bool | None = None  # None: not known, or not handed the number at all
        self._items: torch.Tensor | None = None
        self._hooks = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after),
        ]

    def close(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def _before(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        items = kwargs.get(ITEMS)
        if items is None or not model.training:
            return None
        # A number that a gradient is asked of tells whether the loss depends on it.
        self._items = torch.as_tensor(items, dtype=torch.float32).detach().requires_grad_()
        return args, {**kwargs, ITEMS: self._items}

    def _after(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._items is None:
            return
        self.close()
        loss = output.get("loss") if isinstance(output, dict) else None
        if loss is not None and loss.requires_grad:
            (gradient,) = torch.autograd.grad(
                loss, self._items, torch.ones_like(loss), retain_graph=True, allow_unused=True
            )
            self.ignored = gradient is None
