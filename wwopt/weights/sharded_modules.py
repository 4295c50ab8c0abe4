"""A module whose parameters are sharded over processes (DTensor, as FSDP2 leaves them).

Its tensors are described as those of any module, at their full shapes. Reading one gathers it,
which all processes have to do together; how they are called is the business of whoever made this
(`wwopt.integrations.processes`). One at a time, and to the first process alone, so that none ever
holds more than its shard and the largest layer: `DTensor.full_tensor` takes twice that, on each of
them (gloo, by benchmarks/sharded_memory.py).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from wwopt.weights.module_tensors import store_module
from wwopt.weights.stored_tensors import StoredTensor, dtype_problem

Gather = Callable[[str], torch.Tensor]  # name of a tensor → the whole of it


class ShardedModule(nn.Module):
    """A sharded module and the way to gather its tensors; reads like the module itself."""

    def __init__(self, module: nn.Module, gather: Gather) -> None:
        super().__init__()
        self.module, self.gather = module, gather

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        """Of the module, every tensor whole and on the CPU: as large as the model is."""
        whole = {name for name, tensor in named_tensors(self.module).items() if is_shard(tensor)}
        return {
            name: self.gather(name).cpu() if name in whole else tensor
            for name, tensor in self.module.state_dict().items()
        }


def is_shard(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies in pieces on several processes."""
    return type(tensor).__name__ == "DTensor"  # whose import alone takes 1.5 s


def is_sharded(module: nn.Module) -> bool:
    """Whether any tensor of a module does."""
    return any(map(is_shard, named_tensors(module).values()))


def gather_on_first(tensor: Any) -> torch.Tensor:
    """The whole of a DTensor on rank 0; all processes that hold a piece call it together.

    Each sends its rows to rank 0, as FSDP2 shards them: along the first dimension, over one mesh of
    processes, in as many rows each as `torch.chunk` gives. Other layouts go through `full_tensor`.

    Returns:
        On rank 0 the whole; elsewhere whatever is at hand.
    """
    import torch.distributed as dist

    mesh, placements = tensor.device_mesh, tensor.placements
    if mesh.ndim != 1 or not placements[0].is_shard(0) or type(placements[0]).__name__ != "Shard":
        whole: torch.Tensor = tensor.full_tensor()
        return whole
    group = mesh.get_group()
    ranks = dist.get_process_group_ranks(group)
    local: torch.Tensor = tensor.to_local()
    if dist.get_rank() != 0:
        if local.numel():
            dist.send(local.contiguous(), dst=0, group=group)
        return local
    whole = torch.empty(tensor.shape, dtype=tensor.dtype, device=local.device)
    share = math.ceil(tensor.shape[0] / len(ranks))
    for place, rank in enumerate(ranks):
        rows = whole[place * share : (place + 1) * share]
        if rank == 0:
            rows.copy_(local)
        elif rows.numel():
            dist.recv(rows, src=rank, group=group)
    return whole


def named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers, shared ones under each of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def store_sharded(source: ShardedModule) -> list[StoredTensor]:
    """Describe every tensor of a sharded module; those in pieces are gathered when read."""
    shards = {name for name, tensor in named_tensors(source.module).items() if is_shard(tensor)}
    return [
        replace(
            stored, problem=dtype_problem(stored.dtype), read=partial(source.gather, stored.name)
        )
        if stored.name in shards
        else stored
        for stored in store_module(source.module)
    ]
