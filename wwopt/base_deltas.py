"""What training added: the difference of two sources, tensor by tensor, matched by name.

Names are compared as they are first, then without what wrappers put into them. A tensor
without a partner, or with one of another shape, is kept with the reason, never paired by position.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from wwopt.stored_tensors import StoredTensor, store_other

# Put in front by Lightning and Hugging Face heads, DataParallel and DDP, torch.compile, PEFT.
_PREFIX = re.compile(r"^(?:(?:base_model|model|module|_orig_mod)\.)+")
# Wrappers of a submodule put theirs in the middle: torch.compile, FSDP, activation checkpoints.
_WRAPPER = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def bare_name(name: str) -> str:
    """A tensor's name without what wrappers put into it."""
    return _PREFIX.sub("", _WRAPPER.sub("", name))


def match_names(names: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Pair names that are equal, or equal and unique without their wrappers' prefixes."""
    ours, theirs = set(names), set(others)
    pairs = {name: name for name in ours & theirs}
    counts = Counter(map(bare_name, names))
    other_counts = Counter(map(bare_name, others))
    # What has an exact partner is not free: "model.fc" must not take the "fc" of an "fc".
    by_bare_name = {bare_name(other): other for other in others if other not in ours}
    for name in names:
        bare = bare_name(name)
        unique = counts[bare] == 1 and other_counts[bare] == 1
        if name not in pairs and unique and bare in by_bare_name:
            pairs[name] = by_bare_name[bare]
    taken = set(pairs.values())
    for name, other in _match_wrapped(names, theirs) | _match_wrapped(others, ours, back=True):
        if name not in pairs and other not in taken:
            pairs[name] = other
    return pairs


def _match_wrapped(
    names: Sequence[str], others: set[str], *, back: bool = False
) -> set[tuple[str, str]]:
    """Pairs where one side wraps the other: a language model's "transformer." or "bert."."""
    inner: dict[str, set[tuple[str, str]]] = {}
    for name in names:
        wrapper, _, rest = name.partition(".")
        if rest in others:
            inner.setdefault(wrapper, set()).add((rest, name) if back else (name, rest))
    # Most of the other side has to be in there; a single name would be a coincidence.
    return next((pairs for pairs in inner.values() if 2 * len(pairs) > len(others)), set())


def subtract_base(
    tensors: Sequence[StoredTensor], base: Sequence[StoredTensor]
) -> list[StoredTensor]:
    """The differences, in the order of ``tensors``; then what only the base has."""
    by_name = {tensor.name: tensor for tensor in base}
    pairs = match_names([tensor.name for tensor in tensors], list(by_name))
    differences = [
        _subtract(tensor, by_name[pairs[tensor.name]])
        if tensor.name in pairs
        else replace(tensor, problem=tensor.problem or "not in the base")
        for tensor in tensors
    ]
    matched = set(pairs.values())
    alone = (tensor.name for tensor in base if tensor.name not in matched)
    return differences + [store_other(name, "only in the base") for name in alone]


def _subtract(tensor: StoredTensor, base: StoredTensor) -> StoredTensor:
    problem = tensor.problem or base.problem
    if not problem and tensor.shape != base.shape:
        problem = f"shape {tensor.shape} here, {base.shape} in the base"
    return replace(
        tensor,
        read=partial(_read_difference, tensor.read, base.read),
        identity=(tensor.identity, base.identity),
        problem=problem,
        # One of the two may be a module that knows its types, the other a file that does not.
        kind=tensor.kind or base.kind,
        groups=max(tensor.groups, base.groups),
        rank_bound=tensor.rank_bound,
    )


def _read_difference(
    read: Callable[[], torch.Tensor], read_base: Callable[[], torch.Tensor]
) -> torch.Tensor:
    ours = read().detach()
    theirs = read_base().detach().to(ours.device)
    both_double = ours.dtype == theirs.dtype == torch.float64
    dtype = torch.float64 if both_double else torch.float32
    return ours.to(dtype) - theirs.to(dtype)
