"""What trainers save around a model is set aside, and where two could be meant one is asked."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.weights.matrices import by_name
from torch import nn

import wwopt
from wwopt.weights.files.training_checkpoints import NoChoiceError, find_model
from wwopt.weights.matrices import Weights, read_weights
from wwopt.weights.stored_tensors import WeightsError


def make_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))


NETWORK = make_network()
PLAIN = NETWORK.state_dict()
OTHER = make_network(1).state_dict()


def states_of_training() -> dict[str, Any]:
    """What trainers keep beside the model, as torch's own parts write it."""
    network = make_network()
    adam = torch.optim.AdamW(network.parameters())
    sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    factored = torch.optim.Adafactor(network.parameters())
    for optimizer in (adam, sgd, factored):
        optimizer.zero_grad()
        network(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=0.1, total_steps=9)
    return {
        "adam": adam.state_dict(),
        "sgd": sgd.state_dict(),
        "factored": factored.state_dict(),
        "schedule": schedule.state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "rng": torch.get_rng_state(),
    }


KEPT = states_of_training()
TRAINERS: dict[str, dict[str, Any]] = {
    "torch's tutorial": {
        "epoch": 5,
        "model_state_dict": PLAIN,
        "optimizer_state_dict": KEPT["adam"],
        "loss": torch.tensor(0.4),
    },
    "Lightning": {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": PLAIN,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 3}}}},
        "callbacks": {"EMA": {"weights": OTHER}, "ModelCheckpoint{}": {"best": torch.tensor(0.1)}},
        "optimizer_states": [KEPT["adam"], KEPT["sgd"]],
        "lr_schedulers": [KEPT["schedule"]],
        "MixedPrecision": KEPT["scaler"],
        "hyper_parameters": {"lr": 0.1, "anchors": torch.ones(9, 2)},
    },
    "timm": {
        "epoch": 9,
        "arch": "resnet",
        "state_dict": PLAIN,
        "optimizer": KEPT["sgd"],
        "version": 2,
        "args": {"lr": 0.1},
        "amp_scaler": KEPT["scaler"],
        "state_dict_ema": OTHER,
        "metric": 71.2,
    },
    "fairseq": {
        "args": None,
        "model": PLAIN,
        "criterion": {"weight": torch.ones(3)},
        "optimizer_history": [{"optimizer_name": "FairseqAdam", "num_updates": 4}],
        "last_optimizer_state": KEPT["adam"],
        "extra_state": {"train_iterator": {"epoch": 1}},
    },
    "resemblyzer": {"step": 4, "model_state": PLAIN, "optimizer_state": KEPT["adam"]},
    "chgnet": {
        "model": {"model_args": {"n_conv": 4}, "state_dict": PLAIN},
        "optimizer": KEPT["adam"],
        "scheduler": KEPT["schedule"],
        "training_history": {"e": {"train": [0.1]}},
    },
    "nnU-Net": {
        "network_weights": PLAIN,
        "optimizer_state": KEPT["sgd"],
        "grad_scaler_state": KEPT["scaler"],
        "logging": {"ema_fg_dice": [0.1]},
    },
    "BasicSR": {"params": PLAIN, "params_ema": OTHER},
    "nobody's keys": {"n": 4, "thing": PLAIN, "m1": KEPT["factored"], "m2": KEPT["adam"]["state"]},
    "nested in nobody's": {"a": {"b": {"c": PLAIN, "o": KEPT["sgd"]}, "p": KEPT["adam"]}},
    "tensors beside": {"rng_state": KEPT["rng"], "model": PLAIN, "class_weights": torch.ones(3, 2)},
    "only a copy": {"ema_state_dict": PLAIN, "optimizer": KEPT["adam"]},
    "the model twice": {"model": PLAIN, "state_dict": PLAIN, "optimizer": KEPT["adam"]},
}


def same_layers(found: Weights, expected: Mapping[str, torch.Tensor]) -> bool:
    layers, others = by_name(found), by_name(read_weights(expected))
    return list(layers) == list(others) and all(
        torch.equal(layers[name], others[name]) for name in others
    )


