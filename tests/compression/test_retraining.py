"""Training on with what is pruned held at zero, and held whole as a measurement."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import wwopt
from wwopt.compression.budget import plan_budget
from wwopt.compression.compressed_networks import apply_plans
from wwopt.compression.compression import compress
from wwopt.compression.errors import CompressionError
from wwopt.compression.layers import list_layers
from wwopt.compression.plans import LayerPlan
from wwopt.compression.retraining import Retraining, retrain, retrain_rounded
from wwopt.compression.text import describe_recipe, format_compression

CONDITIONS = wwopt.Conditions(seed=3, epochs=2)
X = torch.randn(64, 24, generator=torch.Generator().manual_seed(0))
Y = X[:, :6].argmax(1)


class Tied(nn.Module):
    """Encodes and decodes by one matrix; its norm has buffers, which training moves."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(24, 24, bias=False)
        self.norm = nn.BatchNorm1d(24)
        self.decode = nn.Linear(24, 24, bias=False)
        self.decode.weight = self.encode.weight
        self.head = nn.Linear(24, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.decode(torch.relu(self.norm(self.encode(x)))))


HP = wwopt.LayerHyperparameters(
    lr={"encode": 0.05, "head": 0.05}, momentum={"encode": 0.9, "head": 0.9}
)


def train(hp: Any, conditions: Any, recorder: Any, *, groups: bool = False) -> None:
    model = Tied()
    if groups:
        parameters = hp.param_groups(model, torch.optim.AdamW)
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, weight_decay=0.1)
    else:
        optimizer = hp.optimizer(model, torch.optim.SGD)
    for _ in range(conditions.epochs):
        model.train()
        for batch in torch.randperm(64).split(16):
            loss = nn.functional.cross_entropy(model(X[batch]), Y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        accuracy = (model(X).argmax(1) == Y).double().mean().item()
        recorder.step(model, train_loss=loss.item(), accuracy=accuracy)


def make_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: value.clone() for name, value in Tied().state_dict().items()}


def train_well() -> dict[str, torch.Tensor]:
    return Retraining(train, HP, wwopt.Conditions(seed=0, epochs=40)).run(make_weights(), {})


@pytest.mark.parametrize("groups", [False, True])
def test_what_is_pruned_stays_zero_and_the_rest_is_trained(groups: bool) -> None:
    weights = make_weights()
    model = Tied()
    model.load_state_dict(weights)
    network = list_layers(model)
    plans = {"encode": LayerPlan(sparsity=0.75)}

    def with_groups(*arguments: Any) -> None:
        train(*arguments, groups=groups)

    found = retrain(Retraining(with_groups, HP, CONDITIONS, rounds=3), weights, network, plans)
    assert int((found["encode.weight"] == 0).sum()) == round(0.75 * 24 * 24)
    assert torch.equal(found["encode.weight"], found["decode.weight"])  # not grown back there
    assert list_layers(found)["encode"].tied == ("decode.weight",)  # and stored once
    assert not (found["head.weight"] == 0).any()
    assert not torch.equal(found["head.weight"], weights["head.weight"])


def test_a_measurement_is_that_of_the_network_as_it_is() -> None:
    weights = make_weights()
    weights["norm.running_mean"] += 0.3
    before = {name: value.clone() for name, value in weights.items()}
    numbers = Retraining(train, HP, CONDITIONS, rounds=0).measure(weights)
    model = Tied()
    model.load_state_dict(weights)
    model.eval()
    assert numbers["accuracy"] == (model(X).argmax(1) == Y).double().mean().item()
    assert all(torch.equal(weights[name], before[name]) for name in weights)


def test_training_on_mends_what_pruning_broke() -> None:
    weights = train_well()
    options: dict[str, Any] = {"sparsity": 0.9, "limits": False, "shuffles": 0}
    once, mended = (
        compress(
            weights,
            **options,
            retraining=Retraining(train, HP, wwopt.Conditions(seed=0, epochs=10), rounds=rounds),
        )
        for rounds in (0, 3)
    )
    assert once.rounds == 0 and mended.rounds == 3
    assert mended.zeros == pytest.approx(once.zeros) == pytest.approx(0.9, abs=0.01)
    assert mended.quality["accuracy"] > once.quality["accuracy"] + 0.1
    assert mended.bytes == once.bytes


def test_of_tied_weights_one_name_is_enough() -> None:
    weights = make_weights()
    del weights["decode.weight"]  # as a file has them
    found = retrain(
        Retraining(train, HP, CONDITIONS, rounds=1),
        weights,
        list_layers(weights),
        {"encode": LayerPlan(sparsity=0.5)},
    )
    assert found.keys() == weights.keys()
    assert int((found["encode.weight"] == 0).sum()) == 288


PLANS = {
    "encode": LayerPlan(bits=3, sparsity=0.5, compensate=True),
    "head": LayerPlan(bits=2, compensate=True),
}


