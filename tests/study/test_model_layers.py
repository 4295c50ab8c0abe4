"""Every parameter and dropout belongs to one layer, whatever lies between layers."""

from collections import OrderedDict

import torch
from fixtures.spaces import ask, mlp, space_of
from torch import nn


def test_a_norm_and_a_bias_follow_their_layer() -> None:
    model = mlp()
    groups = space_of(model).suggest(ask()).param_groups(model, torch.optim.SGD)
    by_name = {group["name"]: {id(p) for p in group["params"]} for group in groups}
    assert by_name["fc1"] == {
        id(p)
        for module in (model.get_submodule("fc1"), model.get_submodule("norm1"))
        for p in module.parameters()
    }


def test_layers_left_out_follow_the_included_layer_before_them() -> None:
    model = mlp()
    groups = (
        space_of(model, include=["fc1", "fc3"]).suggest(ask()).param_groups(model, torch.optim.SGD)
    )
    by_name = {group["name"]: {id(p) for p in group["params"]} for group in groups}
    assert list(by_name) == ["fc1", "fc3"]
    assert {id(p) for p in model.get_submodule("fc0").parameters()} <= by_name["fc1"]
    assert {id(p) for p in model.get_submodule("fc2").parameters()} <= by_name["fc1"]
    assert {id(p) for p in model.get_submodule("head").parameters()} <= by_name["fc3"]


def test_a_tied_weight_is_trained_once() -> None:
    model = nn.ModuleDict({"emb": nn.Embedding(80, 60), "out": nn.Linear(60, 80, bias=False)})
    model["out"].weight = model["emb"].weight
    hp = space_of(model, dropout=None).suggest(ask())
    groups = hp.param_groups(model, torch.optim.SGD)
    assert sum(len(group["params"]) for group in groups) == 1


def test_a_weight_norm_layer_is_one_layer() -> None:
    model = nn.Sequential(OrderedDict(fc=nn.Linear(60, 60), out=nn.Linear(60, 60)))
    nn.utils.parametrizations.weight_norm(model.get_submodule("fc"))
    space = space_of(model, dropout=None)
    assert space.layers == ("fc", "out")
    groups = space.suggest(ask()).param_groups(model, torch.optim.SGD)
    assert [len(group["params"]) for group in groups] == [3, 2]  # g, v and bias; weight and bias
