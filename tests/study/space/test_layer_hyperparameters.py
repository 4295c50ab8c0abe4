"""Training really uses each layer's own rate, momentum, decay and dropout."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fixtures.networks.spaces import ask, mlp, space_of
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from wwopt.study.space.layer_hyperparameters import LayerHyperparameters


def test_every_parameter_is_in_exactly_one_group_with_its_layers_own_values() -> None:
    model = mlp()
    hp = space_of(model, tie="layer", weight_decay=(1e-6, 1e-2)).suggest(ask())
    optimizer = hp.optimizer(model, torch.optim.SGD, nesterov=False)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    for group in optimizer.param_groups:
        name = group["name"]
        assert group["lr"] == hp.lr[name]
        assert group["momentum"] == hp.momentum[name]
        assert group["weight_decay"] == hp.weight_decay[name]


def test_each_group_trains_at_its_own_learning_rate() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(a=nn.Linear(60, 60), b=nn.Linear(60, 60)))
    hp = LayerHyperparameters(lr={"a": 0.5, "b": 0.0625}, momentum={"a": 0.0, "b": 0.0})
    optimizer = hp.optimizer(model, torch.optim.SGD)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model(torch.randn(8, 60)).square().sum().backward()
    optimizer.step()
    for name, p in model.named_parameters():
        assert p.grad is not None
        rate = hp.lr[name.split(".")[0]]
        torch.testing.assert_close(before[name] - p, rate * p.grad, rtol=1e-4, atol=1e-5)


def trained(
    cls: type[torch.optim.Optimizer], hp: LayerHyperparameters, *, steps: int, **defaults: object
) -> dict[str, tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]]:
    """Parameter → its value at first, its gradients and its value after some steps in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(a=nn.Linear(60, 60), b=nn.Linear(60, 60))).double()
    optimizer = hp.optimizer(model, cls, **defaults)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients: dict[str, list[torch.Tensor]] = {name: [] for name in start}
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 60, dtype=torch.double)).square().sum().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            gradients[name].append(p.grad.clone())
        optimizer.step()
    end = {name: p.detach() for name, p in model.named_parameters()}
    return {name: (start[name], gradients[name], end[name]) for name in start}


TWO = LayerHyperparameters(
    lr={"a": 1e-3, "b": 2e-3}, momentum={"a": 0.5, "b": 0.9}, weight_decay={"a": 0.1, "b": 0.3}
)


def test_two_steps_of_sgd_have_each_layers_rate_momentum_and_decay() -> None:
    for name, (w, (g1, g2), end) in trained(torch.optim.SGD, TWO, steps=2).items():
        lr, mu, decay = (getattr(TWO, k)[name[0]] for k in ("lr", "momentum", "weight_decay"))
        velocity = g1 + decay * w
        middle = w - lr * velocity
        velocity = mu * velocity + g2 + decay * middle
        torch.testing.assert_close(end, middle - lr * velocity, rtol=1e-12, atol=1e-14)


def test_two_steps_of_adamw_have_each_layers_rate_beta1_and_decay() -> None:
    beta2, eps = 0.95, 1e-8
    steps = trained(torch.optim.AdamW, TWO, steps=2, betas=(0.7, beta2))  # .7 gives way, .95 stays
    for name, (w, (g1, g2), end) in steps.items():
        lr, beta1, decay = (getattr(TWO, k)[name[0]] for k in ("lr", "momentum", "weight_decay"))
        middle = w * (1 - lr * decay) - lr * g1 / (g1.abs() + eps)
        m = (beta1 * (1 - beta1) * g1 + (1 - beta1) * g2) / (1 - beta1**2)
        v = (beta2 * (1 - beta2) * g1**2 + (1 - beta2) * g2**2) / (1 - beta2**2)
        expected = middle * (1 - lr * decay) - lr * m / (v.sqrt() + eps)
        torch.testing.assert_close(end, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "cls", [torch.optim.SGD, torch.optim.Adam, torch.optim.NAdam, torch.optim.RMSprop]
)
def test_optimizers_that_know_the_names_train_by_them(cls: type[torch.optim.Optimizer]) -> None:
    """The same values for both layers as one group, against one group a layer."""
    same = LayerHyperparameters(
        **{
            kind: dict.fromkeys("ab", getattr(TWO, kind)["a"])
            for kind in ("lr", "momentum", "weight_decay")
        }
    )
    key = {"betas": (0.5, 0.999)} if "Adam" in cls.__name__ else {"momentum": 0.5}
    plain = LayerHyperparameters(lr=same.lr)
    ours = trained(cls, same, steps=3)
    theirs = trained(cls, plain, steps=3, weight_decay=0.1, **key)
    for name, (_, _, end) in ours.items():
        torch.testing.assert_close(end, theirs[name][2], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("schedule", "kept"),
    [
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 20), True),
        (lambda o: lr_scheduler.LinearLR(o), True),
        (lambda o: lr_scheduler.OneCycleLR(
            o, [g["lr"] for g in o.param_groups], total_steps=20, cycle_momentum=False), True),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20), False),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 20, eta_min=1e-3), False),
        (lambda o: lr_scheduler.CyclicLR(o, 1e-3, 0.1, 5), False),
    ],
)  # fmt: skip
def test_schedules_that_keep_the_ratio_of_two_layers_and_those_that_do_not(
    schedule: Callable[[torch.optim.Optimizer], LRScheduler], kept: bool
) -> None:
    """docs/transformers.md lists them."""
    model = nn.Sequential(OrderedDict(a=nn.Linear(2, 2), b=nn.Linear(2, 2)))
    hp = LayerHyperparameters(lr={"a": 0.1, "b": 0.01}, momentum={"a": 0.8, "b": 0.9})
    optimizer = hp.optimizer(model, torch.optim.AdamW)
    scheduler = schedule(optimizer)
    for _ in range(15):
        optimizer.step()
        scheduler.step()
    first, second = optimizer.param_groups
    assert (first["lr"] / second["lr"] == pytest.approx(10.0)) is kept
    if kept:
        assert (first["betas"][0], second["betas"][0]) == (0.8, 0.9)


