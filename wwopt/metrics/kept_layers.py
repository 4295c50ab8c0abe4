"""Layers that were measured, kept in a file, so that an interrupted analysis goes on after them.

A line of JSON a layer: what it was measured of and how, and its spectrum, from which the metrics
are computed anew in milliseconds. Lines are appended as layers are done; one that was torn when the
process died is left out, and its layer is measured again.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from wwopt.spectra.spectrum import LayerSpectrum

FORMAT = 1


class KeptLayersError(ValueError):
    """The file is no such file, or cannot be written."""


def identify(source: str | os.PathLike[str], options: Mapping[str, Any]) -> str:
    """A hash of what decides the numbers: the files with their sizes and times, and the options.

    Args:
        source: path of a file or of a folder, or an address, which is taken for what it says.
        options: of the analysis, as plain data.
    """
    path = Path(source)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
        if file.is_file()
    ]
    where = str(path.resolve()) if stats else str(source)
    told = json.dumps([FORMAT, where, stats, dict(options)], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def read_kept(file: Path, identity: str) -> dict[str, dict[str, Any]]:
    """Name of each layer that was measured so → the fields of its `LayerSpectrum`.

    Raises:
        KeptLayersError: if the file holds something else.
    """
    if not file.exists():
        return {}
    found: dict[str, dict[str, Any]] = {}
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines):
        try:
            kept = json.loads(line) if line else {}
            mine = kept.get("measured") == identity
            record = {k: _decode(v) for k, v in kept["layer"].items()} if mine else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines) - 1:  # torn
                break
            raise KeptLayersError(
                f"{file}: line {number + 1} is none that `--resume` wrote; name another file"
            ) from error
        if record is not None:
            found[record["name"]] = record
    return found


def keep_layer(file: Path, identity: str, spectrum: LayerSpectrum) -> None:
    """Append a layer.

    Raises:
        KeptLayersError: if the file cannot be written.
    """
    record = {f.name: _encode(getattr(spectrum, f.name)) for f in fields(spectrum)}
    line = json.dumps({"measured": identity, "layer": record}).encode()
    try:
        with file.open("ab+") as kept:
            if kept.tell() > 0:
                kept.seek(-1, os.SEEK_END)
                if kept.read(1) != b"\n":  # what was torn ends here
                    _cut(kept)
            kept.write(line + b"\n")
    except OSError as error:
        raise KeptLayersError(f"{file} cannot be written: {error.strerror or error}") from error


def _cut(kept: Any) -> None:
    """Remove a torn last line."""
    kept.seek(0)
    whole = kept.read()
    kept.truncate(whole.rfind(b"\n") + 1)


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value, dtype="<f8").tobytes()
        return {"shape": list(value.shape), "float64": base64.b64encode(data).decode()}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        data = base64.b64decode(value["float64"], validate=True)
        return np.frombuffer(data, "<f8").reshape(value["shape"])
    return tuple(value) if isinstance(value, list) else value
