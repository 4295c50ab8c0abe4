"""What lies under a key of a training checkpoint: a network, a copy, an optimizer, a trainer's own.

Structure is asked before names. A mapping of dotted names to tensors is a network's state dict; a
mapping with `state` and `param_groups`, or with moments of parameters, is an optimizer's.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from wwopt.weights.stored_tensors import StoredTensor

# A key of these words alone says "the model": Lightning's and timm's "state_dict", fairseq's
# "model", DeepSpeed's "module", the tutorials' "model_state_dict", BasicSR's "params".
_MODEL_WORD = re.compile(r"dict|model|module|net|network|params?|parameters|sd|state|weights?")
# A copy that is averaged over training: timm's "state_dict_ema", BasicSR's "params_ema".
_COPY_WORD = re.compile(r"averaged?|avg|ema|polyak|shadow|swa")
# Structure tells torch's optimizers, names those that are no mapping, or another library's.
_OPTIMIZER_WORD = re.compile(r"optims?|optimi[sz]ers?")
_TRAINER_WORD = re.compile(
    r"args|callbacks|config|grads?|gradients|hparams|loops|rng|scaler|sched.*"
)
# What torch's optimizers, Adafactor and Apex keep for each parameter, in the shape of weights.
MOMENTS = frozenset(
    {
        "acc_delta",
        "col_var",
        "exp_avg",
        "exp_avg_sq",
        "exp_avg_sq_col",
        "exp_avg_sq_row",
        "exp_inf",
        "max_exp_avg_sq",
        "momentum_buffer",
        "row_var",
        "square_avg",
    }
)
_LONGEST_KEY = 100  # characters that are looked at
_LAZY = (UninitializedBuffer, UninitializedParameter)


@dataclass(frozen=True)
class Content:
    """What lies somewhere below a value."""

    tensors: int
    numbers: int  # elements of all tensors
    matrices: int  # tensors with two dimensions above 1, as weights have
    networks: int  # mappings of dotted names to tensors


def is_network(node: Mapping[Any, Any]) -> bool:
    """Whether it maps dotted names to tensors, as a state dict does; "train.loss" has no sizes."""
    return any(isinstance(k, str) and "." in k and _sizes(v) for k, v in node.items())


def is_optimizer(key: Any, value: Any) -> bool:
    """Whether a key or what lies under it is an optimizer's state."""
    if any(map(_OPTIMIZER_WORD.fullmatch, _words(key))) and not _sizes(value):
        return True
    if not isinstance(value, Mapping):
        return False
    if "param_groups" in value and "state" in value:  # torch.optim.Optimizer.state_dict()
        return True
    if not MOMENTS.isdisjoint(value):  # of one parameter
        return True
    # Its `state` alone: parameter -> moments.
    inner = list(value.values())
    return all(isinstance(v, Mapping) for v in inner) and any(
        not MOMENTS.isdisjoint(v) for v in inner
    )


def is_trainers(key: Any) -> bool:
    """Whether a key names what a trainer keeps for itself: an optimizer, a schedule, settings."""
    return any(
        _OPTIMIZER_WORD.fullmatch(word) or _TRAINER_WORD.fullmatch(word) for word in _words(key)
    )


def says_model(key: Any) -> bool:
    """Whether a key says "the model" and nothing more: `net_state_dict`, but not `net_g`."""
    words = _words(key)
    return bool(words) and all(map(_MODEL_WORD.fullmatch, words))


def says_copy(key: Any) -> bool:
    """Whether a key names weights that are averaged over training."""
    return any(map(_COPY_WORD.fullmatch, _words(key)))


def _words(key: Any) -> list[str]:
    """The words of a key, in small letters: "modelState" and "model_state" have the same."""
    if not isinstance(key, str) or len(key) > _LONGEST_KEY:
        return []
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", key)]


def _sizes(value: Any) -> tuple[int, ...]:
    """Shape of a tensor; () for scalars, for what has no shape yet, and for what is none."""
    if isinstance(value, StoredTensor):
        return value.shape
    if not isinstance(value, torch.Tensor) or isinstance(value, _LAZY) or value.is_nested:
        return ()
    return tuple(value.shape)


def is_matrix(value: Any) -> bool:
    """Whether it is a tensor with two dimensions above 1, as weights have."""
    return sum(size > 1 for size in _sizes(value)) >= 2


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor, here or stored elsewhere."""
    return isinstance(value, torch.Tensor | StoredTensor)


def _walk(value: Any, *, whole: bool) -> Iterator[Any]:
    """Everything below a value, each mapping and list once, so that cycles and bombs end.

    Args:
        value: where to start.
        whole: also lists, in which no model is looked for, and optimizers.
    """
    stack, seen = [("", value)], set()
    while stack:
        key, item = stack.pop()
        yield item
        inner: Iterator[tuple[Any, Any]]
        if isinstance(item, Mapping) and (whole or not is_optimizer(key, item)):
            inner = iter(item.items())
        elif whole and isinstance(item, list | tuple | set):
            inner = (("", v) for v in item)
        else:
            continue
        if id(item) not in seen:
            seen.add(id(item))
            stack.extend(inner)


def survey(value: Any, *, whole: bool = False) -> Content:
    """Count what lies below a value; `whole`: in lists and optimizers too."""
    tensors = numbers = matrices = networks = 0
    for item in _walk(value, whole=whole):
        if is_tensor(item):
            tensors += 1
            numbers += _numel(item)
            matrices += is_matrix(item)
        elif isinstance(item, Mapping):
            networks += is_network(item)
    return Content(tensors, numbers, matrices, networks)


def _numel(tensor: Any) -> int:
    if isinstance(tensor, torch.Tensor) and not isinstance(tensor, _LAZY):
        return tensor.numel()
    return math.prod(_sizes(tensor)) if isinstance(tensor, StoredTensor) else 0
