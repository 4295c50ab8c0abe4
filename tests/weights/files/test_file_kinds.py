"""Files are what their first bytes say: whatever the name, and with a line for each stranger."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.weights.checkpoints import STATE, check_values, survives
from safetensors.torch import save_file

from wwopt.weights.files.file_kinds import looks_like_checkpoint, tell_kind
from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError

NAMES = ["w.safetensors", "w.bin", "w.pth.tar", "w.pt", "w.model", "w.onnx", "w"]


@pytest.mark.parametrize("name", NAMES)
def test_names_do_not_matter(tmp_path: Path, name: str) -> None:
    save_file(STATE, tmp_path / name)
    assert tell_kind(tmp_path / name) == "safetensors"
    check_values(tmp_path / name)
    for new in (True, False):
        torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=new)
        assert tell_kind(tmp_path / name) == "pickled"
        check_values(tmp_path / name)
        assert looks_like_checkpoint(tmp_path / name)


def zip_of(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def tar_of(name: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return content.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90405214\n"
STRANGERS = {
    "empty": (b"", r"an empty file \(0 bytes\); download or save it again"),
    "web page": (b"\n<!DOCTYPE html><html>404</html>", "a web page .*; its download failed"),
    "xml": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "a web page .*download failed"),
    "lfs": (LFS, r"a pointer of Git LFS to 90,405,214 bytes \(\d+ bytes\); .*git lfs pull"),
    "text": ("größe\n".encode() * 200, r"text that starts with 'größe' .*is it the right file"),
    "json": (b'{"lr": 0.1, "layers": {"a": 1}}', 'text that starts with \'{"lr": 0.1'),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, as Keras writes .*; load it in its"),
    "onnx": (
        b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:",
        "an ONNX model .*save its weights with .*docs/sources.md",
    ),
    "keras": (
        zip_of(**{"config.json": b"{}", "model.weights.h5": b"x"}),
        "an archive of Keras .*Oth",
    ),
    "bare onnx": (b"\x08\x0e\x3a\xdc\x47\x0a\x19" + bytes(64), "an ONNX model .*Other frameworks"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "a TensorFlow Lite model"),
    "saved model": (b"\x08\x01\x12\xf4\x0a\x0a" + bytes(64), "a TensorFlow SavedModel"),
    "tf index": (bytes(40) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "index of a TensorFlow check"),
    "npy": (b"\x93NUMPY\x01\0v\0{'descr'", "a NumPy array"),
    "zip": (zip_of(policy=b"1", data=b"2"), r"a zip archive of policy, data .*unpack it and pass"),
    "no zip": (zip_of(), "an empty zip archive"),
    "tar": (tar_of("model.ckpt"), "a tar archive .*unpack it and pass the checkpoint in it"),
    "gzip": (gzip.compress(b"x"), "a gzip archive .*unpack it"),
    "bytes": (b"\xff\xd8\xff\xe0" * 9, r"none of them: its first bytes are ff d8 ff e0 ff d8"),
    "zeros": (bytes(64), "its first bytes are 00 00 00"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("name", ["w.pt", "w", "w.safetensors"])
def test_a_stranger_is_named_with_the_way_out(tmp_path: Path, stranger: str, name: str) -> None:
    content, message = STRANGERS[stranger]
    path = tmp_path / name
    path.write_bytes(content)
    if name == "w.safetensors" and stranger in {"empty", "bytes", "zeros", "text", "json"}:
        message = "no sound safetensors file|no file of safetensors"  # its reader knows more
    with pytest.raises(WeightsError, match=message) as refused:
        read_weights(path)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)
    assert looks_like_checkpoint(path) == (name != "w")  # only by its name


def test_the_file_that_torch_wrote_before_2017_has_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(tar_of("storages"))
    with pytest.raises(WeightsError, match=r"torch.save's of before 2017: save its weights with"):
        read_weights(tmp_path / "w.pth")


def test_a_truncated_archive_is_torchs_and_broken(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.tar")
    content = (tmp_path / "w.tar").read_bytes()
    (tmp_path / "w.tar").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="is no file of tensors"):
        read_weights(tmp_path / "w.tar")


@pytest.mark.parametrize("old", ["safetensors", "zip", "pickle"])
def test_any_first_bytes_are_survived(tmp_path: Path, old: str) -> None:
    """The bytes that tell the kind, at random: the wrong reader meets the file, and refuses it."""
    path = tmp_path / "w"
    small = {"fc.weight": torch.ones(4, 3)}
    if old == "safetensors":
        save_file(small, path)
    else:
        torch.save(small, path, _use_new_zipfile_serialization=old == "zip")
    sound = path.read_bytes()
    heads = [b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x80\x04", b"\x08\x07\x12", b"{" * 9, b""]
    heads += [bytes([number, 0, 0, 0, 0, 0, 0, 0]) + b"{" for number in (0, 2, 16, 128, 255)]
    generator = np.random.default_rng(0)
    heads += [generator.bytes(int(n)) for n in generator.integers(1, 12, size=200)]
    read = 0
    for head in heads:
        path.write_bytes(head + sound[len(head) :])
        read += survives(path)
    assert read < len(heads)
    for length in range(0, 60):
        path.write_bytes(sound[:length])
        assert not survives(path)