@pytest.mark.parametrize("trainer", TRAINERS)
def test_only_the_networks_layers_are_read(tmp_path: Path, trainer: str) -> None:
    checkpoint = TRAINERS[trainer]
    torch.save(checkpoint, tmp_path / "last.ckpt")
    for source in (checkpoint, tmp_path / "last.ckpt"):
        weights = read_weights(source)
        assert same_layers(weights, PLAIN)
        assert weights.parameters == read_weights(PLAIN).parameters
    # Nothing is left out in silence: each key is that of the model, or has its reason.
    flat = {key.partition(".")[0] for key in weights.skipped}
    assert sum(key not in flat for key in checkpoint) <= 1
    assert len(weights.skipped) < 30


def test_what_lies_beside_the_model_takes_a_line_each() -> None:
    skipped = read_weights(TRAINERS["Lightning"]).skipped
    assert skipped["optimizer_states"] == "optimizer state: 24 tensors"
    assert skipped["callbacks"] == "not of the model: 10 tensors"
    assert skipped["lr_schedulers"] == "not a tensor: list"
    assert skipped["epoch"] == "not a tensor: int"
    skipped = read_weights(TRAINERS["timm"]).skipped
    assert skipped["state_dict_ema"] == "another model: 9 tensors (key 'state_dict_ema')"
    assert read_weights(TRAINERS["the model twice"]).skipped["state_dict"] == "the same as model"
    skipped = read_weights(TRAINERS["chgnet"]).skipped
    assert skipped["model.model_args"] == "not a tensor: dict"
    skipped = read_weights(TRAINERS["tensors beside"]).skipped
    assert skipped["class_weights"] == "a tensor beside the model"


@pytest.mark.parametrize(
    ("checkpoint", "key"),
    [
        (TRAINERS["timm"], "state_dict_ema"),
        (TRAINERS["BasicSR"], "params_ema"),
        (TRAINERS["Lightning"], "callbacks.EMA"),
        (TRAINERS["Lightning"], "callbacks.EMA.weights"),
        ({"student": PLAIN, "teacher": OTHER}, "teacher"),
        ({"a.b": {"c": OTHER}, "a": {"x": PLAIN}}, "a.b.c"),
        ({0: PLAIN, 1: OTHER}, "1"),
    ],
)
def test_a_key_chooses(tmp_path: Path, checkpoint: dict[str, Any], key: str) -> None:
    torch.save(checkpoint, tmp_path / "w.tar")
    for source in (checkpoint, tmp_path / "w.tar"):
        assert same_layers(read_weights(source, key=key), OTHER)


@pytest.mark.parametrize(
    ("checkpoint", "listed"),
    [
        ({"student": PLAIN, "teacher": OTHER, "optimizer": KEPT["adam"]}, "student, teacher"),
        ({"generator": PLAIN, "critic": OTHER, "g_optim": KEPT["adam"]}, "generator, critic"),
        ({"epoch": 1, "g": PLAIN, "d": OTHER, "g_ema": PLAIN.copy()}, "g, d, g_ema"),
        ({"model": PLAIN, "net": OTHER}, "model, net"),
        ({"ema_1": PLAIN, "ema_2": OTHER}, "ema_1, ema_2"),
        ({"models": {"a": PLAIN, "b": OTHER}}, "models.a, models.b"),
        ({"encoder": PLAIN, "head": nn.Linear(4, 3).state_dict()}, "encoder, head"),
    ],
)
def test_models_of_equal_claim_are_listed(checkpoint: dict[str, Any], listed: str) -> None:
    with pytest.raises(WeightsError, match="choose one with --key NAME") as refused:
        read_weights(checkpoint)
    sizes = r" \(\d+ tensors, \d+ numbers\)"
    assert re.search(re.escape(listed).replace(",", f"{sizes},") + sizes + ";", str(refused.value))


def test_parts_of_what_a_key_calls_the_model_are_one_model() -> None:
    parts = {"encoder": PLAIN, "decoder": OTHER, "decoder_ema": PLAIN.copy()}
    weights = read_weights({"model": parts, "epoch": 3})
    assert [matrix.name for matrix in weights.matrices] == [
        "encoder.0",
        "encoder.2",
        "decoder.0",
        "decoder.2",
    ]
    assert (
        weights.skipped["model.decoder_ema"] == "another model: 9 tensors (key 'model.decoder_ema')"
    )


