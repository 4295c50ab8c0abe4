"""What training added: the difference of two sources, tensor by tensor, matched by name.

Names are compared as they are first, then without what wrappers put into them. A tensor
without a partner, or with one of another shape, is kept with the reason, never paired by position.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from wwopt.weights.stored_tensors import StoredTensor, store_other
from wwopt.weights.tensor_names import match_names


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
