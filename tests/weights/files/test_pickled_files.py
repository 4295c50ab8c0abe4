"""Pickled tensors of every age are read once, and never run code, however they are broken."""

import argparse
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.weights.checkpoints import STATE, RunsCode, check_values, survives
from torch import nn

import wwopt
from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError


def names(path: Path) -> list[str]:
    return [matrix.name for matrix in read_weights(path).matrices]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "last.ckpt", "w.pth"])
def test_pickled_tensors(tmp_path: Path, name: str) -> None:
    checkpoint = {"state_dict": STATE, "epoch": 3} if name.endswith("ckpt") else STATE
    torch.save(checkpoint, tmp_path / name)
    check_values(tmp_path / name)
    check_values(tmp_path)


def test_pickled_tensors_of_before_2020(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    check_values(tmp_path / "w.pt")


def test_a_pickled_tensor_alone(tmp_path: Path) -> None:
    torch.save(torch.ones(3, 2), tmp_path / "w.pt")
    assert names(tmp_path / "w.pt") == ["weight"]


class Mine(nn.Linear):
    """A class of the user's own."""


@pytest.mark.parametrize(
    ("content", "needs"),
    [
        (Mine(2, 2), r"Mine"),
        ({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
    ],
)
def test_a_pickle_that_needs_code_is_refused_with_a_way_out(
    tmp_path: Path, content: object, needs: str
) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=rf"needs \S*{needs}: .*save its state_dict"):
        read_weights(tmp_path / "w.pt")


def test_a_pickle_never_runs_code(tmp_path: Path) -> None:
    target = tmp_path / "made"
    torch.save({"fc.weight": torch.ones(2, 2), "x": RunsCode(target)}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(RunsCode(target)))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(WeightsError):
            read_weights(tmp_path / name)
    assert not target.exists()


def test_torchscript_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="TorchScript program; save torch"):
        read_weights(tmp_path / "w.pt")


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\0" * 10**6)
    with pytest.raises(WeightsError, match="claims"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [([1], "holds a list, no state dict"), ({"lr": 1}, "holds no tensors .keys: 'lr'.")],
)
def test_pickles_without_a_state_dict(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / "w.pt")


def test_a_file_that_changes_is_not_mixed_up(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(STATE, path)
    matrix = read_weights(path).matrices[0]
    torch.save({"other.weight": torch.ones(3, 3)}, path)
    with pytest.raises(WeightsError, match="changed while it was being read"):
        matrix.read()


@pytest.mark.parametrize("nested", [False, True])
def test_corrupted_pickles(tmp_path: Path, nested: bool) -> None:
    generator = np.random.default_rng(0)
    state: dict[str, object] = {"fc.weight": torch.ones(4, 3)}
    if nested:
        moments = {"state": {0: {"exp_avg": torch.ones(4, 3)}}, "param_groups": [{"lr": 0.1}]}
        state = {"model": {"state_dict": state}, "optimizer": moments, "ema": state, "epoch": 3}
    for new in (True, False):
        path = tmp_path / "w.pt"
        torch.save(state, path, _use_new_zipfile_serialization=new)
        sound = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        for _ in range(300):
            content = sound.copy()
            places = generator.integers(0, min(content.size, 900 if nested else 600), size=2)
            content[places] = generator.integers(0, 256, size=2)
            path.write_bytes(content[: generator.integers(50, content.size + 1)].tobytes())
            survives(path)


@pytest.mark.parametrize("command", ["check", "base", "rank"])
def test_two_pickled_files_are_unpickled_once_each(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "before.pt", tmp_path / "after.pt"]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        layers = {f"fc{i}.weight": torch.randn(60, 60) for i in range(6)}
        torch.save(layers, path)
    loaded: list[str] = []
    load = torch.load

    def count(path: str, **options: object) -> object:
        loaded.append(path)
        return load(path, **options)

    monkeypatch.setattr(torch, "load", count)
    if command == "check":
        wwopt.check(*paths)
    elif command == "base":
        wwopt.analyze(paths[1], base=paths[0])
    else:
        wwopt.rank(paths)
    assert sorted(loaded) == sorted(map(str, paths))
