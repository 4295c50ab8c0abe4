"""A model that ignores how many items an optimizer step has is told from one that divides by it."""

from typing import Any

import pytest
import torch
from torch import nn

from wwopt.integrations.accumulated_losses import AccumulationWatch


class Model(nn.Module):
    """As Hugging Face's: `forward` has **kwargs and returns a dict with the loss."""

    def __init__(self, *, divides: bool) -> None:
        super().__init__()
        self.layer, self.divides = nn.Linear(4, 3), divides

    def forward(self, x: torch.Tensor, **kwargs: Any) -> dict[str, torch.Tensor]:
        losses = self.layer(x).square().sum(1)
        number = kwargs.get("num_items_in_batch")
        divided = self.divides and number is not None
        return {"loss": losses.sum() / number if divided else losses.mean()}


@pytest.mark.parametrize("number", [8, torch.tensor(8)])
@pytest.mark.parametrize("divides", [True, False])
def test_whether_the_number_is_ignored(divides: bool, number: Any) -> None:
    model, x = Model(divides=divides), torch.ones(4, 4)
    expected = model(x, num_items_in_batch=number)["loss"]
    watch = AccumulationWatch(model)
    found = model(x, num_items_in_batch=number)["loss"]
    assert watch.ignored is not divides
    assert torch.equal(found, expected)  # looking changes nothing
    found.backward()
    assert model.layer.weight.grad is not None
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_what_was_not_handed_a_number_is_not_judged() -> None:
    model = Model(divides=True)
    watch = AccumulationWatch(model)
    model(torch.ones(4, 4))
    model.eval()(torch.ones(4, 4), num_items_in_batch=8)
    assert watch.ignored is None and model._forward_hooks
    watch.close()
    assert not model._forward_hooks
