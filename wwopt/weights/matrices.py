"""The weight matrices of a model, from memory or from disk, and what is not analysed and why.

    read_weights(source) -> Weights(matrices, skipped)

A source is an ``nn.Module``, a state dict, or a path: a file of safetensors, ``torch.save``, GGUF
or NumPy, a Hugging Face folder, sharded or not, a PEFT adapter's folder, a
``torch.distributed.checkpoint`` folder; or the address of a safetensors file or folder. What a
trainer saved around the model is set aside. Matrices are described at once and read one at a time,
on request; names follow the rules of ``wwopt.weights.layouts``.
"""

import difflib
import fnmatch
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from wwopt.weights.differences import subtract_base
from wwopt.weights.files.checkpoint_files import open_checkpoint
from wwopt.weights.files.gguf_files import QUANTIZED
from wwopt.weights.files.remote_files import is_remote
from wwopt.weights.files.training_checkpoints import NoChoiceError, mark_moments, store_state
from wwopt.weights.layouts import MatrixPart, ModelFacts, matrix_parts
from wwopt.weights.lora import (
    AdapterFactors,
    adapt_base,
    apply_adapters,
    is_adapter,
    list_factors,
)
from wwopt.weights.lora_settings import FindSettings, settings_from_config, settings_from_module
from wwopt.weights.module_tensors import store_module
from wwopt.weights.packed_tensors import PACKED
from wwopt.weights.rebuilt_weights import rebuild_weights
from wwopt.weights.sharded_modules import ShardedModule, store_sharded
from wwopt.weights.stored_tensors import StoredTensor, WeightsError
from wwopt.weights.tensor_names import bare_name

Source = nn.Module | Mapping[str, Any] | str | os.PathLike[str]

Opened = TypeVar("Opened")

# int64 and bool tensors are none.
_PARAMETER_DTYPES = ("float", "bfloat", "int8", "uint8", QUANTIZED, PACKED)


@dataclass(frozen=True)
class WeightMatrix:
    """One layer's weights: a stack of equally shaped matrices, read when asked."""

    name: str  # layer name: the module path, with parts as "attn.in_proj.q"
    kind: str  # "linear", "conv2d", "embedding", "hf_conv1d", "attention", "rnn", "moe", ...
    shape: tuple[int, int]  # (N, M) of every slice, N >= M
    num_slices: int  # kernel positions and groups of a convolution, experts; 1 for linear
    dtype: str  # as stored, e.g. "bfloat16"
    read: Callable[[], torch.Tensor]  # -> (num_slices, rows, columns), float32 or float64
    tied: tuple[str, ...] = ()  # other names of the same tensor, which is counted once
    rank_bound: int | None = None  # of a low-rank delta, whose spectrum cannot carry an alpha
    note: str = ""  # what a reader should know, e.g. that q, k and v could not be told apart
    outputs: int = 0  # rows of a slice as `read` gives it, N or M; the columns are its inputs


@dataclass(frozen=True)
class Weights:
    """All weight matrices of a model, and what else a look at its tensors tells."""

    matrices: tuple[WeightMatrix, ...]  # in model order; files that sort their names: sorted
    skipped: Mapping[str, str]  # tensor or layer name -> why it is not analysed
    parameters: float = math.nan  # of the whole source; tied ones once; NaN where it stores none
    model_type: str = ""  # Hugging Face's, e.g. "bert", also of a model that is wrapped
    in_files: bool = False  # whether other processes, on this machine, can read them too
    first: str | None = None  # the model's first matrix, selected or not; None: of `matrices`
    on_cpu: bool = True  # whether all lie on the CPU, or in files
    is_difference: bool = False  # of a source and its base, and so no network


def read_weights(
    source: Source,
    *,
    base: Source | None = None,
    layers: Sequence[str] | None = None,
    key: str | None = None,
) -> Weights:
    """List the weight matrices of a model; their values are read later, one at a time.

    Args:
        source: an ``nn.Module``, a state dict, or a path.
        base: another source; the matrices are then differences source - base, matched by name
            up to the prefixes of common wrappers. A LoRA adapter's folder is added to its base
            instead: the result is the adapted model.
        layers: names of layers or modules, or patterns as in ``fnmatch``; None for all.
        key: dotted path of the model in a checkpoint that holds several, such as "ema"; of source
            and base alike, but that one of them may be a model alone, which has no keys.

    Raises:
        WeightsError: if a source cannot be read or is no model, a layer or a key does not exist,
            or a source holds several models of equal claim.
    """
    opened, *bases = open_with_key(
        [partial(_open, one) for one in (source, base) if one is not None], key
    )
    devices = opened.devices
    is_difference = bool(bases) and not is_adapter(opened.tensors)
    if not bases:
        tensors, config = apply_adapters(opened.tensors, opened.adapters), opened.config
    else:
        (under,) = bases
        devices |= under.devices
        below = apply_adapters(under.tensors, under.adapters)
        if not is_difference:
            tensors, config = adapt_base(below, opened.tensors, opened.adapters), under.config
        else:
            tensors = subtract_base(apply_adapters(opened.tensors, opened.adapters), below)
            config = opened.config
    facts = _facts(tensors, config)
    matrices, skipped = _list_matrices(tensors, facts)
    weights = Weights(
        matrices,
        skipped,
        parameters=opened.parameters,
        model_type=facts.model_type,
        in_files=all(_is_elsewhere(one) for one in (source, base) if one is not None),
        on_cpu=devices <= {"cpu"},
        is_difference=is_difference,
    )
    return weights if layers is None else _select(weights, layers)