def test_a_tree_of_layers_is_one_model() -> None:
    tree = {name: {"kernel": torch.ones(6, 5), "bias": torch.ones(5)} for name in ("fc1", "fc2")}
    names = ["fc1.kernel", "fc2.kernel"]
    for checkpoint in (tree, {"params": tree, "step": 3}, {"params": {"params": tree}}):
        assert [matrix.name for matrix in read_weights(checkpoint).matrices] == names
    assert [m.name for m in read_weights({"fc1": tree["fc1"]}).matrices] == ["fc1.kernel"]
    beside = read_weights({**tree, "optimizer": {"fc1": tree["fc1"]}, "ema": {**tree}})
    assert [matrix.name for matrix in beside.matrices] == names
    assert beside.skipped["ema"] == "another model: 4 tensors (key 'ema')"


def test_a_network_with_a_trainers_things_among_its_names() -> None:
    mixed = {**PLAIN, "ema": OTHER, "scheduler": {"m": torch.ones(3, 3)}, "step": 3}
    weights = read_weights(mixed)
    assert [matrix.name for matrix in weights.matrices] == ["0", "2"]
    assert weights.skipped["ema"] == "another model: 9 tensors (key 'ema')"
    assert weights.skipped["scheduler"] == "not of the model: 1 tensor"
    curve = {"train.loss": torch.ones(99), "model": PLAIN, "ema": OTHER}
    assert same_layers(read_weights(curve), PLAIN)


def test_moments_in_a_flat_mapping_are_no_layers() -> None:
    flat = {f"model.{name}": tensor for name, tensor in PLAIN.items()}
    flat |= {"optim.state.0.weight.exp_avg": torch.ones(5, 6), "optim.step": torch.tensor(3.0)}
    weights = read_weights(flat)
    assert [matrix.name for matrix in weights.matrices] == ["model.0", "model.2"]
    assert weights.skipped["optim.state.0.weight.exp_avg"] == "optimizer state"


@pytest.mark.parametrize(
    ("checkpoint", "key", "message"),
    [
        (
            TRAINERS["timm"],
            "ema",
            r"has no key 'ema'; there is state_dict \(9 .*state_dict_ema \(9",
        ),
        (TRAINERS["timm"], "optimizer", "'optimizer' is optimizer state, no model; there is stat"),
        (TRAINERS["timm"], "optimizer.state", "'optimizer.state' is optimizer state"),
        (TRAINERS["timm"], "epoch", "'epoch' is of type int, no mapping with tensors; there is"),
        (TRAINERS["timm"], "state_dict.0.weight", "is one tensor, no mapping with tensors"),
        (TRAINERS["timm"], "", "has no key ''"),
        (
            KEPT["adam"],
            None,
            r"only in lists and optimizers, 18 of them \(keys: 'state', 'param_gr",
        ),
        ([PLAIN], None, "cannot read weights from a list"),
        ({"models": [PLAIN]}, None, "tensors only in lists and optimizers, 9 of them"),
        ({"epoch": 3}, "model", "has no key 'model'"),
    ],
)
def test_wrong_keys_and_no_models(checkpoint: Any, key: str | None, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_weights(checkpoint, key=key)


def test_a_model_alone_has_no_keys(tmp_path: Path) -> None:
    torch.save(PLAIN, tmp_path / "w.pt")
    for source in (NETWORK, PLAIN, tmp_path / "w.pt"):
        with pytest.raises(NoChoiceError, match=r"one model under no key, .* key 'ema' to choose"):
            read_weights(source, key="ema")
    # Beside a checkpoint that has the key it is read as it is.
    both = {"model": PLAIN, "ema": OTHER}
    for source, base in ((both, PLAIN), (PLAIN, both), (both, both)):
        delta = by_name(read_weights(source, base=base, key="ema"))
        assert bool(delta["0"].any()) == (source is not base)
    with pytest.raises(WeightsError, match="has no key 'ema'"):
        read_weights(both, base={"model": PLAIN}, key="ema")


def test_a_plain_and_a_nested_checkpoint_of_one_network_match(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 60), nn.Linear(60, 60)).state_dict()
    torch.save(plain, tmp_path / "plain.model")
    torch.save({"my_net": plain, "optimizer_state": KEPT["adam"]}, tmp_path / "last.pth.tar")
    result = wwopt.check(tmp_path / "plain.model", tmp_path / "last.pth.tar")
    assert result.passed and [layer.name for layer in result.layers] == ["0", "1"]


