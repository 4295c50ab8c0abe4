"""The search space: what is sampled, and the value that each layer gets of it."""

import math

import optuna
import pytest
from fixtures.networks.spaces import ask, mlp, space_of
from torch import nn


def fixed(**params: float) -> optuna.trial.FixedTrial:
    return optuna.trial.FixedTrial({name.replace("__", "/"): v for name, v in params.items()})


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
