"""What is done to weights after training: casts, quantisations, pruning, scaling."""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from harness.damage import prune, quantize
from wwopt.metrics.base.movements import ChangeKind

_BELOW = (-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911)
NF4 = torch.tensor((*_BELOW, 0.0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0))
Weights = dict[str, torch.Tensor]
Edit = Callable[[torch.Tensor], torch.Tensor]


def cast(dtype: torch.dtype, *, scaled: bool = False) -> Edit:
    """To a floating-point format and back; scaled so that the largest weight is its largest."""

    def edit(w: torch.Tensor) -> torch.Tensor:
        scale = w.abs().max() / torch.finfo(dtype).max if scaled else torch.tensor(1.0)
        return (w / scale).to(dtype).float() * scale

    return edit


def per_group(bits: int, size: int, *, asymmetric: bool = False) -> Edit:
    """Equal steps in groups of a row; layers whose rows are no multiple of the size stay."""

    def edit(w: torch.Tensor) -> torch.Tensor:
        if w[0].numel() % size:
            return w
        groups = w.reshape(-1, size)
        if asymmetric:
            low = groups.amin(1, keepdim=True).clamp_max(0.0)
            high = groups.amax(1, keepdim=True).clamp_min(0.0)
            step = (high - low) / (2**bits - 1)
            zero = (-low / step).round()
            lined = ((groups / step).round() + zero).clamp(0, 2**bits - 1) - zero
            return (lined * step).reshape(w.shape)
        step = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        return ((groups / step).round() * step).reshape(w.shape)

    return edit


def to_nf4(w: torch.Tensor) -> torch.Tensor:
    """Sixteen levels of the normal distribution in groups of 64."""
    if w[0].numel() % 64:
        return w
    groups = w.reshape(-1, 64)
    top = groups.abs().amax(1, keepdim=True)
    middles = (NF4[1:] + NF4[:-1]) / 2.0
    return (NF4[torch.bucketize(groups / top, middles)] * top).reshape(w.shape)


def gguf(name: str) -> Edit:
    """As llama.cpp stores it, by the gguf package."""
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType[name]

    def edit(w: torch.Tensor) -> torch.Tensor:
        if w[0].numel() % 32:
            return w
        rows = np.ascontiguousarray(w.flatten(1).numpy())
        there = quants.dequantize(quants.quantize(rows, kind), kind)
        return torch.from_numpy(there.astype(np.float32)).reshape(w.shape)

    return edit


EDITS: dict[int, dict[str, tuple[Edit, ChangeKind]]] = {
    0: {  # design
        "bf16": (cast(torch.bfloat16), ChangeKind.OTHER_DTYPE),
        "fp8 e4m3, scaled": (cast(torch.float8_e4m3fn, scaled=True), ChangeKind.OTHER_DTYPE),
        "int8 per row": (lambda w: quantize(w, 8), ChangeKind.ROUNDING),
        "int4 per row": (lambda w: quantize(w, 4), ChangeKind.ROUNDING),
        "Q8_0": (gguf("Q8_0"), ChangeKind.ROUNDING),
        "NF4": (to_nf4, ChangeKind.ROUNDING),
        "pruned 50 %": (lambda w: prune(w, 0.5), ChangeKind.ZEROED),
        "scaled × .9": (lambda w: 0.9 * w, ChangeKind.SCALED),
    },
    1: {  # judged
        "fp16": (cast(torch.float16), ChangeKind.OTHER_DTYPE),
        "bf16": (cast(torch.bfloat16), ChangeKind.OTHER_DTYPE),
        "fp8 e4m3": (cast(torch.float8_e4m3fn), ChangeKind.OTHER_DTYPE),
        "fp8 e5m2, scaled": (cast(torch.float8_e5m2, scaled=True), ChangeKind.OTHER_DTYPE),
        "int8 per tensor": (lambda w: quantize(w, 8, per_row=False), ChangeKind.ROUNDING),
        "int4 per 32": (per_group(4, 32), ChangeKind.ROUNDING),
        "int4 per 64, asymmetric": (per_group(4, 64, asymmetric=True), ChangeKind.ROUNDING),
        "int8 per row, as bf16": (
            lambda w: quantize(w, 8).bfloat16().float(),
            ChangeKind.ROUNDING,
        ),
        "Q4_0": (gguf("Q4_0"), ChangeKind.ROUNDING),
        "6 bits per row": (lambda w: quantize(w, 6), ChangeKind.ROUNDING),
        "pruned 80 %": (lambda w: prune(w, 0.8), ChangeKind.ZEROED),
        "scaled × 1.1": (lambda w: 1.1 * w, ChangeKind.SCALED),
    },
}


def edit_matrices(weights: Mapping[str, torch.Tensor], edit: Edit) -> Weights:
    """Copies, the matrices edited."""
    return {n: edit(w) if w.ndim >= 2 and w.is_floating_point() else w for n, w in weights.items()}
