"""Whose hyperparameters a weight matrix follows: those of the module that owns it.

A layer of a search space is a module (`blocks.0.qkv`), a layer of the metrics a matrix, which may
be a part of one (`blocks.0.qkv.q`, `rnn.weight_hh_l0.cell_gate`). How to get from one to the other
is told here alone.
"""

from collections.abc import Container, Mapping
from typing import TypeVar

Value = TypeVar("Value")


def owner_of(matrix: str, modules: Container[str]) -> str | None:
    """The module that owns a matrix: that of its own name, else the nearest that it lies in.

    Args:
        matrix: its name, as metrics have it.
        modules: names that may be the owner: layers of a space, or groups of an optimizer.

    Returns:
        None where no module owns it, as where it was left out of the space.
    """
    name = matrix
    while name:
        if name in modules:
            return name
        name = name.rpartition(".")[0]
    return None


def group_by_kind(hyperparameters: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """From {"lr/fc1": .1, "batch_size": 64} to {"lr": {"fc1": .1}}; what is of no layer is left."""
    kinds: dict[str, dict[str, Value]] = {}
    for key, value in hyperparameters.items():
        kind, slash, layer = key.partition("/")
        if slash:
            kinds.setdefault(kind, {})[layer] = value
    return kinds


def settings_of(matrix: str, kinds: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    """Kind → value of the hyperparameters that a matrix follows, without kinds that it has none of.

    Args:
        matrix: its name, as metrics have it.
        kinds: as `group_by_kind` gives them.
    """
    owners = {kind: owner_of(matrix, values) for kind, values in kinds.items()}
    return {kind: kinds[kind][owner] for kind, owner in owners.items() if owner is not None}