def test_momentum_is_beta1_for_adam() -> None:
    model = mlp()
    hp = space_of(model).suggest(ask())
    for group in hp.optimizer(model, torch.optim.AdamW).param_groups:
        assert group["betas"] == (hp.momentum[group["name"]], 0.999)
        assert "momentum" not in group


def test_an_optimizer_without_momentum_is_refused_by_name() -> None:
    model = mlp()
    with pytest.raises(ValueError, match="Adagrad has neither momentum nor betas"):
        space_of(model).suggest(ask()).optimizer(model, torch.optim.Adagrad)


def test_every_dropout_really_drops_what_was_suggested() -> None:
    torch.manual_seed(0)
    model = mlp()
    hp = space_of(model, tie="layer").suggest(ask())
    hp.apply_dropout(model)
    ones = torch.ones(200_000)
    for i in range(4):
        dropped = (model.get_submodule(f"drop{i}")(ones) == 0).double().mean().item()
        assert dropped == pytest.approx(hp.dropout[f"fc{i}"], abs=0.005)


def test_a_forward_pass_in_training_drops_each_layer_at_its_own_rate() -> None:
    """Through the whole model: what reaches the next layer is zero at the suggested rate."""
    torch.manual_seed(0)
    model = nn.Sequential(
        OrderedDict(
            a=nn.Linear(60, 60), drop_a=nn.Dropout(), b=nn.Linear(60, 60), drop_b=nn.Dropout()
        )
    )
    LayerHyperparameters(lr={"a": 0.1}, dropout={"a": 0.1, "b": 0.45}).apply_dropout(model)
    shares = {}
    for name in ("a", "b"):
        model.get_submodule(f"drop_{name}").register_forward_hook(
            lambda _, __, y, name=name: shares.update({name: (y == 0).double().mean().item()})
        )
    model(torch.randn(4000, 60))  # 240,000 draws: a standard error of .001
    assert shares == pytest.approx({"a": 0.1, "b": 0.45}, abs=0.005)
    model.eval()(torch.randn(100, 60))
    assert shares == {"a": 0.0, "b": 0.0}


def test_dropout_for_a_layer_without_one_is_refused_by_name() -> None:
    hp = LayerHyperparameters(lr={"head": 0.1}, dropout={"head": 0.2})
    with pytest.raises(ValueError, match=r"layer 'head' has dropout 0\.2 but no nn.Dropout"):
        hp.apply_dropout(mlp())


def test_functional_dropout_is_the_models_own_business() -> None:
    space = space_of(mlp(), functional_dropout=["head"])
    hp = space.suggest(ask())
    hp.apply_dropout(mlp())
    assert 0.0 <= hp.dropout["head"] <= 0.5


def test_a_checkpoint_that_holds_them_is_read_without_unpickling_anything_else(
    tmp_path: Path,
) -> None:
    torch.save({"hyper_parameters": {"hp": TWO}}, tmp_path / "last.ckpt")
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert stored["hyper_parameters"]["hp"] == TWO


def test_a_trial_of_another_architecture_is_refused() -> None:
    hp = LayerHyperparameters(lr={"conv1": 0.1})
    with pytest.raises(ValueError, match="the model has no layer 'conv1'"):
        hp.param_groups(mlp(), torch.optim.SGD)
