"""Packed files as other people may damage them; sound ones are read in `tests/compression`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from wwopt.compression.compressed_networks import apply_plans
from wwopt.compression.plans import LayerPlan
from wwopt.weights.matrices import read_weights
from wwopt.weights.packed_tensors import METADATA_KEY
from wwopt.weights.stored_tensors import WeightsError

PLANS = {
    "coded": LayerPlan(bits=4, group=8),
    "sparse": LayerPlan(sparsity=0.5),
    "both": LayerPlan(bits=4, sparsity=0.5),
    "thin": LayerPlan(rank=3, bits=4),
}


@pytest.fixture
def parts() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a packed file, and what its metadata say of them."""
    torch.manual_seed(0)
    state = {f"{name}.weight": torch.randn(24, 16) for name in PLANS}
    state["bias"] = torch.zeros(24)
    compressed = apply_plans(state, PLANS)
    return compressed.stored, json.loads(compressed.metadata[METADATA_KEY])


def write(folder: Path, tensors: dict[str, torch.Tensor], about: Any) -> Path:
    file = folder / "model.safetensors"
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(tensors, file, metadata={METADATA_KEY: text})
    return file


def test_layers_are_named_as_before_and_say_how_they_are_packed(
    parts: tuple[dict[str, torch.Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    found = read_weights(write(tmp_path, *parts))
    assert {matrix.name: matrix.dtype for matrix in found.matrices} == {
        "coded": "packed 4 bits",
        "sparse": "packed sparse float32",
        "both": "packed sparse 4 bits",
        "thin": "packed rank 3, 4 bits",
    }
    assert found.parameters == 4 * 24 * 16 + 24
    notes = {matrix.name: matrix.note for matrix in found.matrices}
    assert notes["coded"] == "dequantized from 4 bits"
    assert notes["sparse"] == ""  # its values are exact


DAMAGES: dict[str, tuple[Any, str]] = {
    "another format": (lambda a: a.update(format=2), "packed in format 2, known is 1"),
    "no tensors": (lambda a: a.pop("tensors"), "damaged .KeyError"),
    "a list": (lambda a: a.update(tensors=[]), "no mapping"),
    "bits": (lambda a: a["tensors"]["coded.weight"].update(bits=9), "codes of 9 bits"),
    "group": (lambda a: a["tensors"]["coded.weight"].update(group=0), "groups of 0"),
    "other group": (lambda a: a["tensors"]["coded.weight"].update(group=4), r"shape \(24, 4\)"),
    "shape": (lambda a: a["tensors"]["coded.weight"].update(shape=[24, 17]), "should have"),
    "negative": (lambda a: a["tensors"]["coded.weight"].update(shape=[-24, -16]), "the shape"),
    "axis": (lambda a: a["tensors"]["coded.weight"].update(axis=7), "no axis 7"),
    "dtype": (lambda a: a["tensors"]["coded.weight"].update(dtype="Tensor"), "dtype 'Tensor'"),
    "rank": (lambda a: a["tensors"]["thin.weight"].update(rank=4), "no product"),
    "kept": (lambda a: a["tensors"]["both.weight"].update(kept=10**6), "keeps 1000000"),
    "stranger": (lambda a: a["tensors"].update(x={"shape": [2, 2], "dtype": "float32"}), "damaged"),
    "tied": (lambda a: a.update(tied={"head": "nowhere"}), "'nowhere', which is not there"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_by_name(
    damage: str, parts: tuple[dict[str, torch.Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    tensors, about = parts
    change, message = DAMAGES[damage]
    change(about)
    file = write(tmp_path, tensors, about)
    with pytest.raises(WeightsError, match=f"model.safetensors is no sound.*({message})"):
        read_weights(file)


def test_what_is_no_json_is_refused(
    parts: tuple[dict[str, torch.Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    for text in ("{", "[]", '"x"', "[" * 100_000):
        with pytest.raises(WeightsError, match="no sound safetensors file"):
            read_weights(write(tmp_path, parts[0], text))


def test_a_mask_that_keeps_another_number_is_told_when_it_is_read(
    parts: tuple[dict[str, torch.Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    tensors, about = parts
    tensors["sparse.weight.kept"] = torch.zeros_like(tensors["sparse.weight.kept"])
    found = {m.name: m for m in read_weights(write(tmp_path, tensors, about)).matrices}
    with pytest.raises(WeightsError, match="192 values are stored for 0 weights"):
        found["sparse"].read()


def test_an_address_is_read_as_a_file_is(
    parts: tuple[dict[str, torch.Tensor], dict[str, Any]], tmp_path: Path
) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra remote")
    file = write(tmp_path, *parts)
    fsspec.filesystem("memory").pipe("/packed/w.safetensors", file.read_bytes())
    here, there = (read_weights(s) for s in (file, "memory://packed/w.safetensors"))
    assert [m.dtype for m in here.matrices] == [m.dtype for m in there.matrices]
    for one, other in zip(here.matrices, there.matrices, strict=True):
        assert torch.equal(one.read(), other.read())
