"""Files are counted to the byte, and written whole or not at all; else `errors` say why."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from wwopt.compression import files
from wwopt.compression.errors import CompressionError
from wwopt.compression.files import _DTYPES, count_file_bytes, describe_packed, write_tensors


def test_every_dtype_and_name_is_counted(tmp_path: Path) -> None:
    tensors = {f"α {dtype}\n": torch.zeros(3, 5).to(dtype) for dtype in _DTYPES}
    tensors |= {"empty": torch.zeros(0, 4), "scalar": torch.tensor(1.0)}
    for metadata in ({}, {"format": "pt"}, describe_packed({"ß": {"bits": 4}}, {"a": 'b"'})):
        size = write_tensors(tmp_path / "x.safetensors", tensors, metadata)
        assert size == count_file_bytes(tensors, metadata)


def test_an_interrupted_write_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.safetensors"
    write_tensors(file, {"w": torch.ones(2)}, {})
    half = files.save_file

    def interrupted(tensors: Any, path: str, **options: Any) -> None:
        half(tensors, path, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_tensors(file, {"w": torch.zeros(2)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    assert load_file(file)["w"].tolist() == [1.0, 1.0]


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    w = torch.randn(3, 4)
    tensors = {"w": w, "half": w[:2], "turned": w.T}
    size = write_tensors(tmp_path / "x.safetensors", tensors, {})
    assert size == count_file_bytes(tensors, {})
    assert torch.equal(load_file(tmp_path / "x.safetensors")["half"], w[:2])


def test_others_may_read_it_as_any_new_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", {"w": torch.ones(2)}, {})
    (tmp_path / "plain").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("x.safetensors", "plain")]
    assert modes[0] == modes[1]


def test_says_where_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="cannot be written: No such file or directory"):
        write_tensors(tmp_path / "none" / "x.safetensors", {"w": torch.ones(2)}, {})
