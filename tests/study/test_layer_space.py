"""The search space: what is suggested, and that training really uses it."""

import math
from collections import OrderedDict

import optuna
import pytest
import torch
from torch import nn

from wwopt.study.layer_hyperparameters import LayerHyperparameters
from wwopt.study.layer_space import LayerSpace


def mlp(depth: int = 5) -> nn.Sequential:
    layers: dict[str, nn.Module] = {}
    for i in range(depth - 1):
        layers |= {f"fc{i}": nn.Linear(60, 60), f"norm{i}": nn.LayerNorm(60), f"relu{i}": nn.ReLU()}
        layers[f"drop{i}"] = nn.Dropout()
    return nn.Sequential(OrderedDict(layers, head=nn.Linear(60, 10)))


def space_of(model: nn.Module, **options: object) -> LayerSpace:
    ranges = {"lr": (1e-3, 1.0), "dropout": (0.0, 0.5), "momentum": (0.0, 0.9)}
    return LayerSpace.from_model(model, **(ranges | options))  # type: ignore[arg-type]


def fixed(**params: float) -> optuna.trial.FixedTrial:
    return optuna.trial.FixedTrial({name.replace("__", "/"): v for name, v in params.items()})


def ask() -> optuna.Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()


@pytest.mark.parametrize(
    ("tie", "learning_rates"),
    [
        ("global", {"lr/all"}),
        ("depth", {"lr/depth=first", "lr/depth=middle", "lr/depth=last"}),
        ("layer", {f"lr/{name}" for name in ("fc0", "fc1", "fc2", "fc3", "head")}),
    ],
)
def test_a_tie_decides_what_is_sampled_and_every_layer_gets_a_value(
    tie: str, learning_rates: set[str]
) -> None:
    trial = ask()
    hp = space_of(mlp(), tie=tie).suggest(trial)
    assert {name for name in trial.params if name.startswith("lr/")} == learning_rates
    assert list(hp.lr) == ["fc0", "fc1", "fc2", "fc3", "head"]
    assert list(hp.dropout) == ["fc0", "fc1", "fc2", "fc3"]  # nothing drops the head's output


def test_blocks_are_layers_that_agree_up_to_their_first_number() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2)
    trial = ask()
    hp = space_of(model, tie="block").suggest(trial)
    assert {n for n in trial.params if n.startswith("lr/")} == {"lr/layers.0", "lr/layers.1"}
    assert hp.lr["layers.0.linear1"] == hp.lr["layers.0.self_attn"]
    assert hp.lr["layers.0.linear1"] != hp.lr["layers.1.linear1"]


def test_the_depth_profile_is_linear_in_the_logarithm_of_the_learning_rate() -> None:
    trial = optuna.trial.FixedTrial(
        {"lr/depth=first": 0.001, "lr/depth=middle": 0.1, "lr/depth=last": 0.1}
    )
    space = space_of(mlp(), dropout=None, momentum=None)
    rates = space.suggest(trial).lr
    assert rates["fc0"] == pytest.approx(0.001)
    assert rates["fc1"] == pytest.approx(0.01)  # half-way between the first two knots
    assert [rates["fc2"], rates["fc3"]] == pytest.approx([0.1, 0.1])


def test_the_depth_profile_is_linear_in_momentum() -> None:
    trial = optuna.trial.FixedTrial(
        {f"lr/depth={knot}": 0.1 for knot in ("first", "middle", "last")}
        | {"momentum/depth=first": 0.0, "momentum/depth=middle": 0.8, "momentum/depth=last": 0.4}
    )
    momenta = space_of(mlp(), dropout=None).suggest(trial).momentum
    assert [round(m, 12) for m in momenta.values()] == [0.0, 0.4, 0.8, 0.6, 0.4]


def test_suggested_values_lie_in_their_ranges_and_in_the_trial() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        trial = study.ask()
        hp = space_of(mlp()).suggest(trial)
        assert all(1e-3 <= rate <= 1.0 for rate in hp.lr.values())
        assert all(0.0 <= rate <= 0.5 for rate in hp.dropout.values())
        assert trial.user_attrs["hyperparameters"] == hp.to_dict()


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


def test_a_norm_and_a_bias_follow_their_layer() -> None:
    model = mlp()
    groups = space_of(model).suggest(ask()).param_groups(model, torch.optim.SGD)
    by_name = {group["name"]: {id(p) for p in group["params"]} for group in groups}
    assert by_name["fc1"] == {
        id(p)
        for module in (model.get_submodule("fc1"), model.get_submodule("norm1"))
        for p in module.parameters()
    }


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["fc0", "fc9"]}, "unknown layer 'fc9'; the model's layers are fc0, fc1"),
        (
            {"tie": "column"},
            "unknown tie 'column'; known: global, block, depth, layer, coarse-to-fine",
        ),
        ({"lr": (0.0, 1.0)}, r"lr must be \(low, high\) with 0 < low <= high < inf, got \(0, 1\)"),
        ({"lr": (1.0, 0.1)}, r"lr must be .* got \(1, 0.1\)"),
        ({"dropout": (0.0, 1.0)}, r"dropout must be .* got \(0, 1\)"),
        ({"momentum": (0.0, math.nan)}, r"momentum must be .* got \(0, nan\)"),
    ],
)
def test_says_what_is_wrong_with_a_space(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space_of(mlp(), **options)


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="Sequential has no layer with a weight matrix"):
        space_of(nn.Sequential(nn.ReLU()))


def test_a_trial_of_another_architecture_is_refused() -> None:
    hp = LayerHyperparameters(lr={"conv1": 0.1})
    with pytest.raises(ValueError, match="the model has no layer 'conv1'"):
        hp.param_groups(mlp(), torch.optim.SGD)
