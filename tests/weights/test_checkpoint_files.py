"""Every kind of checkpoint once as it should be, then broken in every way we could think of."""

import argparse
import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

import wwopt
from wwopt.weights import safetensors_files
from wwopt.weights.checkpoint_files import open_checkpoint
from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError
from wwopt.weights.tensor_names import natural_key

STATE = {f"h.{i}.fc.weight": torch.full((4, 3), float(i)) for i in (0, 1, 2, 10)}


def names(path: Path) -> list[str]:
    return [matrix.name for matrix in read_weights(path).matrices]


def write_shards(folder: Path, *, ending: str = "safetensors") -> None:
    stem = "model" if ending == "safetensors" else "pytorch_model"
    weight_map = {}
    for number, name in enumerate(STATE, start=1):
        shard = f"{stem}-{number:05}-of-{len(STATE):05}.{ending}"
        weight_map[name] = shard
        if ending == "safetensors":
            save_file({name: STATE[name]}, folder / shard)
        else:
            torch.save({name: STATE[name]}, folder / shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))


def check_values(path: Path) -> None:
    weights = read_weights(path)
    assert [matrix.name for matrix in weights.matrices] == [f"h.{i}.fc" for i in (0, 1, 2, 10)]
    for matrix, expected in zip(weights.matrices, STATE.values(), strict=True):
        assert torch.equal(matrix.read()[0], expected)


# --- every source ---------------------------------------------------------------------------


def test_safetensors_file_is_read_in_natural_order(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "any.safetensors", metadata={"format": "pt"})
    check_values(tmp_path / "any.safetensors")
    check_values(tmp_path)  # the only checkpoint in its folder


def test_numbers_in_names_count_as_numbers() -> None:
    ordered = ["a", "a.2.b", "a.10", "a.10.c", "b1", "b" + "9" * 5000]
    assert sorted(reversed(ordered), key=natural_key) == ordered


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_sharded_folder(tmp_path: Path, ending: str) -> None:
    write_shards(tmp_path, ending=ending)
    check_values(tmp_path)
    check_values(next(tmp_path.glob("*.index.json")))
    check_values(Path(str(tmp_path) + os.sep))


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


# --- torch.distributed.checkpoint -----------------------------------------------------------


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
    assert skipped == {"optim": "optimizer state", "epoch": "not a tensor"}


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


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)

    def __init__(self, target: Path) -> None:
        self.target = target


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


# --- pickles that need more than tensors ----------------------------------------------------


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


# --- indexes and folders --------------------------------------------------------------------


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


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    for part in ("vae", "unet"):
        (tmp_path / part).mkdir()
        save_file(STATE, tmp_path / part / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match="checkpoints in unet, vae; pass one of them"):
        read_weights(tmp_path)


def test_paths_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_weights(tmp_path / "nothing.safetensors")
    (tmp_path / "w.onnx").write_bytes(b"")
    with pytest.raises(WeightsError, match="none of the endings"):
        read_weights(tmp_path / "w.onnx")
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


# --- corrupted headers ----------------------------------------------------------------------


