"""GGUF files are read as the package `gguf` reads them; nothing is allocated on a header's word."""

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.weights.checkpoints import STATE, check_values
from fixtures.weights.corruptions import corruptions, refuses, survive_all

import wwopt
from wwopt.metrics.text import describe
from wwopt.weights.files import gguf_files
from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError

gguf = pytest.importorskip("gguf", reason="needs the extra gguf")
Type = gguf.GGMLQuantizationType
W = np.random.default_rng(0).standard_normal((12, 256)).astype(np.float32)


def write_gguf(path: Path, tensors: dict[str, Any], **types: Any) -> Path:
    """As llama.cpp's converters write it; types are given under a tensor's first word."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["<s>", "größe", ""] * 5)
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_uint32("llama.block_count", 3)
    writer.add_bool("flag", True)
    for name, array in tensors.items():
        writer.add_tensor(name, array, raw_dtype=types.get(name.partition(".")[0]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_is_read_under_its_own_names(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", {name: t.numpy() for name, t in STATE.items()})
    check_values(tmp_path / "model.gguf")
    check_values(tmp_path)  # the only checkpoint in its folder


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q5_1", "Q8_0", "TQ2_0", "MXFP4"])
def test_what_was_quantized_is_dequantized_and_called_so(tmp_path: Path, kind: str) -> None:
    stored = gguf.quantize(W, Type[kind])
    write_gguf(tmp_path / "w.gguf", {"fc.weight": stored}, fc=Type[kind])
    metrics = wwopt.analyze(tmp_path / "w.gguf")
    (matrix,) = read_weights(tmp_path / "w.gguf").matrices
    assert matrix.shape == (256, 12)
    expected = gguf.dequantize(stored, Type[kind])
    assert torch.equal(matrix.read()[0].float(), torch.from_numpy(expected))
    plain = kind in {"F32", "F16", "BF16"}
    assert metrics.notes == ({} if plain else {"fc": f"dequantized from {kind}"})
    assert plain or f"Noted: fc (dequantized from {kind})." in describe(metrics)
    assert read_weights(tmp_path / "w.gguf").parameters == W.size


@pytest.mark.parametrize(
    "kind", [t.name for t in Type if t.name[0] not in "FBI" or t.name[1] == "Q"]
)
def test_every_type_is_read_as_the_packages_own_reader_reads_it(tmp_path: Path, kind: str) -> None:
    """Blocks of random bytes: what no quantizer of the package can write, its reader can read."""
    block, size = gguf.GGML_QUANT_SIZES[Type[kind]]
    stored = np.random.default_rng(1).integers(0, 256, (6, 2 * size), dtype=np.uint8)
    write_gguf(tmp_path / "w.gguf", {"a.weight": W, "fc.weight": stored}, fc=Type[kind])
    weights = read_weights(tmp_path / "w.gguf")
    theirs = gguf.GGUFReader(tmp_path / "w.gguf").tensors[1]
    if "fc.weight" in weights.skipped:
        assert weights.skipped["fc.weight"].startswith(f"quantized: {kind}, which the package")
        with pytest.raises(NotImplementedError):
            gguf.dequantize(theirs.data, theirs.tensor_type)
        return
    ours = weights.matrices[1].read()[0]
    assert ours.shape == (6, 2 * block)
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(theirs.data, theirs.tensor_type)
    np.testing.assert_array_equal(ours.numpy(), expected)


def test_a_block_of_four_bits_by_hand(tmp_path: Path) -> None:
    """Q4_0: a scale in fp16, then 32 nibbles less 8: w = d (q - 8)."""
    block = np.float16(0.5).tobytes() + bytes(range(16))  # low nibbles 0..15, high ones 0
    stored = np.frombuffer(block * 2, np.uint8).reshape(2, 18)
    write_gguf(tmp_path / "w.gguf", {"fc.weight": stored}, fc=Type.Q4_0)
    row = read_weights(tmp_path / "w.gguf").matrices[0].read()[0][0]
    assert row[:16].tolist() == [0.5 * (q - 8) for q in range(16)]
    assert row[16:].tolist() == [-4.0] * 16


def test_experts_are_a_stack_and_the_rest_is_skipped(tmp_path: Path) -> None:
    tensors = {
        "blk.0.ffn_up_exps.weight": W.reshape(3, 4, 256),
        "blk.0.attn_norm.weight": W[0],
        "token_embd.weight": W,
        "ids": np.arange(3, dtype=np.int32),
    }
    weights = read_weights(write_gguf(tmp_path / "w.gguf", tensors))
    experts, embedding = weights.matrices
    assert (experts.kind, experts.num_slices, experts.shape) == ("moe", 3, (256, 4))
    assert (embedding.name, embedding.kind) == ("token_embd", "embedding")
    assert set(weights.skipped) == {"blk.0.attn_norm.weight", "ids"}


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "w.gguf", {"fc.weight": W})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(WeightsError, match=r"is a GGUF file: pip install 'wwopt\[gguf\]'"):
        read_weights(tmp_path / "w.gguf")


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def value(key: bytes, kind: int, content: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + content


def entry(
    name: bytes = b"w", sizes: tuple[int, ...] = (4, 2), kind: int = 0, offset: int = 0
) -> bytes:
    return string(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def file_of(
    *tensors: bytes,
    metadata: tuple[bytes, ...] = (),
    counts: tuple[int, int] | None = None,
    version: bytes = b"\3\0\0\0",
    data: bytes = bytes(64),
) -> bytes:
    numbers = struct.pack("<QQ", *(counts or (len(tensors), len(metadata))))
    head = b"GGUF" + version + numbers + b"".join(metadata) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


U32, STRING, ARRAY = 4, 8, 9
HUGE = 2**62


def test_the_file_that_the_others_are_made_from_is_sound(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(
        file_of(
            entry(),
            metadata=(
                value(b"general.alignment", U32, struct.pack("<I", 32)),
                value(b"a", ARRAY, struct.pack("<IQIQQ", ARRAY, 1, U32, 0, 0)[:-8]),
            ),
        )
    )
    (matrix,) = read_weights(tmp_path / "w.gguf").matrices
    assert matrix.read().shape == (1, 2, 4)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (file_of(), "holds no tensors"),
        (file_of(entry(), version=b"\1\0\0\0"), "it has version 1, known are 2 and 3"),
        (file_of(entry(), version=b"\0\0\0\3"), "big-endian machines; convert it"),
        (file_of(entry(), counts=(HUGE, 0)), r"\d+ bytes should follow byte 24"),
        (file_of(entry(), counts=(1, HUGE)), r"\d+ bytes should follow byte 24"),
        (
            file_of(entry(), metadata=(value(b"a", STRING, struct.pack("<Q", HUGE)),)),
            "should follow",
        ),
        (
            file_of(entry(), metadata=(value(b"a", ARRAY, struct.pack("<IQ", 0, HUGE)),)),
            "should foll",
        ),
        (
            file_of(entry(), metadata=(value(b"a", ARRAY, struct.pack("<IQ", 8, HUGE)),)),
            "should follow",
        ),
        (
            file_of(
                entry(),
                metadata=(value(b"a", ARRAY, struct.pack("<IQ", 9, 1) * 9),),
                data=bytes(999),
            ),
            "a value of the unknown type 9",
        ),
        (file_of(entry(), metadata=(value(b"a", 13, b""),)), "a value of the unknown type 13"),
        (file_of(entry(), metadata=(value(b"a", 0, b"1"),) * 2), "the key 'a' appears twice"),
        (file_of(entry(), metadata=(value(b"\xff", 0, b"1"),)), "can't decode"),
        (
            file_of(entry(), metadata=(value(b"general.alignment", U32, struct.pack("<I", 24)),)),
            "general.alignment is 24 of type 4, no power of two",
        ),
        (
            file_of(entry(), metadata=(value(b"general.alignment", U32, bytes(4)),)),
            "general.alignment is 0",
        ),
        (file_of(struct.pack("<Q", 10**6) + entry()[8:]), "a name of 1000000 bytes"),
        (file_of(entry(sizes=(1,) * 5)), "'w' has 5 dimensions"),
        (file_of(entry(sizes=(2**40, 2**40))), "has 160 bytes, and 'w' should end at"),
        (file_of(entry(sizes=(2**63, 0))), "should end at"),
        (file_of(entry(sizes=(2**32, 2**32), kind=24)), "should end at"),
        (file_of(entry(kind=999)), "'w' has the unknown type 999"),
        (file_of(entry(kind=4)), "'w' has the unknown type 4"),
        (file_of(entry(kind=2)), "'w' has rows of 4, no multiple of Q4_0's 32"),
        (file_of(entry(offset=HUGE)), "should end at"),
        (file_of(entry(offset=4)), "'w' starts at byte 100, inside of another or unaligned"),
        (file_of(entry(), entry(b"v"), data=bytes(96)), "inside of another"),
        (file_of(entry(), entry(offset=32)), "the name 'w' appears twice"),
        (file_of(entry(), data=bytes(20)), "'w' should end at"),
    ],
)
def test_a_header_that_lies_is_an_error(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        (tmp_path / "w.gguf").write_bytes(content)
        read_weights(tmp_path / "w.gguf")


def test_a_header_that_goes_on_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_files, "_LONGEST_HEADER", 40)
    assert "should follow" in refuses(tmp_path / "w.gguf", file_of(entry()))


def test_a_file_that_was_cut_off_since_it_was_opened_is_told(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "w.gguf", {"fc.weight": W})
    (matrix,) = read_weights(path).matrices
    path.write_bytes(path.read_bytes()[: -W.nbytes // 2])
    with pytest.raises(WeightsError, match=r"fc.weight of .*w.gguf ends after 6144 of 12288 bytes"):
        matrix.read()
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        matrix.read()


def small_file(path: Path) -> tuple[bytes, int]:
    """A file with tensors of six types, and where their values begin."""
    tensors = {"a.weight": W[:2, :64], "b.weight": W[:3, :64].astype(np.float16)}
    kinds = {"c": Type.Q4_0, "d": Type.Q6_K, "e": Type.IQ2_XXS, "f": Type.BF16}
    for name, kind in kinds.items():
        size = gguf.GGML_QUANT_SIZES[kind][1] * (8 if kind == Type.BF16 else 1)
        tensors[f"{name}.weight"] = np.random.default_rng(2).integers(0, 256, (3, size), np.uint8)
    content = write_gguf(path, tensors, **kinds).read_bytes()
    return content, gguf.GGUFReader(path).data_offset


@pytest.mark.parametrize(
    "trials", [300, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_corruption_at_thousands_of_places(tmp_path: Path, trials: int) -> None:
    sound, header = small_file(tmp_path / "w.gguf")
    contents = corruptions(sound, header, trials=trials)
    read, refused = survive_all(tmp_path / "w.gguf", contents, most=2**21, densest=8)
    assert read > trials / 10 and refused > trials / 10


def test_every_truncation(tmp_path: Path) -> None:
    sound, _ = small_file(tmp_path / "w.gguf")
    # The last bytes only fill up to the alignment.
    for length in range(0, len(sound) - 31, 13):
        refuses(tmp_path / "w.gguf", sound[:length])
