"""The weights a forward pass uses, rebuilt from the tensors that a state dict stores instead.

Weight norm stores g and v for W = g v/|v|; spectral norm W, u and v for W/(u'Wv); pruning a mask;
fp8 checkpoints a scale per tensor, row or block. Each becomes one tensor under the layer's name.
What cannot be rebuilt (other parametrisations, quantized weights) stays, with the reason.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import torch

from wwopt.weights.stored_tensors import StoredTensor

# torch.nn.utils.parametrize: fc.parametrizations.weight.original0, fc.parametrizations.weight.0._u;
# the hooks before it: fc.weight_g.
_PARAMETRIZATION = re.compile(
    r"(?P<owner>(?:.*\.)?)parametrizations\.(?P<leaf>[^.]+)\.(?P<part>.+)"
)
_HOOK = re.compile(r"(?P<name>(?:.*\.)?[^.]*(?:weight|bias)[^.]*)_(?P<part>orig|mask|[guv])")
_FP8_SCALES = ("_scale_inv", "_scale")  # DeepSeek's blocks; compressed-tensors' tensor or rows
_FP8_BLOCK = 128  # rows and columns that share a scale: DeepSeek-V3 technical report, section 3.3
_OPAQUE = "parametrised by something that a state dict does not record; pass the module"

# Tensor that marks a quantized layer -> the tool that writes it.
_QUANTIZED = {
    "qweight": "GPTQ or AWQ",
    "weight.absmax": "bitsandbytes 4 bit",
    "SCB": "bitsandbytes int8",
    "weight_packed": "compressed-tensors",
}
_QUANTIZED_BLOCKS = re.compile(r"(?P<name>.+)_(?:blocks|scales)")  # MXFP4, as gpt-oss stores it


def rebuild_weights(tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    """Replace the stored factors of every parametrised weight by the weight; order is kept."""
    tensors = _name_quantized(list(tensors))
    by_target: dict[str, dict[str, StoredTensor]] = {}
    targets: dict[str, str] = {}
    for tensor in tensors:
        for target, part in _memberships(tensor.name):
            by_target.setdefault(target, {})[part] = tensor
    rebuilt: dict[str, StoredTensor] = {}
    for target, parts in by_target.items():
        weight = _rebuild(target, parts)
        if weight is not None:
            rebuilt[target] = weight
            targets.update({part.name: target for part in parts.values()})
    result: dict[str, StoredTensor] = {}  # by name: the first factor marks the place
    for tensor in tensors:
        target = targets.get(tensor.name, tensor.name)
        result.setdefault(target, rebuilt.get(target, tensor))
    return list(result.values())


def _memberships(name: str) -> list[tuple[str, str]]:
    """(effective tensor, role) of a factor; most tensors are none."""
    if found := _PARAMETRIZATION.fullmatch(name):
        return [(found["owner"] + found["leaf"], found["part"])]
    if found := _HOOK.fullmatch(name):
        return [(found["name"], found["part"])]
    for suffix in _FP8_SCALES:
        if name.endswith(suffix):
            return [(name.removesuffix(suffix), "scale")]
    return [(name, "itself")]


def _rebuild(target: str, parts: Mapping[str, StoredTensor]) -> StoredTensor | None:
    roles = frozenset(parts)
    if roles == {"original0", "original1"} or roles == {"g", "v"}:
        norm, direction = (parts[role] for role in sorted(roles))
        if not _is_norm_of(norm.shape, direction.shape):
            return _opaque(target, direction) if "original0" in roles else None
        return _combine(target, direction, norm, _weight_norm)
    if roles == {"orig", "mask"} and parts["orig"].shape == parts["mask"].shape:
        return _combine(target, parts["orig"], parts["mask"], _masked)
    for original, u, v in (("original", "0._u", "0._v"), ("orig", "u", "v")):
        if roles == {original, u, v}:
            weight = parts[original]
            if _spectral_dims(weight.shape, parts[u].shape, parts[v].shape):
                return _combine(target, weight, parts[u], _spectral_norm, parts[v])
    if "original" in roles or "original0" in roles:
        return _opaque(target, parts.get("original") or parts["original0"])
    if roles == {"itself", "scale"} and parts["itself"].dtype.startswith("float8"):
        if _scale_block(parts["itself"].shape, parts["scale"].shape) is None:
            problem = f"fp8 with scales of shape {parts['scale'].shape}, which wwopt cannot place"
            return replace(parts["itself"], problem=problem)
        return _combine(target, parts["itself"], parts["scale"], _scaled)
    return None


def _combine(
    target: str,
    weight: StoredTensor,
    other: StoredTensor,
    formula: Callable[..., torch.Tensor],
    *more: StoredTensor,
) -> StoredTensor:
    """The effective tensor: shape, dtype and place of ``weight``, values of ``formula``."""
    factors = (weight, other, *more)
    return replace(
        weight,
        name=target,
        read=partial(_apply, formula, tuple(factor.read for factor in factors)),
        identity=(formula.__name__, *(factor.identity for factor in factors)),
        problem=next((factor.problem for factor in factors if factor.problem), ""),
        buffer=False,
    )


def _apply(
    formula: Callable[..., torch.Tensor], reads: tuple[Callable[[], torch.Tensor], ...]
) -> torch.Tensor:
    factors = (read().detach() for read in reads)
    # fp8 and half have too few operations and digits to multiply in.
    return formula(*(f if f.dtype == torch.float64 else f.to(torch.float32) for f in factors))


def _opaque(target: str, original: StoredTensor) -> StoredTensor:
    return replace(original, name=target, problem=_OPAQUE)


def _is_norm_of(norm: tuple[int, ...], direction: tuple[int, ...]) -> bool:
    """Whether weight norm's g has a shape that v allows: a scalar, or one value per slice."""
    if math.prod(norm) == 1:
        return True
    if len(norm) != len(direction):
        return False
    kept = [(g, v) for g, v in zip(norm, direction, strict=True) if g != 1]
    return len(kept) == 1 and kept[0][0] == kept[0][1]


