"""Checkpoints on disk as stored tensors: which file holds what, checked before anything is read.

A path may be a file of safetensors, pickled tensors, GGUF or NumPy, told by its content, or a
folder of Hugging Face, PEFT or ``torch.distributed.checkpoint``. Headers and indexes are other
people's input: lengths are compared with the file, names with the folder, and nothing is allocated
on their word.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from wwopt.weights.files.distributed_folders import check_plain, open_distributed, path_inside
from wwopt.weights.files.file_kinds import ENDINGS, looks_like_checkpoint, tell_kind
from wwopt.weights.files.gguf_files import open_gguf
from wwopt.weights.files.numpy_files import open_npz
from wwopt.weights.files.pickled_files import open_pickled
from wwopt.weights.files.remote_files import (
    exists_remotely,
    is_remote,
    join_url,
    open_remote_safetensors,
    read_remote_file,
    show_url,
)
from wwopt.weights.files.safetensors_files import open_safetensors
from wwopt.weights.files.training_checkpoints import NoChoiceError
from wwopt.weights.stored_tensors import StoredTensor, WeightsError
from wwopt.weights.tensor_names import natural_key
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
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")
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
        path: of a file or a folder; or the address of a safetensors file, of an index or of a
            folder with one of them, which `fsspec` reaches.
        key: dotted path of the model in a checkpoint that holds several.

    Raises:
        WeightsError: if there is none, it is broken, reading it would run code, or it has no such
            key; as `NoChoiceError` if its format has none.
    """
    if isinstance(path, str) and is_remote(path):
        return _open_address(path, key)
    path = Path(path)
    try:
        return _open_folder(path, key) if path.is_dir() else _open_path(path, key)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error


def list_parts(path: Path) -> list[Path]:
    """The files that a checkpoint is read from; none where a folder holds none, or not yet.

    An index stands for all files of its ending beside it. Nothing is opened.

    Raises:
        OSError: if a folder cannot be read.
    """
    if path.name.endswith(".index.json"):
        ending = path.name.removesuffix(".index.json").rpartition(".")[2]
        return [path, *sorted(path.parent.glob(f"*.{ending}"))]
    if not path.is_dir():
        return [path]
    for name in _FOLDER_FILES:
        if (path / name).exists():
            return list_parts(path / name)
    if (path / ".metadata").exists():
        return [path / ".metadata", *sorted(path.glob("*.distcp"))]
    found = [entry for entry in path.iterdir() if looks_like_checkpoint(entry)]
    alone = len(found) == 1 and not _SHARD.search(found[0].name)  # of which the index is to come
    return found if alone else []


def _open_path(path: Path, key: str | None) -> Checkpoint:
    if not path.exists():
        if str(path).startswith(("models:/", "runs:/")):
            raise WeightsError(
                f"{path} is an address of MLflow, which commands read; in Python fetch its weights "
                "with wwopt.tracking.fetch_weights and pass their path"
            )
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
    shards = _list_shards(_read_json(folder / name), str(folder / name))
    paths = {shard: path_inside(folder, name, shard) for shard in shards}
    return _gather(shards, name, str(folder), lambda shard: _open_file(paths[shard], None))


def _list_shards(index: Mapping[str, Any], where: str) -> dict[str, set[str]]:
    """The tensors of every shard, as an index has them."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{where} has no weight_map; download it again")
    shards: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise WeightsError(f"{where} names {shard!r} as the file of {tensor!r}")
        shards.setdefault(shard, set()).add(tensor)
    return shards


def _gather(
    shards: Mapping[str, set[str]],
    name: str,
    folder: str,
    open_shard: Callable[[str], list[StoredTensor]],
) -> list[StoredTensor]:
    """The tensors of all shards, held against the index of that name."""
    tensors: list[StoredTensor] = []
    for shard in sorted(shards, key=natural_key):
        found = open_shard(shard)
        lost = shards[shard] - {tensor.name for tensor in found}
        if lost:
            where = f"{folder.rstrip('/')}/{shard}"
            raise WeightsError(f"{where} lacks {min(lost)!r}, which {name} places there")
        for tensor in found:
            unlisted = tensor.name not in shards[shard]
            problem = f"in {shard}, but not in the index" if unlisted else tensor.problem
            tensors.append(replace(tensor, problem=problem))
    if name.endswith(".safetensors.index.json"):
        tensors.sort(key=lambda tensor: natural_key(tensor.name))
    return tensors


def _open_address(url: str, key: str | None) -> Checkpoint:
    """Open a safetensors file, an index or a folder at an address."""
    if key is not None:
        raise NoChoiceError.of(show_url(url), key)
    address = urlsplit(url)
    name = f"{address.netloc}{address.path}".rpartition("/")[2]  # memory://w has no path
    if name.endswith(".safetensors.index.json"):
        folder = urlunsplit(address._replace(path=address.path.removesuffix(f"/{name}")))
        return _open_remote_folder(folder, name)
    if name.endswith(".safetensors") or address.query:
        return Checkpoint(tuple(open_remote_safetensors(url)))
    if Path(name).suffix in ENDINGS:
        raise WeightsError(f"{show_url(url)}: at an address only safetensors are read; download it")
    remote = [name for name in _FOLDER_FILES if "safetensors" in name]
    for name in remote:
        if exists_remotely(join_url(url, name)):
            return _open_remote_folder(url, name)
    raise WeightsError(f"{show_url(url)} holds no checkpoint (looked for {', '.join(remote)})")


def _open_remote_folder(folder: str, name: str) -> Checkpoint:
    if name.endswith(".index.json"):
        where = show_url(join_url(folder, name))
        index = _read_remote_json(join_url(folder, name))
        if index is None:
            raise WeightsError(f"{where} does not exist, or may not be read")
        shards = _list_shards(index, where)
        for shard in shards:
            check_plain(shard, where)
        tensors = _gather(
            shards, name, show_url(folder), lambda s: open_remote_safetensors(join_url(folder, s))
        )
    else:
        tensors = open_remote_safetensors(join_url(folder, name))
    return Checkpoint(
        tuple(tensors),
        config=_read_remote_json(join_url(folder, "config.json")) or {},
        adapter=_read_remote_json(join_url(folder, "adapter_config.json")),
    )


def _read_remote_json(url: str) -> dict[str, Any] | None:
    content = read_remote_file(url, most=_LONGEST_JSON)
    return None if content is None else _parse_json(content, show_url(url))


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
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    return _parse_json(content, str(path))


def _parse_json(text: bytes | bytearray, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{where} is no JSON ({first_line(error)}); download it again"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{where} holds a {type(content).__name__}, no mapping")
    return content