def read_tensors(
    source: Source, *, key: str | None = None
) -> list[tuple[StoredTensor, tuple[MatrixPart, ...]]]:
    """List every tensor of a model, those without a matrix too, as a copy of it would hold them.

    Args:
        source: as of `read_weights`.
        key: as of `read_weights`.

    Returns:
        Each with its matrices; none where it is no weight matrix.

    Raises:
        WeightsError: if the source cannot be read, or is an adapter without its base.
    """
    opened = _open(source, key)
    if is_adapter(opened.tensors):
        raise WeightsError(
            "this is a LoRA adapter without its base: merge the two first, as PEFT's "
            "merge_and_unload() does, and pass the merged model"
        )
    tensors = [t for t in apply_adapters(opened.tensors, opened.adapters) if not t.beside]
    facts = _facts(tensors, opened.config)
    found = ((tensor, matrix_parts(tensor, facts)) for tensor in tensors)
    return [(tensor, () if isinstance(parts, str) else parts) for tensor, parts in found]


def read_factors(source: Source, *, key: str | None = None) -> tuple[AdapterFactors, ...]:
    """List the factors of a source's LoRA adapters; their values are read later.

    Args:
        source: a PEFT module, or an adapter's folder; of anything else there are none.
        key: as for `read_weights`.

    Raises:
        WeightsError: if the source cannot be read.
    """
    opened = _open(source, key)
    return list_factors(opened.tensors, opened.adapters)


def read_vector(source: Source, name: str, *, key: str | None = None) -> torch.Tensor | None:
    """A vector that stands beside the matrices, such as a layer's bias.

    Args:
        source: as of `read_weights`.
        name: of the tensor, such as "head.bias".
        key: as of `read_weights`.

    Returns:
        Shape (n,); None where the source has no vector of that name that can be read.

    Raises:
        WeightsError: if the source cannot be read.
    """
    opened = _open(source, key)
    for tensor in apply_adapters(opened.tensors, opened.adapters):
        if tensor.name == name and len(tensor.shape) == 1 and not tensor.problem:
            return tensor.read().detach()
    return None


def open_with_key(
    openers: Sequence[Callable[[str | None], Opened]], key: str | None
) -> list[Opened]:
    """Open sources that are looked at together; a model alone has no keys, where another has them.

    Raises:
        WeightsError: if one cannot be opened; as `NoChoiceError` if all are models alone.
    """
    opened: list[Opened] = []
    alone: list[NoChoiceError] = []
    for opener in openers:
        try:
            opened.append(opener(key))
        except NoChoiceError as error:
            alone.append(error)
            opened.append(opener(None))
    if len(alone) == len(openers) and alone:
        raise alone[0]
    return opened


def is_path(source: object) -> bool:
    """Whether a source lies in files."""
    return isinstance(source, str | os.PathLike)


def _is_elsewhere(source: object) -> bool:
    """Whether other processes find a source too: files are, fsspec's memory:// is not."""
    return is_path(source) and not str(source).startswith("memory://")


def locate(source: Any) -> Any:
    """The source as processes in other folders find it: a path made absolute."""
    return os.path.abspath(source) if is_path(source) and not is_remote(source) else source


@dataclass(frozen=True)
class _Opened:
    """A source as stored tensors: parametrisations rebuilt, adapters found but not applied."""

    tensors: list[StoredTensor]
    config: Mapping[str, Any]  # Hugging Face's config.json, as far as there is one
    adapters: FindSettings
    parameters: float  # as stored; those that names share once; NaN where there are none
    devices: frozenset[str]  # kinds, of all that can be read


def _open(source: Source, key: str | None) -> _Opened:
    """The one place that asks what a source is."""
    stored: Sequence[StoredTensor]
    config: Mapping[str, Any] = {}
    settings = settings_from_config({})
    if isinstance(source, nn.Module):
        if key is not None:
            raise NoChoiceError.of(f"the {type(source).__name__}", key)
        if isinstance(source, ShardedModule):
            stored = store_sharded(source)
        else:
            stored = store_module(source)
        config = _module_config(source)
        settings = settings_from_module(source)
    elif isinstance(source, Mapping):
        stored = mark_moments(store_state(source, key=key))
    elif is_path(source):
        checkpoint = open_checkpoint(source, key=key)
        stored, config = mark_moments(checkpoint.tensors), checkpoint.config
        settings = settings_from_config(checkpoint.adapter)
    else:
        raise WeightsError(
            f"cannot read weights from a {type(source).__name__}; pass an nn.Module, a state dict "
            "or the path of a checkpoint"
        )
    devices = frozenset(tensor.device for tensor in stored if not tensor.problem)
    return _Opened(rebuild_weights(stored), config, settings, _count_parameters(stored), devices)


