"""Checkpoints on disk as stored tensors: which file holds what, checked before anything is read.

A path may be a file of safetensors, pickled tensors, GGUF or NumPy, told by its content, or a
folder of Hugging Face, PEFT or ``torch.distributed.checkpoint``. Headers and indexes are other
people's input: lengths are compared with the file, names with the folder, and nothing is allocated
on their word.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wwopt.weights.distributed_folders import open_distributed, path_inside
from wwopt.weights.file_kinds import looks_like_checkpoint, tell_kind
from wwopt.weights.gguf_files import open_gguf
from wwopt.weights.numpy_files import open_npz
from wwopt.weights.pickled_files import open_pickled
from wwopt.weights.safetensors_files import open_safetensors
from wwopt.weights.stored_tensors import StoredTensor, WeightsError
from wwopt.weights.tensor_names import natural_key
from wwopt.weights.training_checkpoints import NoChoiceError
from wwopt.wording import first_line

# In this order: tensors without code first, the full model before an adapter to it.
_FOLDER_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "adapter_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "adapter_model.bin",
)
_OPEN = {"safetensors": open_safetensors, "gguf": open_gguf, "npz": open_npz}
_LONGEST_JSON = 256 * 2**20  # bytes; the index of DeepSeek-V3, 91,991 tensors, has 8.9 MB


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint."""

    tensors: tuple[StoredTensor, ...]
    config: Mapping[str, Any] = field(default_factory=dict)  # config.json of a folder
    adapter: Mapping[str, Any] | None = None  # adapter_config.json of a folder


def open_checkpoint(path: str | os.PathLike[str], *, key: str | None = None) -> Checkpoint:
    """Describe the tensors of a checkpoint.

    Args:
        path: of a file or a folder.
        key: dotted path of the model in a checkpoint that holds several.

    Raises:
        WeightsError: if there is none, it is broken, reading it would run code, or it has no such
            key; as `NoChoiceError` if its format has none.
    """
    path = Path(path)
    try:
        return _open_folder(path, key) if path.is_dir() else _open_path(path, key)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error


def _open_path(path: Path, key: str | None) -> Checkpoint:
    if not path.exists():
        raise WeightsError(f"{path} does not exist")
    if not path.is_file():  # a pipe would wait for ever
        raise WeightsError(f"{path} is no file and no folder")
    if path.name.endswith(".index.json"):
        return _with_configuration(_open_index(path.parent, path.name, key), path.parent)
    return Checkpoint(tuple(_open_file(path, key)))


def _open_file(path: Path, key: str | None) -> list[StoredTensor]:
    kind = tell_kind(path)
    if kind == "pickled":
        return open_pickled(path, key=key)
    if key is not None:
        raise NoChoiceError.of(path, key)
    return _OPEN[kind](path)


def _open_folder(folder: Path, key: str | None) -> Checkpoint:
    for name in _FOLDER_FILES:
        if (folder / name).exists():
            open_it = _open_index if name.endswith(".index.json") else _open_named
            return _with_configuration(open_it(folder, name, key), folder)
    if (folder / ".metadata").exists():
        return Checkpoint(tuple(open_distributed(folder, key=key)))
    indexes = sorted(entry.name for entry in folder.glob("*.safetensors.index.json"))
    if len(indexes) == 1:
        return _with_configuration(_open_index(folder, indexes[0], key), folder)
    found = sorted(entry.name for entry in folder.iterdir() if looks_like_checkpoint(entry))
    # Beside a checkpoint arrays of NumPy are a training's log.
    candidates = [name for name in found if not name.endswith(".npz")] or found
    if len(candidates) == 1:
        return _with_configuration(_open_named(folder, candidates[0], key), folder)
    if candidates:
        listed = ", ".join(candidates[:5]) + (", ..." if len(candidates) > 5 else "")
        raise WeightsError(
            f"{folder} holds several checkpoints without an index: {listed}; pass one"
        )
    below = sorted(
        {path.parent.name for name in _FOLDER_FILES for path in folder.glob(f"*/{name}")}
    )
    if below:  # a diffusers pipeline, or one folder per epoch
        raise WeightsError(
            f"{folder} holds checkpoints in {', '.join(below[:5])}; pass one of them"
        )
    raise WeightsError(f"{folder} holds no checkpoint (looked for {', '.join(_FOLDER_FILES)})")


def _open_named(folder: Path, name: str, key: str | None) -> list[StoredTensor]:
    return _open_file(folder / name, key)


def _open_index(folder: Path, name: str, key: str | None) -> list[StoredTensor]:
    """Open the shards that an index names, and no file that lies elsewhere."""
    if key is not None:
        raise NoChoiceError.of(folder / name, key)
    weight_map = _read_json(folder / name).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{folder / name} has no weight_map; download it again")
    shards: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise WeightsError(f"{folder / name} names {shard!r} as the file of {tensor!r}")
        shards.setdefault(shard, set()).add(tensor)
    paths = {shard: path_inside(folder, name, shard) for shard in shards}
    tensors: list[StoredTensor] = []
    for shard in sorted(shards, key=natural_key):
        found = _open_file(paths[shard], None)
        lost = shards[shard] - {tensor.name for tensor in found}
        if lost:
            raise WeightsError(f"{paths[shard]} lacks {min(lost)!r}, which {name} places there")
        for tensor in found:
            unlisted = tensor.name not in shards[shard]
            problem = f"in {shard}, but not in the index" if unlisted else tensor.problem
            tensors.append(replace(tensor, problem=problem))
    if name.endswith(".safetensors.index.json"):
        tensors.sort(key=lambda tensor: natural_key(tensor.name))
    return tensors


def _with_configuration(tensors: list[StoredTensor], folder: Path) -> Checkpoint:
    config, adapter = folder / "config.json", folder / "adapter_config.json"
    return Checkpoint(
        tuple(tensors),
        config=_read_json(config) if config.is_file() else {},
        adapter=_read_json(adapter) if adapter.is_file() else None,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > _LONGEST_JSON:
            raise WeightsError(f"{path} has {size} bytes, more than {_LONGEST_JSON}; is it JSON?")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path} is no JSON ({first_line(error)}); download it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, no mapping")
    return content
