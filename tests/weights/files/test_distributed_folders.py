"""Pieces of several processes are put together, and metadata is believed in nothing."""

import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed.checkpoint as dcp
from fixtures.weights.checkpoints import STATE, RunsCode, check_values
from torch import nn
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError


def save_distributed(state: dict[str, object], folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one process instead of several
        dcp.save(state, checkpoint_id=folder)


def test_distributed_checkpoint(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    state = {"model": STATE, "optim": optimizer.state_dict(), "epoch": 3}
    save_distributed(state, tmp_path)
    check_values(tmp_path)
    skipped = read_weights(tmp_path).skipped
    # The optimizer has a step and two moments for each of two parameters.
    assert skipped == {"optim": "optimizer state: 6 tensors", "epoch": "not a tensor: bytes"}


def test_one_of_two_models_is_chosen_by_its_key(tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    save_distributed({"student": STATE, "teacher": other, "epoch": 3}, tmp_path)
    with pytest.raises(WeightsError, match=r"several models: student .4 tensors.*, teacher .4 ten"):
        read_weights(tmp_path)
    weights = read_weights(tmp_path, key="teacher")
    assert [matrix.read()[0, 0, 0].item() for matrix in weights.matrices] == [1, 2, 3, 11]
    assert weights.skipped["student"] == "another model: 4 tensors (key 'student')"


def test_names_without_the_planners_paths_are_plain(tmp_path: Path) -> None:
    write_pieces(tmp_path, torch.randn(8, 3), rows=4)
    metadata = pickle.loads((tmp_path / ".metadata").read_bytes())
    entries = metadata.state_dict_metadata
    entries["optim.state.fc.weight.exp_avg"] = entries["fc.weight"]
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    weights = read_weights(tmp_path)
    assert [matrix.name for matrix in weights.matrices] == ["fc"]
    assert weights.skipped == {"optim": "optimizer state: 1 tensor"}


def write_pieces(folder: Path, whole: torch.Tensor, rows: int, **change: object) -> None:
    """What several processes write: each its rows, in a file of its own."""
    chunks, storage = [], {}
    for number, block in enumerate(whole.split(rows)):
        name = f"__{number}_0.distcp"
        with open(folder / name, "wb") as file:
            file.write(b"something before")
            torch.save(block.clone(), file)
            length = file.tell() - 16
        offset = torch.Size([number * rows, 0])
        chunks.append(ChunkStorageMetadata(offset, block.shape))
        info = {"relative_path": name, "offset": 16, "length": length, **change}
        storage[MetadataIndex("fc.weight", offset)] = _StorageInfo(**info)
    properties = TensorProperties(dtype=whole.dtype)
    entry = TensorStorageMetadata(properties, whole.shape, chunks)
    metadata = Metadata({"fc.weight": entry}, storage_data=storage)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pieces_of_several_processes_are_put_together(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.randn(7, 3).to(dtype)
    write_pieces(tmp_path, whole, rows=3)
    (matrix,) = read_weights(tmp_path).matrices
    assert matrix.dtype == str(dtype).removeprefix("torch.")
    assert torch.equal(matrix.read()[0], whole.float())
    assert torch.equal(pickle.loads(pickle.dumps(matrix)).read(), matrix.read())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relative_path": "../elsewhere"}, "outside its folder"),
        ({"relative_path": "/etc/passwd"}, "outside its folder"),
        ({"relative_path": "__9_0.distcp"}, "is missing"),
        ({"length": 10**15}, r"bytes, fc.weight should end at"),
        ({"offset": -5}, "should end at"),
        ({"length": 5}, "do not make up shape"),
        ({"relative_path": 3}, "not laid out as known"),
    ],
)
def test_metadata_that_points_elsewhere(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write_pieces(tmp_path, torch.randn(7, 3), rows=4, **change)
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path)


def test_a_piece_of_another_shape_is_an_error_when_read(tmp_path: Path) -> None:
    write_pieces(tmp_path, torch.randn(8, 3), rows=4)
    (matrix,) = read_weights(tmp_path).matrices
    with open(tmp_path / "__0_0.distcp", "r+b") as file:
        file.seek(16)
        torch.save(torch.ones(3, 4), file)
    with pytest.raises(WeightsError, match=r"is not of shape \(4, 3\)"):
        matrix.read()
    with open(tmp_path / "__0_0.distcp", "r+b") as file:
        file.seek(16)
        file.write(b"\0" * 200)
    with pytest.raises(WeightsError, match="cannot be read"):
        matrix.read()


@pytest.mark.parametrize("offsets", [(-4, 0), (8, 0), (0, 1), (0,)])
def test_pieces_outside_the_tensor(tmp_path: Path, offsets: tuple[int, ...]) -> None:
    write_pieces(tmp_path, torch.randn(8, 3), rows=4)
    metadata = pickle.loads((tmp_path / ".metadata").read_bytes())
    chunk = metadata.state_dict_metadata["fc.weight"].chunks[0]
    chunk.offsets = torch.Size(offsets)
    stored = metadata.storage_data.pop(MetadataIndex("fc.weight", [0, 0]))
    metadata.storage_data[MetadataIndex("fc.weight", offsets)] = stored
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(WeightsError, match="do not make up shape"):
        read_weights(tmp_path)


def test_pieces_that_overlap_leave_no_memory_unset(tmp_path: Path) -> None:
    write_pieces(tmp_path, torch.randn(8, 3), rows=4)
    metadata = pickle.loads((tmp_path / ".metadata").read_bytes())
    chunks = metadata.state_dict_metadata["fc.weight"].chunks
    chunks[1] = chunks[0]
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    (matrix,) = read_weights(tmp_path).matrices
    with pytest.raises(WeightsError, match="do not make up shape"):
        matrix.read()


def test_compressed_pieces_have_a_reason(tmp_path: Path) -> None:
    write_pieces(tmp_path, torch.randn(8, 3), rows=4, transform_descriptors=["zstd"])
    assert "compressed" in read_weights(tmp_path).skipped["fc.weight"]


def test_metadata_never_runs_code(tmp_path: Path) -> None:
    target = tmp_path / "made"
    (tmp_path / ".metadata").write_bytes(pickle.dumps(RunsCode(target)))
    with pytest.raises(WeightsError, match=r"needs posix.mkdir, .*dcp_to_torch"):
        read_weights(tmp_path)
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        b"\x80\x04" + b"\x96" + (10**13).to_bytes(8, "little") + b".",  # BYTEARRAY8 of 10 TB
        b"\x80\x04Nr\xff\xff\xff\xff.",  # memo of 4 billion entries
        pickle.dumps({"state_dict_metadata": 3}),
        pickle.dumps(SimpleNamespace()),
    ],
)
def test_broken_metadata_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(WeightsError):
        read_weights(tmp_path)
