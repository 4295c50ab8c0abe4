"""Every optimizer of torch is told from a network by its state, and keys are read word by word."""

from collections.abc import Callable

import pytest
import torch
from torch import nn, optim

from wwopt.weights.files.checkpoint_keys import (
    is_network,
    is_optimizer,
    is_trainers,
    says_copy,
    says_model,
    survey,
)

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: optim.Adam(p, amsgrad=True),
    "Adamax": optim.Adamax,
    "Adagrad": optim.Adagrad,
    "Adadelta": optim.Adadelta,
    "Adafactor": optim.Adafactor,
    "RMSprop": lambda p: optim.RMSprop(p, momentum=0.9, centered=True),
    "Rprop": optim.Rprop,
    "LBFGS": optim.LBFGS,
}


def train(model: nn.Module, make: Callable[..., optim.Optimizer]) -> optim.Optimizer:
    optimizer = make(model.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(2, 6)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_told_whatever_its_key(name: str) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    state = train(model, OPTIMIZERS[name]).state_dict()
    assert is_optimizer("my_thing", state)
    assert not survey({"my_thing": state}).tensors
    assert is_network(model.state_dict()) and not is_optimizer("my_thing", model.state_dict())


@pytest.mark.parametrize("name", ["momentum", "Adam", "Adamax", "Adadelta", "Adafactor", "RMSprop"])
def test_so_are_its_moments_alone(name: str) -> None:
    state = train(nn.Linear(6, 5), OPTIMIZERS[name]).state_dict()["state"]
    assert is_optimizer("moments", state) and is_optimizer("0", state[0])  # of a matrix


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        *((key, "model") for key in ("model", "model_state", "modelStateDict", "NET", "weights")),
        *((key, "model") for key in ("params", "network_weights", "model_0", "module")),
        *((key, "copy") for key in ("ema", "state_dict_ema", "model_ema", "swaModel", "ema_1")),
        *((key, "trainer") for key in ("optimizer_states", "lr_schedulers", "amp_scaler")),
        *((key, "trainer") for key in ("cuda_rng_state", "callbacks", "loops", "args", "optim")),
        *((key, "") for key in ("generator", "netG", "my_model", "scalers", "optimal", "sema", "")),
        *((key, "") for key in (3, None, ("model",), "model" * 100)),
    ],
)
def test_keys_are_read_word_by_word(key: object, kind: str) -> None:
    said = {"model": says_model(key), "copy": says_copy(key), "trainer": is_trainers(key)}
    assert [word for word, yes in said.items() if yes] == [kind] * bool(kind)


def test_a_survey_counts_what_lies_below() -> None:
    state = {"fc.weight": torch.ones(3, 2), "fc.bias": torch.ones(3), "fc.steps": torch.tensor(1)}
    value = {"a": state, "b": [torch.ones(2, 2)], "optimizer": {"m": torch.ones(3, 2)}, "c": 3}
    content = survey(value)
    assert (content.tensors, content.numbers, content.matrices, content.networks) == (3, 10, 1, 1)
    assert survey(value, whole=True).tensors == 5
    lazy = survey({"a": nn.LazyLinear(3).weight, "b": torch.eye(3).to_sparse()})
    assert (lazy.tensors, lazy.matrices) == (2, 1)


def test_scalars_of_dotted_names_are_no_network() -> None:
    assert not is_network({"train.loss": torch.tensor(0.1), "epoch": 3})
