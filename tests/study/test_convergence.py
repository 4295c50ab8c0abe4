"""Layers that stop moving: told by their spectra, frozen in the optimizer."""

from collections import OrderedDict

import numpy as np
import optuna
import pytest
import torch
from torch import nn

import wwopt
from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.study.convergence import find_group, freeze_layers, judge_convergence
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters

RNG = np.random.default_rng(0)
TRAINED = RNG.standard_t(2.5, (100, 80))  # heavy-tailed
RANDOM = RNG.standard_normal((100, 80))


def metrics_of(spectrum_of, **layers: np.ndarray) -> ModelMetrics:
    return metrics_from_spectra([spectrum_of(W, name=n, shuffles=0) for n, W in layers.items()])


@pytest.mark.parametrize(
    ("scale", "remaining", "state"),
    [
        # Scaling by 1 + s moves the singular values by exactly the share s.
        (1.0009, 10, "stopped moving"),
        (1.0011, 10, "not stopped"),
        (1.0011, 9, "stopped moving"),
        (0.99, 10, "not stopped"),
    ],
)
def test_a_layer_stops_where_the_rest_of_training_moves_it_by_less_than_a_hundredth(
    spectrum_of, scale: float, remaining: int, state: str
) -> None:
    before = metrics_of(spectrum_of, fc=TRAINED)
    now = metrics_of(spectrum_of, fc=scale * TRAINED)
    found = judge_convergence(before, now, steps=1, remaining=remaining)["fc"]
    assert (found == "stopped moving") is (state == "stopped moving")
    # Twice the steps between the analyses are half the pace.
    slower = judge_convergence(before, now, steps=2, remaining=2 * remaining)["fc"]
    assert slower == found


def test_a_moving_layer_falls_or_rises_with_its_tail(spectrum_of) -> None:
    lighter = metrics_of(spectrum_of, fc=np.random.default_rng(1).standard_t(8.0, (100, 80)))
    heavier = metrics_of(spectrum_of, fc=TRAINED)
    assert heavier["fc"].hill < lighter["fc"].hill
    options = {"steps": 5, "remaining": 5}
    assert judge_convergence(lighter, heavier, **options) == {"fc": "still falling"}
    assert judge_convergence(heavier, lighter, **options) == {"fc": "rising"}


def test_a_layer_that_never_learned_has_not_converged(spectrum_of) -> None:
    before = metrics_of(spectrum_of, fc=RANDOM)
    found = judge_convergence(before, before, steps=5, remaining=5)
    assert found == {"fc": "still random"}


def test_what_cannot_be_judged_is_unknown(spectrum_of) -> None:
    small = np.random.default_rng(0).standard_normal((100, 10))
    now = metrics_of(spectrum_of, fc=TRAINED, out=small, new=TRAINED, broken=0 * TRAINED)
    before = metrics_of(spectrum_of, fc=TRAINED[:, :70], out=small, broken=TRAINED)
    options = {"steps": 1, "remaining": 1}
    assert set(judge_convergence(before, now, **options).values()) == {"unknown"}
    assert set(judge_convergence(None, now, **options).values()) == {"unknown"}


def test_the_pace_at_half_of_training_says_how_far_layers_still_move(zoo, zoo_records) -> None:
    """The figures in the module's docstring."""
    quarter, half, end = (zoo(checkpoint) for checkpoint in ("0.25", "0.5", "1.0"))
    later: dict[bool, list[float]] = {True: [], False: []}
    for record, *networks in zip(zoo_records, quarter, half, end, strict=True):
        if record["hist"]["1.0"]["tra"] <= 0.5:  # collapsed
            continue
        before, now = (metrics_from_spectra(network) for network in networks[:2])
        states = judge_convergence(before, now, steps=5, remaining=10)
        for old, new in zip(*networks[1:], strict=True):
            s, t = np.sqrt(old.eigenvalues), np.sqrt(new.eigenvalues)
            stopped = states[old.name] in ("stopped moving", "still random")
            later[stopped].append(float(np.linalg.norm(t - s) / np.linalg.norm(s)))
    assert len(later[True]) + len(later[False]) == 201
    assert len(later[True]) / 201 == pytest.approx(0.19, abs=0.01)
    assert np.median(later[True]) == pytest.approx(0.005, abs=0.001)
    assert np.quantile(later[True], 0.9) == pytest.approx(0.021, abs=0.001)
    assert np.median(later[False]) > 8 * np.median(later[True])


