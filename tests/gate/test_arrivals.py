"""What counts as a checkpoint that has arrived, and what tells it from another."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from fixtures.weights.checkpoints import STATE, write_shards
from safetensors.torch import save_file

from wwopt.gate.arrivals import list_folder, look_at


def names(folder: Path) -> list[str]:
    return [arrival.name for arrival in list_folder(folder)]


def written(path: Path, at: float) -> None:
    save_file(STATE, path)
    os.utime(path, (at, at))


def test_checkpoints_come_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    written(tmp_path / "b.safetensors", 1000)
    written(tmp_path / "epoch-10.safetensors", 2000)
    written(tmp_path / "epoch-9.safetensors", 2000)
    torch.save(STATE, tmp_path / "no-ending")
    os.utime(tmp_path / "no-ending", (1500, 1500))
    expected = ["b.safetensors", "no-ending", "epoch-9.safetensors", "epoch-10.safetensors"]
    assert names(tmp_path) == expected


def test_what_is_no_checkpoint_or_not_yet_one_is_left_out(tmp_path: Path) -> None:
    written(tmp_path / "w.safetensors", 1000)
    (tmp_path / "log.txt").write_text("epoch 1")
    (tmp_path / ".hidden.safetensors").write_bytes(b"x")
    (tmp_path / "w.safetensors.tmp").write_bytes((tmp_path / "w.safetensors").read_bytes())
    (tmp_path / "latest.safetensors").symlink_to(tmp_path / "w.safetensors")
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert names(tmp_path) == ["w.safetensors"]


def test_arrays_of_numpy_are_checkpoints_only_where_there_are_no_others(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    assert names(tmp_path) == ["a.npz"]
    written(tmp_path / "w.safetensors", 1000)
    assert names(tmp_path) == ["w.safetensors"]


def test_folders_and_indexes_stand_for_their_files(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-500").mkdir()
    write_shards(tmp_path / "checkpoint-500")
    (tmp_path / "checkpoint-500" / "optimizer.pt").write_bytes(b"x" * 999)
    (found,) = list_folder(tmp_path)
    shards = [*(tmp_path / "checkpoint-500").glob("model*")]
    size = sum(shard.stat().st_size for shard in shards)
    assert found.identity.split("|")[:2] == ["checkpoint-500", str(size)]
    write_shards(tmp_path)
    assert names(tmp_path) == ["checkpoint-500", "model.safetensors.index.json"]


def test_shards_whose_index_is_to_come_are_no_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    save_file(STATE, folder / "model-00001-of-00002.safetensors")
    assert names(tmp_path) == []
    save_file(STATE, folder / "model-00002-of-00002.safetensors")
    assert names(tmp_path) == []
    weight_map = dict.fromkeys(STATE, "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert names(tmp_path) == ["checkpoint-1"]


def test_one_that_is_written_over_is_another(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    written(path, 1000)
    first = look_at(path)
    written(path, 1000)
    assert look_at(path) == first
    written(path, 1001)
    second = look_at(path)
    assert first and second and first.identity != second.identity
    path.unlink()
    assert look_at(path) is None
