"""NumPy's archives are read as numpy reads them; no header, bomb or pickle gets further."""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.weights.checkpoints import STATE, check_values
from fixtures.weights.corruptions import corruptions, refuses, survive_all

from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError

W = np.random.default_rng(0).standard_normal((12, 8))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_numpy_is_read(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "model.npz", **{name: value.numpy() for name, value in STATE.items()})
    check_values(tmp_path / "model.npz")
    check_values(tmp_path)  # the only checkpoint in its folder
    (tmp_path / "model.npz").rename(tmp_path / "no-ending")
    check_values(tmp_path)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (W.astype("<f4"), "float32"),
        (W.astype(">f4"), "float32"),
        (W.astype("<f2"), "float16"),
        (W.astype(">f8"), "float64"),
        (np.asfortranarray(W), "float64"),
        (W[::2, ::2], "float64"),
    ],
)
def test_any_order_of_bytes_and_of_rows_gives_the_same_values(
    tmp_path: Path, array: Any, dtype: str
) -> None:
    np.savez(tmp_path / "w.npz", **{"fc.weight": array})
    (matrix,) = read_weights(tmp_path / "w.npz").matrices
    assert matrix.name == "fc" and matrix.dtype == dtype
    expected = torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
    assert torch.equal(matrix.read()[0], expected.to(matrix.read().dtype))


def test_what_is_no_weight_stands_in_skipped(tmp_path: Path) -> None:
    others = {
        "steps": np.arange(3),
        "objects": np.array([{}], dtype=object),
        "text": np.array(["a"]),
        "complex": W.astype(complex),
        "bfloat16": np.zeros((3, 3), "V2"),
        "long": W.astype(np.longdouble),
        "one": np.array(1.0),
        "empty": np.zeros((0, 4)),
    }
    np.savez(tmp_path / "w.npz", **{"fc.weight": W}, **others)
    weights = read_weights(tmp_path / "w.npz")
    assert [matrix.name for matrix in weights.matrices] == ["fc"]
    assert set(weights.skipped) == set(others)
    assert "would run code" in weights.skipped["objects"]
    assert "save it as float32" in weights.skipped["bfloat16"]


def test_an_archive_of_python_objects_is_refused_with_the_way_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", state=np.array([{"fc": W}], dtype=object))
    with pytest.raises(WeightsError, match=r"loading them would run code; .*allow_pickle=True"):
        read_weights(tmp_path / "w.npz")


def test_a_key_has_nothing_to_choose(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{"fc.weight": W})
    with pytest.raises(WeightsError, match="one model under no key"):
        read_weights(tmp_path / "w.npz", key="ema")


def npy(shape: str, *, dtype: str = "<f4", data: bytes = b"", version: bytes = b"\x01\0") -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data


def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as file:
        for name, data in members:
            file.writestr(name, data)
    return content.getvalue()


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (npy("(2, 2)", data=bytes(8)), r"8 bytes of values, where shape \(2, 2\) has 16"),
        (npy("(2, 2)", data=bytes(20)), "20 bytes of values"),
        (npy("(1000000, 1000000)"), "0 bytes of values"),
        (npy("(10**9,)"), "malformed node"),
        (npy(f"({2**63}, 0)"), "a shape that no array has"),
        (npy("(-2, -2)", data=bytes(16)), "a shape that no array has"),
        (npy(f"({'1, ' * 65})", data=bytes(4)), "a shape that no array has"),
        (npy("(True, 4)", data=bytes(8)), "8 bytes of values"),
        (npy("('2', 2)"), "shape is not valid"),
        (npy("(" * 300), "Error: "),
        (npy("-" * 9000 + "1"), "Error"),
        (npy("(2,)", dtype="<f99"), "Error"),
        (npy("(2,)", version=b"\x03\0"), "an array of format 3.0"),
        (npy("(2,)", version=b"\x02\0"), "EOF|expected"),
        (b"\x93NUMPY", "EOF|Expected"),
        (b"", "EOF|expected"),
    ],
)
def test_a_header_that_lies_is_an_error(tmp_path: Path, member: bytes, why: str) -> None:
    said = refuses(tmp_path / "w.npz", archive(("w.npy", member)))
    assert "is no sound NumPy archive" in said and "download or save it again" in said
    assert re.search(why, said), said


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """A megabyte that unpacks to a gigabyte is what deflate can do; a terabyte is not."""
    sound = archive(("w.npy", npy("(100, 100)", data=bytes(40_000))), method=zipfile.ZIP_DEFLATED)
    size = (40_000 + len(npy("(100, 100)"))).to_bytes(4, "little")
    assert sound.count(size) == 2
    forged = sound.replace(size, (2**31).to_bytes(4, "little"))
    assert "claim to be 2147483648" in refuses(tmp_path / "w.npz", forged)


def test_an_archive_that_holds_less_than_it_says_is_refused_when_it_is_read(tmp_path: Path) -> None:
    """The directory and the header agree on a size; what is unpacked is shorter."""
    short = archive(("w.npy", npy("(100, 90)", data=bytes(36_000))), method=zipfile.ZIP_DEFLATED)
    real = len(npy("(100, 90)", data=bytes(36_000)))
    sizes = (real.to_bytes(4, "little"), (real + 4000).to_bytes(4, "little"))
    path = tmp_path / "w.npz"
    path.write_bytes(short.replace(*sizes))
    with pytest.raises(WeightsError, match="bytes of values"):
        read_weights(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_what_numpy_writes_is_unpacked(tmp_path: Path, method: int) -> None:
    content = archive(("w.npy", npy("(2, 2)", data=bytes(16))), method=method)
    assert "which numpy does not use" in refuses(tmp_path / "w.npz", content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_stands_for_one_array(tmp_path: Path) -> None:
    member = npy("(2, 2)", data=bytes(16))
    content = archive(("w.npy", member), ("w.npy", member))
    assert "appears twice" in refuses(tmp_path / "w.npz", content)


def test_a_file_that_changed_since_it_was_opened_is_told(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, **{"fc.weight": W})
    (matrix,) = read_weights(path).matrices
    np.savez(path, **{"other.weight": W})
    with pytest.raises(WeightsError, match=r"fc.weight of .*w.npz cannot be read"):
        matrix.read()
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        matrix.read()


def small_archive(save: Any) -> bytes:
    content = io.BytesIO()
    state = {"fc.weight": W, "out.weight": W[:4].astype(">f4"), "bias": W[0], "steps": np.arange(3)}
    save(content, **state)
    return content.getvalue()


@pytest.mark.parametrize(
    "trials", [200, pytest.param(5_000, marks=pytest.mark.slow)], ids=["some", "all"]
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_corruption_at_thousands_of_places(tmp_path: Path, save: Any, trials: int) -> None:
    sound = small_archive(save)
    # Half of it: names, headers of arrays and the directory are spread over the file.
    contents = corruptions(sound[::-1], len(sound), trials=trials // 2, seed=1)
    read, refused = survive_all(
        tmp_path / "w.npz", (content[::-1] for content in contents), most=2**21, densest=1032
    )
    again = survive_all(
        tmp_path / "w.npz", corruptions(sound, 300, trials=trials // 2), most=2**21, densest=1032
    )
    assert read + again[0] > trials / 100 and refused + again[1] > trials / 4


def test_every_truncation(tmp_path: Path) -> None:
    sound = small_archive(np.savez)
    for length in range(0, len(sound), 23):
        refuses(tmp_path / "w.npz", sound[:length])
