"""LoRA adapters: W + scaling · B A where the base is known, scaling · B A alone where it is not.

The product of rank r has r nonzero eigenvalues, so a delta alone carries its rank bound and no
alpha. The scaling comes from `adapter_settings`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from wwopt.weights.lora_settings import AdapterSettings, FindSettings
from wwopt.weights.stored_tensors import StoredTensor
from wwopt.weights.tensor_names import match_names

# PEFT: fc.lora_A.weight in a file, fc.lora_A.default.weight in a module, embeddings without the
# .weight; kohya's scripts say down and up.
_FACTOR = re.compile(
    r"(?P<layer>.*)\.lora_(?P<embedding>embedding_)?(?:(?P<a>A|down)|B|up)"
    r"(?:\.(?P<adapter>(?!weight$)[^.]+))?(?:\.weight)?"
)
_OTHER_FACTOR = re.compile(r".*\.(?:lora|hada|lokr|oft|boft|vera|ia3|loha)_[^.]*(?:\..*)?")
_SAVED = re.compile(r"(?P<layer>.*)\.modules_to_save\.[^.]+\.(?P<leaf>.+)")
_REPLACED = re.compile(r"(?P<layer>.*)\.original_module\.(?P<leaf>.+)")


@dataclass(frozen=True)
class _LowRank:
    """One adapter's factors for one layer."""

    layer: str
    a: StoredTensor  # (r, in) or (r, in, *kernel)
    b: StoredTensor  # (out, r) or (out, r, *ones)
    settings: AdapterSettings

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the base weight, as the base stores it."""
        shape = (self.b.shape[0], *self.a.shape[1:])
        return shape[::-1] if self.settings.transposed else shape


@dataclass(frozen=True)
class AdapterFactors:
    """The two factors of one layer's LoRA, as they are trained: what acts is scaling · B A."""

    layer: str  # module path of the layer, as the source names it
    rank: int
    scaling: float | None  # None: not known
    read_a: Callable[[], torch.Tensor]  # -> (r, in), float32; of a convolution (r, in, *kernel)
    read_b: Callable[[], torch.Tensor]  # -> (out, r)


def list_factors(
    tensors: Sequence[StoredTensor], find_settings: FindSettings
) -> tuple[AdapterFactors, ...]:
    """The factors of every adapter that acts."""
    pairs, _ = _pair_factors(tensors, find_settings)
    return tuple(
        AdapterFactors(
            layer=pair.layer,
            rank=pair.a.shape[0],
            scaling=pair.settings.scaling,
            read_a=partial(_read_float, pair.a.read),
            read_b=partial(_read_float, pair.b.read),
        )
        for pair in pairs
        if not (pair.settings.idle or pair.settings.problem or pair.a.problem or pair.b.problem)
    )


def _read_float(read: Callable[[], torch.Tensor]) -> torch.Tensor:
    return read().detach().to(torch.float32)


def is_adapter(tensors: Sequence[StoredTensor]) -> bool:
    """Whether a source holds LoRA factors without the layers they belong to."""
    layers = {found["layer"] for t in tensors if (found := _FACTOR.fullmatch(t.name))}
    bases = {_layer_of(tensor.name) for tensor in tensors if _is_weight(tensor.name)}
    # PEFT stores an adapted embedding whole, beside its factors, so one layer may be there.
    return bool(layers - bases)


def apply_adapters(
    tensors: Sequence[StoredTensor], find_settings: FindSettings
) -> list[StoredTensor]:
    """Add every adapter in a source to its layer; one without its layer stays a delta alone."""
    pairs, others = _pair_factors(_saved_modules(tensors), find_settings)
    acting: dict[str, list[_LowRank]] = {}
    idle: list[StoredTensor] = []
    for pair in pairs:
        if pair.settings.idle:
            problem = pair.settings.idle
            idle += [replace(f, problem=problem, beside=True) for f in (pair.a, pair.b)]
        else:
            acting.setdefault(pair.layer, []).append(pair)
    result, used = [], set()
    for tensor in others:
        layer = _layer_of(tensor.name)
        plain = _without_base_layer(tensor)
        if layer in acting and _is_weight(tensor.name):
            used.add(layer)
            plain = _adapt(plain, acting[layer])
        result.append(plain)
    alone = [_alone(pair) for layer in acting if layer not in used for pair in acting[layer]]
    return result + alone + idle


def adapt_base(
    base: Sequence[StoredTensor], adapter: Sequence[StoredTensor], find_settings: FindSettings
) -> list[StoredTensor]:
    """The base with an adapter from a file added; whole layers in the file replace the base's."""
    pairs, others = _pair_factors(_saved_modules(adapter), find_settings)
    by_name: dict[str, list[_LowRank]] = {}
    for pair in pairs:
        by_name.setdefault(f"{pair.layer}.weight", []).append(pair)
    whole = {plain.name: plain for plain in map(_without_base_layer, others)}
    names = [*by_name, *(name for name in whole if name not in by_name)]
    partners = {theirs: ours for ours, theirs in match_names(names, [t.name for t in base]).items()}
    result = []
    for tensor in base:
        ours = partners.get(tensor.name, "")
        if ours in whole:
            tensor = replace(whole[ours], name=tensor.name, kind=tensor.kind, groups=tensor.groups)
        if ours in by_name:
            tensor = _adapt(tensor, by_name[ours])
        result.append(tensor)
    reason = "part of an adapter, not in the base"
    for name in names:
        if name not in partners.values():
            lost = whole[name] if name in whole else replace(by_name[name][0].a, name=name)
            result.append(replace(lost, problem=lost.problem or reason))
    return result