def with_header(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: object = "F32", shape: object = (2, 2), offsets: object = (0, 16)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def twice(name: str) -> bytes:
    sound = json.dumps(entry())
    return with_header(f'{{"{name}": {sound}, "a": {sound}}}'.encode(), b"\0" * 16)


@pytest.mark.parametrize(
    "content",
    [
        (10**18).to_bytes(8, "little") + b"{}",
        b"\x08\0\0\0\0\0\0\0{}",
        with_header(b"[]"),
        with_header(b"{"),
        with_header(b'{"a": ' + b"[" * 100_000),
        with_header(b'{"\xff": 1}'),
        with_header(b'{"a": 1, "a": 1}'),
        with_header(b'{"a": ' + b"9" * 5000 + b"}"),
        with_header(b'{"\\ud800": 1}'),
        with_header({"a": 3}),
        with_header({"a": {"dtype": "F32"}}),
        with_header({"a": entry("F33")}, b"\0" * 16),
        with_header({"a": entry(["F32"])}, b"\0" * 16),
        with_header({"a": entry(shape=[2, -2])}, b"\0" * 16),
        with_header({"a": entry(shape=[True, 4])}, b"\0" * 16),
        with_header({"a": entry(shape=[2.0, 2])}, b"\0" * 16),
        with_header({"a": entry(shape="22")}, b"\0" * 16),
        with_header({"a": entry(shape=[2**62] * 60)}, b"\0" * 16),
        with_header({"a": entry(shape=[2**64, 0], offsets=[0, 0])}),
        with_header({"a": entry("F4", shape=[3], offsets=[0, 2])}, b"\0" * 2),
        with_header({"a": entry(offsets=[0])}, b"\0" * 16),
        with_header({"a": entry(offsets=[16, 0])}, b"\0" * 16),
        with_header({"a": entry(offsets=[0, 8])}, b"\0" * 8),
        with_header({"a": entry(offsets=[0, 10**15])}, b"\0" * 16),
        with_header({"a": entry(shape=[10**6, 10**6], offsets=[0, 4 * 10**12])}),
        with_header({"a": entry(), "b": entry()}, b"\0" * 16),
        with_header({"a": entry(), "b": entry(offsets=[8, 24])}, b"\0" * 24),
        with_header({"a": entry(offsets=[4, 20])}, b"\0" * 20),
        with_header({"a": entry()}, b"\0" * 20),
    ],
)
def test_a_broken_header_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"w.safetensors is no sound safetensors file: .+; download or save it"
    ) as refused:
        read_weights(path)
    # The library's reason, without the lines above it that say what it was doing.
    assert "deserializing" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (twice("a"), "a name appears twice"),
        (twice("\\u0061"), "a name appears twice"),
        (with_header(b'{"__metadata__": {"a": "b", "a": "c"}}'), "a name appears twice"),
        (with_header(b" {}"), r"starts with b' \{\}' and not with a brace"),
        (with_header({"a": {**entry(), "name": "b"}}, b"\0" * 16), "'a' is not given by dtype,"),
        (with_header({"a": ["F32", [2, 2], [0, 16]]}, b"\0" * 16), "'a' is not given by dtype,"),
        (with_header({"a": entry({"F32": None})}, b"\0" * 16), "'a' is not given by dtype,"),
        (with_header({"a" * 9999: ["F32", [4], [0, 16]]}, b"\0" * 16), "aa…aa.* is not given by"),
        (with_header({"a": entry(shape=[1] * 65, offsets=[0, 4])}, b"\0" * 4), "65 dimensions of"),
        (with_header({"a": entry(shape=[2**63, 0], offsets=[0, 0])}), f"2 .* of up to {2**63}, as"),
    ],
)
def test_what_only_the_library_lets_pass_is_an_error(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with safe_open(path, framework="np") as file:  # else our own check can go
        file.keys()
    with pytest.raises(WeightsError, match=f"{message}.*; download or save it again") as refused:
        read_weights(path)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("dtype", "name", "bits", "problem"),
    [
        ("F64", "float64", 64, ""),
        ("F32", "float32", 32, ""),
        ("F16", "float16", 16, ""),
        ("BF16", "bfloat16", 16, ""),
        ("F8_E4M3", "float8_e4m3fn", 8, ""),
        ("F8_E4M3FNUZ", "float8_e4m3fnuz", 8, ""),
        ("F8_E5M2", "float8_e5m2", 8, ""),
        ("F8_E5M2FNUZ", "float8_e5m2fnuz", 8, ""),
        ("F8_E8M0", "float8_e8m0fnu", 8, "quantized"),
        ("F6_E2M3", "float6_e2m3", 6, "quantized"),
        ("F6_E3M2", "float6_e3m2", 6, "quantized"),
        ("F4", "float4_e2m1fn", 4, "quantized"),
        ("C64", "complex64", 64, "complex"),
        ("I64", "int64", 64, "int64: not a weight"),
        ("I32", "int32", 32, "int32: not a weight"),
        ("I16", "int16", 16, "int16: not a weight"),
        ("I8", "int8", 8, "quantized"),
        ("U64", "uint64", 64, "uint64: not a weight"),
        ("U32", "uint32", 32, "uint32: not a weight"),
        ("U16", "uint16", 16, "uint16: not a weight"),
        ("U8", "uint8", 8, "quantized"),
        ("BOOL", "bool", 8, "bool: not a weight"),
    ],
)
def test_every_dtype_of_the_format_has_torchs_name(
    tmp_path: Path, dtype: str, name: str, bits: int, problem: str
) -> None:
    path = tmp_path / "w.safetensors"
    content = {"fc.weight": entry(dtype, shape=[4, 8], offsets=[0, 4 * bits])}
    path.write_bytes(with_header(content, bytes(4 * bits)))
    (tensor,) = open_checkpoint(path).tensors
    # In elements, also where the library reads two of them as one byte.
    assert (tensor.name, tensor.shape, tensor.dtype) == ("fc.weight", (4, 8), name)
    assert tensor.problem.startswith(problem) and bool(tensor.problem) == bool(problem)
    if not problem:
        assert tensor.read().shape == (4, 8) and str(tensor.read().dtype) == f"torch.{name}"