def test_the_network_is_rounded_while_it_is_trained() -> None:
    """And the file has the network that `train` had in its last step."""
    seen: list[dict[str, torch.Tensor]] = []

    def watched(hp: Any, conditions: Any, recorder: Any) -> None:
        model = Tied()
        optimizer = hp.optimizer(model, torch.optim.SGD)
        for _ in range(6):
            seen.append({name: value.clone() for name, value in model.state_dict().items()})
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
        model.eval()
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        recorder.step(model, train_loss=1.0)

    weights = make_weights()
    found = retrain_rounded(
        Retraining(watched, HP, CONDITIONS, rounds=2), weights, list_layers(Tied()), PLANS
    )
    for state in seen:
        for name, levels in (("encode.weight", 7), ("head.weight", 3)):
            assert max(len(row.unique()) for row in state[name]) <= levels
    assert int((seen[0]["encode.weight"] == 0).sum()) >= 144  # a half of a half, in the first round
    assert int((found.weights["encode.weight"] == 0).sum()) >= 288
    assert not torch.equal(seen[0]["head.weight"], seen[-1]["head.weight"])
    assert found.weights.keys() == weights.keys() == seen[-1].keys()
    assert all(torch.equal(found.weights[name], seen[-1][name]) for name in weights)
    assert found.plans == {n: replace(plan, compensate=False) for n, plan in PLANS.items()}


def test_what_is_cut_to_a_rank_stays_as_it_was_cut() -> None:
    weights, model = make_weights(), Tied()
    model.load_state_dict(weights)
    network = list_layers(model)
    plans = {"encode": LayerPlan(bits=4, rank=5, compensate=True), "head": LayerPlan()}
    cut = apply_plans(network, plans)
    found = retrain_rounded(Retraining(train, HP, CONDITIONS, rounds=2), weights, network, plans)
    assert torch.equal(found.weights["encode.weight"], cut.weights["encode.weight"])
    assert not torch.equal(found.weights["head.weight"], weights["head.weight"])
    assert found.plans == plans and found.bytes == cut.bytes


def test_a_budget_is_kept_and_training_on_pays() -> None:
    def make_model() -> nn.Sequential:
        torch.manual_seed(0)
        hidden = nn.Linear(24, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU()
        return nn.Sequential(*hidden, nn.Linear(96, 6))

    def train_wide(hp: Any, conditions: Any, recorder: Any) -> None:
        model = make_model()
        optimizer = hp.optimizer(model, torch.optim.SGD)
        for _ in range(conditions.epochs):
            loss = nn.functional.cross_entropy(model(X), Y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            accuracy = (model(X).argmax(1) == Y).double().mean().item()
            recorder.step(model, train_loss=loss.item(), accuracy=accuracy)

    hp = wwopt.LayerHyperparameters(lr=dict.fromkeys("024", 0.3))
    conditions = wwopt.Conditions(seed=0, epochs=100)
    weights = Retraining(train_wide, hp, conditions).run(make_model().state_dict(), {})
    options: dict[str, Any] = {"budget": 1 / 12, "limits": False, "shuffles": 0}
    once, mended = (
        compress(weights, **options, retraining=Retraining(train_wide, hp, conditions, rounds=n))
        for n in (0, 2)
    )
    planned = plan_budget(weights, 1 / 12, trained_on=True)
    assert mended.bytes <= planned.bytes <= planned.budget
    wanted = {n: (p.bits, p.sparsity, p.rank) for n, p in planned.plans.items()}
    assert {n: (p.bits, p.sparsity, p.rank) for n, p in mended.network.plans.items()} == wanted
    assert mended.quality["train_loss"] < 0.5 * once.quality["train_loss"], (
        mended.quality,
        once.quality,
    )
    assert "before it was trained on" in format_compression(mended, width=160)
    assert describe_recipe(mended) == "a budget, 2 rounds"


def test_no_hook_is_left_behind() -> None:
    Retraining(train, HP, CONDITIONS).measure(make_weights())
    layer = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    before = layer.weight.detach().clone()
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, before)


def no_optimizer(hp: Any, conditions: Any, recorder: Any) -> None:
    recorder.step(Tied(), train_loss=1.0)


def other_model(hp: Any, conditions: Any, recorder: Any) -> None:
    hp.optimizer(nn.Sequential(nn.Linear(2, 2)), torch.optim.SGD)


def diverges(hp: Any, conditions: Any, recorder: Any) -> None:
    model = Tied()
    hp.optimizer(model, torch.optim.SGD)
    recorder.step(model, train_loss=float("nan"))


def wraps(hp: Any, conditions: Any, recorder: Any) -> None:
    model = Tied()
    hp.optimizer(model, torch.optim.SGD)
    recorder.step(nn.ModuleDict({"inner": model}), train_loss=1.0)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (no_optimizer, "asked hp for no optimizer"),
        (other_model, "does not take the weights: they lack .0.weight., there is no"),
        (diverges, "training on failed: training loss is nan"),
        (wraps, "not the one whose optimizer it makes"),
    ],
)
def test_says_why_a_training_cannot_go_on(broken: Callable[..., None], message: str) -> None:
    retraining = Retraining(broken, HP, CONDITIONS, rounds=1)
    network = list_layers(Tied())
    with pytest.raises(CompressionError, match=message):
        retrain(retraining, make_weights(), network, {"encode": LayerPlan(sparsity=0.5)})


def test_refuses_rounds_below_zero(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="0 or more, got -1"):
        Retraining(train, HP, CONDITIONS, rounds=-1)
