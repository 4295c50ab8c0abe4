"""Every form of folder and index once as it should be, then broken in every way we know."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.weights.checkpoints import STATE, check_values, write_shards
from safetensors.torch import save_file

from wwopt.weights.files.checkpoint_files import open_checkpoint
from wwopt.weights.files.training_checkpoints import NoChoiceError
from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_sharded_folder(tmp_path: Path, ending: str) -> None:
    write_shards(tmp_path, ending=ending)
    check_values(tmp_path)
    check_values(next(tmp_path.glob("*.index.json")))
    check_values(Path(str(tmp_path) + os.sep))


def test_shards_are_not_mistaken_for_tied_weights(tmp_path: Path) -> None:
    # Each shard is closed before the next is opened, and its addresses are used again.
    write_shards(tmp_path, ending="bin")
    assert all(matrix.tied == () for matrix in read_weights(tmp_path).matrices)


def test_safetensors_is_preferred_and_the_configuration_is_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    checkpoint = open_checkpoint(str(tmp_path))
    assert [tensor.name for tensor in checkpoint.tensors] == list(STATE)
    assert checkpoint.config == {"model_type": "llama"}
    assert checkpoint.adapter is None


def test_the_links_of_hugging_faces_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--x" / "snapshots" / "abc"
    blobs = tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    write_shards(snapshot)
    for shard in snapshot.glob("*.safetensors"):
        blob = blobs / shard.stem
        shard.rename(blob)
        shard.symlink_to(blob)
    check_values(snapshot)


@pytest.mark.parametrize(
    "shard",
    ["../w.safetensors", "/etc/w.safetensors", "a/../../w.safetensors", r"..\w", "C:w", "..", ""],
)
def test_an_index_names_no_file_outside_its_folder(tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(STATE, tmp_path / "w.safetensors")
    index = {"weight_map": dict.fromkeys(STATE, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="outside its folder"):
        read_weights(folder)


def test_a_shard_that_links_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_shards(folder)
    shard = min(folder.glob("*.safetensors"))
    shard.rename(tmp_path / "w.safetensors")
    shard.symlink_to(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="outside its folder; copy the file there"):
        read_weights(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00004.safetensors is missing"):
        read_weights(tmp_path)


def test_a_tensor_that_is_not_in_its_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    save_file({"other.weight": torch.ones(2, 2)}, tmp_path / "model-00002-of-00004.safetensors")
    with pytest.raises(WeightsError, match=r"lacks 'h.1.fc.weight'"):
        read_weights(tmp_path)


def test_a_tensor_that_the_index_does_not_know_has_a_reason(tmp_path: Path) -> None:
    write_shards(tmp_path)
    more = {"h.1.fc.weight": STATE["h.1.fc.weight"], "more.weight": torch.ones(2, 2)}
    save_file(more, tmp_path / "model-00002-of-00004.safetensors")
    assert "not in the index" in read_weights(tmp_path).skipped["more.weight"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no JSON"),
        ("[]", "holds a list"),
        ("{}", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": {"a": 3}}', "names 3 as the file of 'a'"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_broken_index_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path)


def test_folders_without_one_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no checkpoint"):
        read_weights(tmp_path)
    save_file(STATE, tmp_path / "a.safetensors")
    save_file(STATE, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"a.safetensors, b.safetensors; pass one"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["chgnet.pth.tar", "best.model", "checkpoint", "net.pkl"])
@pytest.mark.parametrize("age", ["safetensors", "torch", "old torch"])
def test_a_checkpoint_of_any_name_is_found_in_its_folder(
    tmp_path: Path, name: str, age: str
) -> None:
    if age == "safetensors":
        save_file(STATE, tmp_path / name)
    else:
        torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=age == "torch")
    (tmp_path / "log.txt").write_text("epoch 1\n")
    np.savez(tmp_path / "history.npz", loss=np.ones(3))
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    check_values(tmp_path / name)
    check_values(tmp_path)
    torch.save(STATE, tmp_path / "other.tar")
    with pytest.raises(WeightsError, match=r"several checkpoints .*: .*other\.tar.*; pass one"):
        read_weights(tmp_path)


def test_a_key_where_a_format_has_none(tmp_path: Path) -> None:
    write_shards(tmp_path)
    for path in (tmp_path, next(tmp_path.glob("*.index.json")), min(tmp_path.glob("*rs"))):
        with pytest.raises(NoChoiceError, match=r"holds one model under no key.*'ema'.*leave it"):
            read_weights(path, key="ema")


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    for part in ("vae", "unet"):
        (tmp_path / part).mkdir()
        save_file(STATE, tmp_path / part / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match="checkpoints in unet, vae; pass one of them"):
        read_weights(tmp_path)


def test_paths_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_weights(tmp_path / "nothing.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(WeightsError, match="no file and no folder"):
        read_weights(tmp_path / "pipe.safetensors")


@pytest.mark.parametrize("ending", ["safetensors", "pt", "bin", "ckpt"])
@pytest.mark.parametrize("content", [b"", b"some text\n" * 20, b"\0" * 64, b"\xff" * 64])
def test_files_that_only_have_the_name(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"w.{ending}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.\w+"):
        read_weights(path)
