"""Safetensors files are read in order; no broken header or dtype passes, and none crashes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.weights.checkpoints import STATE, check_values, survives
from safetensors import safe_open
from safetensors.torch import save_file

from wwopt.weights.files import safetensors_files
from wwopt.weights.files.checkpoint_files import open_checkpoint
from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError


def test_safetensors_file_is_read_in_natural_order(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "any.safetensors", metadata={"format": "pt"})
    check_values(tmp_path / "any.safetensors")
    check_values(tmp_path)  # the only checkpoint in its folder


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
