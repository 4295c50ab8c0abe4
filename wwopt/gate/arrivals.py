"""What has arrived where checkpoints are written: files, folders, versions of a registered model.

A checkpoint is told from another of the same name by its size and the time of its last change, so
one that is written over is another one. Nothing is opened here.
"""

import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from wwopt.tracking.addresses import list_versions
from wwopt.weights.files.checkpoint_files import list_parts
from wwopt.weights.files.file_kinds import looks_like_checkpoint
from wwopt.weights.tensor_names import natural_key

_UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".incomplete", ".crdownload", ".lock")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+")  # of a checkpoint that its index stands for


@dataclass(frozen=True)
class Arrival:
    """A checkpoint that is there, complete or not."""

    name: str
    place: str  # path or address
    identity: str
    time: float  # of its last change, seconds since 1970

    @property
    def age(self) -> float:
        """Seconds since its last change; a clock that is ahead counts as an old change."""
        return abs(time.time() - self.time)


def list_folder(folder: Path) -> list[Arrival]:
    """The checkpoints of a folder, in the order in which they were written last.

    Files of any kind that is read, folders that hold one, and an index with its shards. Links to
    what lies in the folder itself ("latest") and names that say "not finished" are left out.

    Raises:
        OSError: if the folder cannot be read.
    """
    found = []
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name.endswith(_UNFINISHED) or _is_alias(path, folder):
            continue
        if _SHARD.search(path.name):
            continue
        arrival = look_at(path)
        if arrival is not None:
            found.append(arrival)
    # As in a folder that is read itself: beside checkpoints arrays of NumPy are a training's log.
    found = [arrival for arrival in found if not arrival.name.endswith(".npz")] or found
    return sorted(found, key=lambda arrival: (arrival.time, natural_key(arrival.name)))


def look_at(path: Path) -> Arrival | None:
    """A checkpoint as it is now; None where there is none (any more)."""
    try:
        is_index = path.name.endswith(".index.json")
        if not (path.is_dir() or is_index or looks_like_checkpoint(path)):
            return None
        parts = [part.stat() for part in list_parts(path)]
    except OSError:  # it was moved away in between
        return None
    files = [part for part in parts if stat.S_ISREG(part.st_mode)]
    if not files:
        return None
    size, changed = sum(f.st_size for f in files), max(f.st_mtime_ns for f in files)
    return Arrival(path.name, str(path), f"{path.name}|{size}|{changed}", changed / 1e9)


def list_registry(uri: str, name: str) -> list[Arrival]:
    """The versions of a registered model, in their order.

    Raises:
        TrackingError: if the store cannot be read, or has no model of that name.
    """
    return [
        Arrival(f"{name}/{number}", f"models:/{name}/{number}", f"version {number}", made / 1000.0)
        for number, made in list_versions(uri, name)
    ]


def _is_alias(path: Path, folder: Path) -> bool:
    return path.is_symlink() and path.resolve().is_relative_to(folder.resolve())