def test_a_dtype_of_a_later_library_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    monkeypatch.delitem(safetensors_files._TORCH_NAMES, "F32")
    with pytest.raises(WeightsError, match=r"'h.0.fc.weight' has the unknown dtype 'F32'"):
        read_weights(tmp_path / "w.safetensors")


def test_names_of_one_rank_keep_their_order_in_the_file(tmp_path: Path) -> None:
    order = ["h.1.w", "h.01.w", "h.001.w", "h.0.w"]
    header = {name: entry(shape=[0], offsets=[0, 0]) for name in order}
    (tmp_path / "w.safetensors").write_bytes(with_header(header))
    found = [tensor.name for tensor in open_checkpoint(tmp_path / "w.safetensors").tensors]
    assert found == ["h.0.w", "h.1.w", "h.01.w", "h.001.w"]


def test_a_file_larger_than_memory_is_described(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    header = with_header({"fc.weight": entry(shape=[2**18, 2**20], offsets=[0, 2**40])})
    path.write_bytes(header)
    os.truncate(path, len(header) + 2**40)  # takes no space
    assert read_weights(path).matrices[0].shape == (2**20, 2**18)


def test_a_sound_file_of_empty_tensors(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(0, 3), "b": torch.ones(3)}, tmp_path / "w.safetensors")
    skipped = read_weights(tmp_path / "w.safetensors").skipped
    assert skipped == {"a.weight": "empty: shape (0, 3)", "b": "vector"}


def test_a_file_that_vanishes_is_an_error_when_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    matrix = read_weights(tmp_path / "w.safetensors").matrices[0]
    (tmp_path / "w.safetensors").unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        matrix.read()


def survives(path: Path) -> bool:
    """Whether a file is read to the end; anything but a WeightsError fails the test."""
    try:
        weights = read_weights(path)
        elements = sum(matrix.read().numel() for matrix in weights.matrices)
    except WeightsError as error:
        assert "\n" not in str(error)
        return False
    assert elements <= path.stat().st_size  # an element has at least a byte
    return True


def small_file(path: Path) -> bytes:
    generator = torch.Generator().manual_seed(0)
    state = {
        "wte.weight": torch.randn(4, 3, generator=generator),
        "h.0.fc.weight": torch.randn(3, 2, generator=generator).to(torch.bfloat16),
        "h.0.fc.bias": torch.randn(3, generator=generator),
        "conv.weight": torch.randn(2, 2, 2, 2, generator=generator).to(torch.float16),
        "ids": torch.arange(3),
    }
    save_file(state, path, metadata={"format": "pt"})
    return path.read_bytes()


def test_corruption_at_ten_thousand_places(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    sound = np.frombuffer(small_file(path), dtype=np.uint8)
    header = 8 + int.from_bytes(sound[:8].tobytes(), "little")
    generator = np.random.default_rng(0)
    outcomes = []
    for trial in range(10_000):
        content = sound.copy()
        end = 8 if trial % 5 == 0 else header  # a fifth hits the length of the header
        places = generator.integers(0, end, size=generator.integers(1, 4))
        if trial % 2:
            content[places] ^= (1 << generator.integers(0, 8, size=places.size)).astype(np.uint8)
        else:
            # Digits, brackets and quotes keep the JSON readable more often than any byte does.
            content[places] = generator.choice(
                np.frombuffer(b'0192,:"[]{}F', np.uint8), places.size
            )
        with open(path, "r+b", buffering=0) as file:  # truncating it would take 1 ms each
            file.write(content.tobytes())
        outcomes.append(survives(path))
    assert 100 < sum(outcomes) < 9_900  # some only rename a tensor: both paths were taken


def test_every_truncation(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    sound = small_file(path)
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        assert not survives(path)


def test_corrupted_pickles(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for new in (True, False):
        path = tmp_path / "w.pt"
        torch.save({"fc.weight": torch.ones(4, 3)}, path, _use_new_zipfile_serialization=new)
        sound = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        for _ in range(300):
            content = sound.copy()
            places = generator.integers(0, min(content.size, 600), size=2)
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
