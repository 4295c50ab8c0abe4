"""Every parameter and dropout belongs to one layer, whatever lies between layers."""

from collections import OrderedDict

import torch
from fixtures.networks.spaces import ask, mlp, space_of
from torch import nn

from wwopt.study.space.model_layers import find_output_dropouts


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


class Attention(nn.Module):
    """Keeps its dropout as a number, and defines its output projection first, as Phi-3's does."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_dropout = 0.0
        self.scaling = 0.5
        self.o_proj, self.qkv_proj = nn.Linear(60, 60), nn.Linear(60, 180)


def test_an_attention_that_keeps_its_rate_as_a_number_is_set() -> None:
    model = nn.ModuleDict({"a": Attention(), "b": Attention(), "head": nn.Linear(60, 10)})
    space = space_of(model, tie="layer")
    assert space.dropout_layers == ("a.qkv_proj", "b.qkv_proj")
    hp = space.suggest(ask())
    hp.apply_dropout(model)
    for name in ("a", "b"):
        attention = model[name]
        assert attention.attention_dropout == hp.dropout[f"{name}.qkv_proj"] > 0.0
        assert attention.scaling == 0.5


def test_torchs_own_attention_keeps_its_rate() -> None:
    attention = nn.MultiheadAttention(64, 4, dropout=0.2)
    assert find_output_dropouts(attention) == {}


def test_a_space_says_what_each_rate_governs() -> None:
    model = nn.ModuleDict(
        {"emb": nn.Embedding(80, 60), "norm": nn.LayerNorm(60), "out": nn.Linear(60, 80)}
    )
    model["out"].weight = model["emb"].weight
    model["last"] = nn.Linear(60, 10).requires_grad_(False)
    frame = space_of(model, dropout=None).to_frame().set_index("layer")
    assert list(frame.index) == ["emb", "last"] and list(frame["eigenvalues"]) == [60, 10]
    assert frame.loc["emb", "kind"] == "Embedding"
    expected = "weight, out.weight, norm.weight, norm.bias, out.bias"
    assert frame.loc["emb", "governs"] == expected
    assert frame.loc["last", "governs"] == ""


def test_a_weight_norm_layer_is_one_layer() -> None:
    model = nn.Sequential(OrderedDict(fc=nn.Linear(60, 60), out=nn.Linear(60, 60)))
    nn.utils.parametrizations.weight_norm(model.get_submodule("fc"))
    space = space_of(model, dropout=None)
    assert space.layers == ("fc", "out")
    groups = space.suggest(ask()).param_groups(model, torch.optim.SGD)
    assert [len(group["params"]) for group in groups] == [3, 2]  # g, v and bias; weight and bias