def _weight_norm(v: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    dims = tuple(i for i in range(v.ndim) if g.ndim != v.ndim or g.shape[i] == 1)
    norm: torch.Tensor = torch.linalg.vector_norm(v, dim=dims, keepdim=True)
    return v * (g / norm)


def _masked(weight: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return weight * mask


def _spectral_dims(
    weight: tuple[int, ...], u: tuple[int, ...], v: tuple[int, ...]
) -> tuple[int, ...]:
    """Dimensions that spectral norm can have kept as rows: 0, or 1 for transposed convolutions."""
    size = math.prod(weight)
    fits = u and v and u[0] * v[0] == size and len(u) == len(v) == 1
    return tuple(d for d in (0, 1) if fits and d < len(weight) and weight[d] == u[0])


def _spectral_norm(weight: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    dims = _spectral_dims(tuple(weight.shape), tuple(u.shape), tuple(v.shape))
    # Where both dimensions fit (in = out), u and v are singular vectors for the right one only,
    # and singular vectors give the larger value.
    sigmas = [u @ weight.movedim(dim, 0).flatten(1) @ v for dim in dims]
    return weight / max(sigmas, key=lambda sigma: float(sigma.abs()))


def _scale_block(weight: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and columns that share a scale; None where the shapes do not say."""
    if math.prod(scale) == 1:
        return weight[0], weight[-1]
    if len(weight) != 2 or not scale or len(scale) > 2:
        return None
    if scale[0] == weight[0] and math.prod(scale) == weight[0]:
        return 1, weight[1]
    blocks = tuple(-(-size // _FP8_BLOCK) for size in weight)
    return (_FP8_BLOCK, _FP8_BLOCK) if scale == blocks else None


def _scaled(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    if scale.numel() == 1:
        return weight * scale.reshape(())
    block = _scale_block(tuple(weight.shape), tuple(scale.shape))
    assert block is not None
    rows, columns = weight.shape
    spread = scale.reshape(scale.shape[0], -1).repeat_interleave(block[0], dim=0)[:rows]
    return weight * spread.repeat_interleave(block[1], dim=1)[:, :columns]


def _name_quantized(tensors: list[StoredTensor]) -> list[StoredTensor]:
    """Mark every tensor of a quantized layer: scales and tables look like small matrices."""
    names = {tensor.name for tensor in tensors}
    tools: dict[str, str] = {}  # layer -> tool
    for name in names:
        for marker, tool in _QUANTIZED.items():
            if name.endswith(f".{marker}"):
                tools[name.removesuffix(marker)] = tool
        found = _QUANTIZED_BLOCKS.fullmatch(name)
        if found and {f"{found['name']}_blocks", f"{found['name']}_scales"} <= names:
            tools[found["name"]] = "MXFP4"
    if not tools:
        return tensors
    prefixes = tuple(tools)
    return [
        replace(tensor, problem=_quantized_problem(tensor, tools), quantized=True)
        if tensor.name.startswith(prefixes)
        else tensor
        for tensor in tensors
    ]


def _quantized_problem(tensor: StoredTensor, tools: Mapping[str, str]) -> str:
    tool = next(tools[prefix] for prefix in tools if tensor.name.startswith(prefix))
    if tensor.name.endswith(".bias"):
        return "bias"
    return f"quantized: {tool} ({tensor.dtype}); save the model dequantized to analyse it"