def _layer_of(name: str) -> str:
    """The module that owns a tensor, without PEFT's base_layer in between."""
    return name.rpartition(".base_layer.")[0] or name.rpartition(".")[0]


def _is_weight(name: str) -> bool:
    return not name.endswith("bias") and not _OTHER_FACTOR.fullmatch(name)


def _without_base_layer(tensor: StoredTensor) -> StoredTensor:
    return replace(tensor, name=tensor.name.replace(".base_layer.", "."))


def _saved_modules(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """Resolve PEFT's modules_to_save: the trained copy acts, the original does not."""
    saved = {_merged_name(found) for t in tensors if (found := _SAVED.fullmatch(t.name))}
    result = []
    for tensor in tensors:
        if found := _SAVED.fullmatch(tensor.name):
            tensor = replace(tensor, name=_merged_name(found))
        elif (found := _REPLACED.fullmatch(tensor.name)) and _merged_name(found) in saved:
            tensor = replace(tensor, problem="replaced by its copy in modules_to_save")
        result.append(tensor)
    return result


def _merged_name(found: re.Match[str]) -> str:
    return f"{found['layer']}.{found['leaf']}"


def _pair_factors(
    tensors: Sequence[StoredTensor], find_settings: FindSettings
) -> tuple[list[_LowRank], list[StoredTensor]]:
    """Complete pairs of factors, and all other tensors; a factor alone is one of these."""
    factors: dict[tuple[str, str], dict[str, StoredTensor]] = {}
    embeddings: set[tuple[str, str]] = set()
    others: list[StoredTensor] = []
    for tensor in tensors:
        found = _FACTOR.fullmatch(tensor.name)
        if not found or len(tensor.shape) < 2:
            lost = _OTHER_FACTOR.fullmatch(tensor.name) and not tensor.problem
            reason = "part of an adapter that wwopt does not apply; merge it into the base first"
            others.append(replace(tensor, problem=reason) if lost else tensor)
            continue
        key = found["layer"], found["adapter"] or ""
        factors.setdefault(key, {})["a" if found["a"] else "b"] = tensor
        if found["embedding"]:
            embeddings.add(key)
    pairs = []
    for (layer, adapter), both in factors.items():
        if both.keys() != {"a", "b"} or both["a"].shape[0] != both["b"].shape[1]:
            others += [replace(t, problem="LoRA factor without its partner") for t in both.values()]
            continue
        settings = find_settings(layer, adapter, both["a"].shape[0])
        if (layer, adapter) in embeddings:  # stored (entries, width), factors the other way round
            settings = replace(settings, transposed=True)
        pairs.append(_LowRank(layer, both["a"], both["b"], settings))
    return pairs, others


def _adapt(base: StoredTensor, pairs: Sequence[_LowRank]) -> StoredTensor:
    problem = base.problem
    for pair in pairs:
        problem = problem or pair.settings.problem or pair.a.problem or pair.b.problem
        if not problem and pair.settings.scaling is None:
            problem = "LoRA scaling not known; pass the PEFT module, or its folder and base="
        if not problem and pair.shape != base.shape:
            problem = f"its LoRA adapter is for shape {pair.shape}, the base has {base.shape}"
    reads: list[Callable[[], torch.Tensor]] = [base.read]
    reads += [partial(_read_low_rank, pair.a.read, pair.b.read, pair.settings) for pair in pairs]
    identity = (base.identity, *(pair.a.identity for pair in pairs))
    return replace(base, read=partial(_read_sum, reads), identity=identity, problem=problem)


def _alone(pair: _LowRank) -> StoredTensor:
    """An adapter without its base: only the low-rank delta can be judged."""
    unknown = pair.settings.scaling is None
    return replace(
        pair.a,
        name=f"{pair.layer}.weight",
        shape=pair.shape,
        read=partial(_read_low_rank, pair.a.read, pair.b.read, pair.settings),
        identity=(pair.a.identity, pair.b.identity),
        problem=pair.settings.problem or pair.a.problem or pair.b.problem,
        kind="",
        rank_bound=pair.a.shape[0],
        note="LoRA scaling not known, taken as 1" if unknown else "",
    )


def _read_low_rank(
    read_a: Callable[[], torch.Tensor],
    read_b: Callable[[], torch.Tensor],
    settings: AdapterSettings,
) -> torch.Tensor:
    a, b = (read().detach().to(torch.float32) for read in (read_a, read_b))
    scaling = 1.0 if settings.scaling is None else settings.scaling
    # Of a convolution, B is 1 x 1 and A has the kernel: flattened, both are plain factors.
    delta = scaling * (b.flatten(1) @ a.flatten(1))
    delta = delta.reshape(b.shape[0], *a.shape[1:])
    return delta.T if settings.transposed else delta


def _read_sum(reads: Sequence[Callable[[], torch.Tensor]]) -> torch.Tensor:
    base, *deltas = (read().detach() for read in reads)
    total = base if base.dtype == torch.float64 else base.to(torch.float32)
    for delta in deltas:
        total = total + delta.to(total.device)
    return total
