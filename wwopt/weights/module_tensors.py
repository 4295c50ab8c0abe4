"""The tensors of an ``nn.Module``, with what only it knows: layer types and effective weights.

Parametrised weights (``torch.nn.utils.parametrizations``) and PEFT adapters appear as the one
tensor the forward pass would use, under the name of the layer; reading changes nothing in the
module, so it is safe in the middle of training.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from wwopt.weights.stored_tensors import StoredTensor, store_other, store_tensor

# Subclasses count: timm's StdConv2d is a Conv2d. A later entry never shadows an earlier one.
_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "linear"),
    (nn.Embedding, "embedding"),
    (nn.EmbeddingBag, "embedding"),
    (nn.Conv1d, "conv1d"),
    (nn.Conv2d, "conv2d"),
    (nn.Conv3d, "conv3d"),
    (nn.ConvTranspose1d, "conv_transpose1d"),
    (nn.ConvTranspose2d, "conv_transpose2d"),
    (nn.ConvTranspose3d, "conv_transpose3d"),
    (nn.Bilinear, "bilinear"),
    (nn.RNNBase, "rnn"),
    (nn.RNNCellBase, "rnn"),
    (nn.MultiheadAttention, "attention"),
    (nn.LayerNorm, "norm"),
)


def store_module(model: nn.Module) -> list[StoredTensor]:
    """Describe every parameter and buffer of a module, in model order.

    Shared modules and parameters appear under each of their names, with one ``identity``.
    """
    stored: list[StoredTensor] = []
    covered: tuple[str, ...] = ()  # prefixes of what a parametrisation or an adapter stands for
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if covered and prefix.startswith(covered):
            continue
        if parametrize.is_parametrized(module):
            covered += (f"{prefix}parametrizations.",)
        stored.extend(_owned_tensors(prefix, module))
    return stored


def _owned_tensors(prefix: str, module: nn.Module) -> Iterator[StoredTensor]:
    kind = _kind(module)
    groups = module.groups if kind.startswith("conv") and isinstance(module.groups, int) else 1
    if parametrize.is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for leaf, chain in module.parametrizations.items():
            stored = _store_parametrized(f"{prefix}{leaf}", chain)
            yield replace(stored, kind=_kind_of(leaf, kind, stored), groups=groups)
    for leaf, parameter in module._parameters.items():
        if parameter is not None:
            stored = store_tensor(f"{prefix}{leaf}", parameter)
            yield replace(stored, kind=_kind_of(leaf, kind, stored), groups=groups)
    for leaf, buffer in module._buffers.items():
        if buffer is not None:
            yield replace(store_tensor(f"{prefix}{leaf}", buffer), buffer=True)
    if "quantized" in type(module).__module__ and hasattr(module, "_packed_params"):
        yield store_other(f"{prefix}weight", "quantized: packed for int8; analyse the float model")


def _kind(module: nn.Module) -> str:
    for family, kind in _KINDS:
        if isinstance(module, family):
            return kind
    # transformers.pytorch_utils.Conv1D, a linear layer stored in x out; by name, so that
    # transformers is not needed.
    if any(family.__name__ == "Conv1D" for family in type(module).__mro__):
        return "hf_conv1d"
    return "moe" if "expert" in type(module).__name__.lower() else ""


def _kind_of(leaf: str, kind: str, stored: StoredTensor) -> str:
    if kind == "moe" and len(stored.shape) != 3:
        return ""  # a router, or experts that are modules of their own
    return "bias" if kind and "bias" in leaf else kind


def _store_parametrized(name: str, chain: Any) -> StoredTensor:
    try:
        effective = _evaluate(chain)
    except Exception as error:  # a parametrisation is the user's code and may raise anything
        return store_other(name, f"its parametrisation failed: {type(error).__name__}: {error}")
    stored = store_tensor(name, effective)
    return replace(stored, read=partial(_evaluate, chain), identity=id(chain))


@torch.no_grad()
def _evaluate(chain: Any) -> torch.Tensor:
    # A copy in evaluation mode: spectral norm would otherwise take a step of its power iteration
    # and so change what the next forward pass computes.
    effective = copy.deepcopy(chain).eval()()
    assert isinstance(effective, torch.Tensor)
    return effective
