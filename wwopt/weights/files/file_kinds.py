"""What a file is, told by its first bytes: names say little (`.bin`, `.tar`, none at all).

Four formats are read: safetensors, what `torch.save` writes, GGUF and NumPy's archives. Of every
other file an error says what it looks like and what to do: most are failed downloads and other
frameworks' models.
"""

import re
import zipfile
from pathlib import Path
from typing import Literal

from wwopt.weights.stored_tensors import WeightsError
from wwopt.wording import write_names

Kind = Literal["safetensors", "pickled", "gguf", "npz"]

ENDINGS = frozenset(
    {".bin", ".ckpt", ".gguf", ".npz", ".pt", ".pth", ".safetensors"}
)  # that say "a checkpoint"
_HEAD = 512  # bytes: a tar's magic number ends at byte 262
_GGUF = b"GGUF"
_LFS = b"version https://git-lfs.github.com/spec/"
_SAVE = "save its weights with torch.save or as .safetensors"
_FRAMEWORKS = f"load it in its framework and {_SAVE} (docs/sources.md, Other frameworks)"
_UNPACK = "unpack it and pass the checkpoint in it"
# First bytes -> what they are, and the way out.
_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", _FRAMEWORKS),
    (b"\x93NUMPY", "a NumPy array", "pass {name: torch.from_numpy(array)} in Python"),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", "download or save it again"),
)


def tell_kind(path: Path) -> Kind:
    """Which of the formats a file has.

    Raises:
        WeightsError: if it has none of them; a broken file of one of them may pass.
        OSError: if it cannot be read.
    """
    head, tail, size = _read_ends(path)
    if _is_safetensors(head):
        return "safetensors"
    if head.startswith(_GGUF):
        return "gguf"
    if head.startswith(b"\x80"):  # a pickle of protocol 2 or later: torch.save's before 2020
        return "pickled"
    if head.startswith(b"PK\x03\x04"):
        found = _tell_zip(path)
        if isinstance(found, str):
            return found
        what, way_out = found
    else:
        what, way_out = _look(head, tail, size)
    if not what:
        if path.suffix == ".safetensors" and head:
            return "safetensors"  # broken; its reader says how
        first = head[:8].hex(" ") or "none"
        what, way_out = f"none of them: its first bytes are {first}", _SAVE
    raise WeightsError(
        f"{path} is no file of safetensors, torch.save, GGUF or NumPy but {what} ({size:,} bytes); "
        f"{way_out}"
    )


def looks_like_checkpoint(path: Path) -> bool:
    """Whether a path is a file of one of the formats, or is named like one."""
    if not path.is_file():  # a pipe would wait for ever
        return False
    if path.suffix in ENDINGS:
        return True
    try:
        head, _, _ = _read_ends(path)
        if head.startswith(b"PK\x03\x04"):
            return isinstance(_tell_zip(path), str) and zipfile.is_zipfile(path)
        return _is_safetensors(head) or head.startswith((_LEGACY, _GGUF))
    except OSError:
        return False


# torch.save's before 2020: protocol 2, then the number 0x1950a86a20f9469cfc6c.
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


def _read_ends(path: Path) -> tuple[bytes, bytes, int]:
    """The first 512 bytes of a file, its last 8, and its size."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        file.seek(max(size - 8, 0))
        return head, file.read(8), size


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, little-endian, then JSON; text has no bytes below tab among them."""
    return head[8:9] == b"{" and min(head[:8]) < 9 and not head[:8].startswith(b"PK")


def _tell_zip(path: Path) -> Kind | tuple[str, str]:
    """Which format a zip archive has; else what it is, and the way out."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        # Truncated, most likely, and the reader of these archives says so.
        return "npz" if path.suffix == ".npz" else "pickled"
    if any(re.fullmatch(r"(?:[^/]*/)?data\.pkl", name) for name in names):
        return "pickled"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if "model.weights.h5" in names:
        return "an archive of Keras", _FRAMEWORKS
    return f"a zip archive of {write_names(names, 3) or 'nothing'}", _UNPACK


def _look(head: bytes, tail: bytes, size: int) -> tuple[str, str]:
    """What a file looks like, and the way out; two empty strings where nobody knows."""
    if not size:
        return "an empty file", "download or save it again"
    for magic, what, way_out in _MAGIC:
        if head.startswith(magic):
            return what, way_out
    if head.startswith(_LFS):
        found = re.search(rb"^size (\d{1,15})$", head, re.MULTILINE)
        of = f" to {int(found[1]):,} bytes" if found else ""
        return f"a pointer of Git LFS{of}", "fetch the file itself with `git lfs pull`"
    if head[257:262] == b"ustar":
        return "a tar archive", f"{_UNPACK}; torch.save's of before 2017: {_SAVE}"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", _FRAMEWORKS
    if tail == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb":  # a table of LevelDB
        return "the index of a TensorFlow checkpoint", _FRAMEWORKS
    if head[:3] == b"\x08\x01\x12":  # version 1, then a graph
        return "a TensorFlow SavedModel", _FRAMEWORKS
    # The version of the format, then the producer, the graph or the operators.
    if head[:1] == b"\x08" and head[1:2] < b" " and head[2:3] in (b"\x12", b"\x3a", b"\x42"):
        return "an ONNX model", _FRAMEWORKS
    return _look_at_text(head)


def _look_at_text(head: bytes) -> tuple[str, str]:
    text = head.decode("utf-8", errors="ignore").lstrip("\ufeff \t\r\n")
    printable = sum(c.isprintable() or c in "\t\r\n" for c in text)
    if not text or printable < len(text) or len(text.encode()) < len(head) - 64:
        return "", ""
    if re.match(r"<(?:!doctype|html|\?xml)", text, re.IGNORECASE):
        return "a web page", "its download failed: open the address in a browser, download it again"
    start = text[:40].splitlines()[0]
    return f"text that starts with {start!r}", "is it the right file? download it again if so"