def test_names_stay_apart() -> None:
    same = {"fc.weight": torch.ones(3, 3), "fc": {"weight": torch.ones(3, 3)}}
    assert [m.name for m in read_weights(same).matrices] == ["fc", "fc.weight'"]
    numbered = {1: torch.ones(3, 3), "1": torch.ones(3, 3), ("a", 2): torch.ones(3, 3)}
    assert len(read_weights(numbered).matrices) == 3
    clash = {"model": {"model.args": torch.ones(3, 3), "a.b": torch.ones(2, 2)}, "model.args": {}}
    assert read_weights(clash).skipped == {"model.args (beside)": "not a tensor: dict"}


def test_a_mapping_in_itself_ends() -> None:
    state: dict[str, Any] = {"fc.weight": torch.ones(3, 3)}
    state["again"] = {"again": state}
    weights = read_weights(state)
    assert [m.name for m in weights.matrices] == ["fc"]
    assert weights.skipped == {"again.again": "the same mapping as one before it"}
    wheel: dict[str, Any] = {"epoch": 3}
    wheel["model"] = {"model": wheel, "net": wheel, "loops": [wheel]}
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_weights(wheel)
    wheel["model"]["fc.weight"] = torch.ones(3, 3)
    assert [m.name for m in read_weights(wheel).matrices] == ["fc"]


def test_mappings_that_unfold_without_bound_end() -> None:
    bomb: dict[str, Any] = {"w": torch.ones(3, 3)}
    for _ in range(60):  # 2^60 paths to one tensor
        bomb = {"a": bomb, "b": bomb}
    assert len(read_weights({"fc.weight": torch.ones(2, 2), "x": bomb}).matrices) == 1
    deep: dict[str, Any] = {"fc.weight": torch.ones(3, 3)}
    for _ in range(10_000):
        deep = {"a": deep}
    state = find_model(deep, where="deep").state
    assert not any(isinstance(value, torch.Tensor) for value in state.values())


def test_a_file_of_deep_mappings_is_no_crash(tmp_path: Path) -> None:
    deep: Any = PLAIN
    for level in range(12):
        deep = {f"level_{level}": deep}
    torch.save(deep, tmp_path / "w.pt")
    assert same_layers(read_weights(tmp_path / "w.pt"), PLAIN)


def test_numpys_scalars_are_refused_with_a_way_out(tmp_path: Path) -> None:
    torch.save({"model": PLAIN, "best": np.float64(0.3)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"needs numpy\S*scalar: loading .*save its state_dict"):
        read_weights(tmp_path / "w.pt")


def test_whatever_is_nested_no_moment_is_a_layer() -> None:
    """Checkpoints at random: the trainer's tensors hold sevens, those of networks ones."""
    generator = np.random.default_rng(0)
    keys = ("model", "net", "ema", "a", "b", "g", "optimizer", "callbacks", "sd", "step", 0, "")
    moments = {"exp_avg": torch.full((3, 3), 7.0), "step": torch.tensor(7.0)}
    leaves = (
        {"fc.weight": torch.ones(3, 3), "fc.bias": torch.ones(3)},
        {"weight": torch.ones(3, 3)},
        {"state": {0: moments}, "param_groups": [{"lr": 0.1}]},
        {0: moments, 1: moments},
        {"total": 3},
        torch.tensor(1.0),
        4,
        [torch.full((3, 3), 7.0)],
    )

    def draw(depth: int) -> Any:
        if depth == 3 or generator.random() < 0.4:
            leaf = leaves[generator.integers(len(leaves))]
            return dict(leaf) if isinstance(leaf, dict) else leaf
        chosen = generator.choice(len(keys), size=generator.integers(1, 5), replace=False)
        return {keys[index]: draw(depth + 1) for index in chosen}

    outcomes = []
    for _ in range(1_000):
        checkpoint = {"epoch": 3, "x": draw(0), "y": draw(1)}
        try:
            found = read_weights(checkpoint)
        except WeightsError as error:
            outcomes.append("several" if "several models" in str(error) else "none")
            continue
        outcomes.append("one" if found.matrices else "none")
        assert all((matrix.read() == 1.0).all() for matrix in found.matrices)
        assert found.skipped["epoch"] == "not a tensor: int"
    assert min(outcomes.count(outcome) for outcome in ("one", "several", "none")) > 50