def _count_parameters(tensors: Iterable[StoredTensor]) -> float:
    own = [t for t in tensors if not t.buffer and t.dtype.startswith(_PARAMETER_DTYPES)]
    first = {t.identity if t.identity is not None else t.name: t for t in own}
    return float(sum(math.prod(t.shape) for t in first.values())) if own else math.nan


def _module_config(model: nn.Module) -> Mapping[str, Any]:
    for module in model.modules():  # the model itself, or what DDP or PEFT wrap
        config = getattr(module, "config", None)
        if isinstance(getattr(config, "model_type", None), str):
            keys = ("model_type", "num_attention_heads", "n_head", "num_heads")
            return {key: getattr(config, key, None) for key in keys}
    return {}


def _list_matrices(
    tensors: Sequence[StoredTensor], facts: ModelFacts
) -> tuple[tuple[WeightMatrix, ...], dict[str, str]]:
    matrices: dict[str, WeightMatrix] = {}
    skipped: dict[str, str] = {}
    first: dict[Any, list[str]] = {}  # identity -> the matrices under the tensor's first name
    for tensor in tensors:
        parts = matrix_parts(tensor, facts)
        if isinstance(parts, str):
            skipped[tensor.name] = parts
            continue
        names = first.get(tensor.identity, []) if tensor.identity is not None else []
        if len(names) == len(parts):
            for name, part in zip(names, parts, strict=True):
                tied = (*matrices[name].tied, part.name)
                matrices[name] = replace(matrices[name], tied=tied)
            continue
        first[tensor.identity] = [_add_matrix(matrices, tensor, part) for part in parts]
    return tuple(matrices.values()), skipped


def _add_matrix(matrices: dict[str, WeightMatrix], tensor: StoredTensor, part: MatrixPart) -> str:
    num_slices, rows, columns = part.slice_shape(tensor.shape)
    name = part.name
    while name in matrices:  # "fc" beside "fc.weight" in one state dict
        name += "'"
    matrices[name] = WeightMatrix(
        name=name,
        kind=part.kind,
        shape=(max(rows, columns), min(rows, columns)),
        num_slices=num_slices,
        dtype=tensor.dtype,
        read=partial(_read_part, tensor.read, part),
        rank_bound=tensor.rank_bound,
        note="; ".join(filter(None, (tensor.note, part.note))),
        outputs=rows,
    )
    return name


def _read_part(read: Callable[[], torch.Tensor], part: MatrixPart) -> torch.Tensor:
    return part.slices(read().detach())


def _facts(tensors: Iterable[StoredTensor], config: Mapping[str, Any]) -> ModelFacts:
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    heads = (config.get(key) for key in ("num_attention_heads", "n_head", "num_heads"))
    model_type = config.get("model_type")
    return ModelFacts(
        shapes=shapes,
        heads=next((h for h in heads if isinstance(h, int) and h > 0), None),
        model_type=model_type if isinstance(model_type, str) else "",
        # A c_attn with three times more columns than rows is GPT-2's, in x out; nanoGPT's has rows.
        gpt2_linear=any(
            name.endswith("c_attn.weight") and len(shape) == 2 and shape[1] == 3 * shape[0]
            for name, shape in shapes.items()
        ),
    )


def _select(weights: Weights, layers: Sequence[str]) -> Weights:
    """Keep the layers that are named, by themselves, by the module they are in, or by pattern."""
    if isinstance(layers, str):
        raise WeightsError(f"layers must be a list of names, got the string {layers!r}")
    chosen: set[str] = set()
    for wanted in layers:
        found = {m.name for m in weights.matrices if _is_named(m, wanted)}
        if not found:
            raise WeightsError(_unknown_layer(wanted, weights))
        chosen |= found
    left = {m.name: "not selected" for m in weights.matrices if m.name not in chosen}
    kept = tuple(matrix for matrix in weights.matrices if matrix.name in chosen)
    first = weights.matrices[0].name
    return replace(weights, matrices=kept, skipped={**weights.skipped, **left}, first=first)


def _is_named(matrix: WeightMatrix, wanted: str) -> bool:
    names = (matrix.name, *matrix.tied)
    return any(
        name == wanted or name.startswith(f"{wanted}.") or fnmatch.fnmatchcase(name, wanted)
        for name in (*names, *map(bare_name, names))
    )


def _unknown_layer(wanted: str, weights: Weights) -> str:
    for name in (wanted, f"{wanted}.weight"):
        if name in weights.skipped:
            return f"layer {wanted!r} is not analysed: {weights.skipped[name]}"
    names = [matrix.name for matrix in weights.matrices]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4) or names[:3]
    return f"no layer {wanted!r}; did you mean {', '.join(map(repr, near)) or 'another model'}?"