def mlp() -> nn.Sequential:
    layers = {f"fc{i}": nn.Linear(60, 60) for i in range(3)}
    return nn.Sequential(OrderedDict(layers, head=nn.Linear(60, 10)))


def optimizer_of(model: nn.Module) -> torch.optim.SGD:
    names = [name for name, _ in model.named_children()]
    hp = LayerHyperparameters(lr=dict.fromkeys(names, 0.1), momentum=dict.fromkeys(names, 0.9))
    return hp.optimizer(model, torch.optim.SGD)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    x = torch.randn(16, 60)
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def test_a_frozen_layer_stays_and_the_others_train_on() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = optimizer_of(model)
    train_step(model, optimizer)  # momentum would go on moving a layer without a gradient
    frozen = freeze_layers(optimizer, {"fc0": "stopped moving", "fc1": "still falling"})
    assert frozen == ("fc0",)
    before = {name: p.clone() for name, p in model.named_parameters()}
    train_step(model, optimizer)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"{n}.{p}" for n in ("fc1", "fc2", "head") for p in ("weight", "bias")}
    assert model.get_submodule("fc0").weight.grad is None
    assert freeze_layers(optimizer, {"fc0": "stopped moving"}) == ()


def test_one_group_always_trains() -> None:
    model = mlp()
    optimizer = optimizer_of(model)
    names = ("fc0", "fc1", "fc2", "head")
    assert freeze_layers(optimizer, dict.fromkeys(names, "stopped moving")) == names[:3]
    train_step(model, optimizer)


def test_a_module_of_several_matrices_freezes_when_all_have_stopped() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 1)
    space = wwopt.LayerSpace.from_model(model, lr=(0.1, 1.0), dropout=None, momentum=None)
    hp = space.suggest(optuna.create_study().ask())
    optimizer = hp.optimizer(model, torch.optim.SGD)
    attention = "layers.0.self_attn"
    states = {f"{attention}.in_proj.{part}": "stopped moving" for part in "qkv"}
    assert find_group(optimizer, f"{attention}.out_proj") == f"{attention}.out_proj"
    assert find_group(optimizer, "nowhere") is None
    one_moves = states | {f"{attention}.in_proj.k": "rising"}
    assert freeze_layers(optimizer, one_moves) == ()
    assert freeze_layers(optimizer, states) == (attention,)


def test_an_optimizer_without_names_is_refused() -> None:
    optimizer = torch.optim.SGD(mlp().parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"groups have no names; make it with hp\.optimizer"):
        freeze_layers(optimizer, {"fc0": "stopped moving"})


def test_the_recorder_tells_at_its_second_analysis() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(fc=nn.Linear(60, 60), head=nn.Linear(60, 10)))
    with torch.no_grad():
        model.get_submodule("fc").weight.copy_(torch.as_tensor(TRAINED[:60, :60] * 0.1))
    advice = []
    with wwopt.record(optuna.create_study().ask(), epochs=8) as recorder:
        for epoch in range(8):
            if epoch == 7:
                with torch.no_grad():
                    model.get_submodule("fc").weight.mul_(1.5)
            advice.append(recorder.step(model, train_loss=1.0 / (epoch + 1)))
    assert [dict(a.convergence) for a in advice[:3]] == [{}] * 3
    assert advice[3].convergence == {"fc": "unknown", "head": "unknown"}
    assert advice[5].convergence == {"fc": "stopped moving", "head": "unknown"}
    assert advice[5].converged == ("fc",)
    assert advice[7].convergence["fc"] in ("still falling", "rising")
