"""A byte budget shared out among the layers of a network, without data.

Each layer is encoded by every plan of a menu, so that errors and bytes are those of the file. One
plan a layer is then chosen exactly, as a multiple-choice knapsack: the least summed damage whose
file fits. Damage is what `wwopt.compression.damage` predicts; docs/compression.md has what it was
judged by.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp

from wwopt.compression.compressed_networks import apply_plans
from wwopt.compression.damage import BREAKS, LayerDamage, find_ends
from wwopt.compression.encoding import LayerEncoder, to_matrices
from wwopt.compression.errors import CompressionError
from wwopt.compression.files import describe_packed
from wwopt.compression.layers import Network, list_layers, match_layers
from wwopt.compression.plans import LayerPlan
from wwopt.compression.quantization import BITS
from wwopt.weights.file_sizes import count_file_bytes
from wwopt.weights.matrices import Source

# Beside 2 to 8 bits a layer may become, always with compensation: pruned and rounded, where a mask
# pays, or two factors of a share of its full rank, rounded.
SPARSITIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SPARSE_BITS = (3, 4, 5, 6)
RANK_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
RANK_BITS = (3, 4, 6)
_PADDING = 7  # a header is filled up to a multiple of 8 bytes
_LONG_UNIT = 2.0**-53  # of scales, as long to write as any


@dataclass(frozen=True)
class Choice:
    """One layer by one plan."""

    plan: LayerPlan
    bytes: int  # in the file, its part of the header included, at most
    error: float  # relative, as `LayerDamage.error` has it
    damage: float  # predicted

    @property
    def breaks(self) -> bool:
        """Whether the error is one that often costs accuracy."""
        return self.error > BREAKS


@dataclass(frozen=True)
class MeasuredNetwork:
    """What every layer may become, before any budget is known."""

    choices: Mapping[str, tuple[Choice, ...]]  # by layer; more bytes, less damage
    fixed: int  # bytes of all that is no layer, at most
    now: int  # bytes of the tensors as they are


@dataclass(frozen=True)
class BudgetPlan:
    """The plans that a budget allows."""

    choices: Mapping[str, Choice]  # by layer
    fixed: int  # bytes of all that is no layer, at most
    budget: int  # bytes

    @property
    def plans(self) -> dict[str, LayerPlan]:
        """By layer, as of `apply_plans`."""
        return {name: choice.plan for name, choice in self.choices.items()}

    @property
    def bytes(self) -> int:
        """Of the file, at most."""
        return self.fixed + sum(choice.bytes for choice in self.choices.values())

    @property
    def broken(self) -> dict[str, float]:
        """Layers whose error often costs accuracy -> the error."""
        return {name: choice.error for name, choice in self.choices.items() if choice.breaks}

    @property
    def damage(self) -> float:
        """Predicted, summed over layers."""
        return sum(choice.damage for choice in self.choices.values())


def plan_budget(
    source: Source | Network,
    budget: float,
    *,
    worst: float | None = None,
    keep: Sequence[str] = (),
    trained_on: bool = False,
    key: str | None = None,
) -> BudgetPlan:
    """Choose a plan for each layer so that the file fits a budget with the least predicted damage.

    Args:
        source: a module, a state dict or a path; or what `list_layers` made of one.
        budget: bytes of the file as written; below 1 a share of the tensors' bytes now, 1/12.
        worst: the error, as of `Choice`, that no layer may exceed; None for no such limit.
        keep: names or patterns of layers that stay as they are.
        trained_on: whether weights will change before they are written: some bytes are held back,
            since other scales may take more of them in the header.
        key: as of `list_layers`.

    Raises:
        CompressionError: if there is no such layer to keep, or the budget cannot be met: with the
            least that the file can have, and the layer that takes most of it.
        WeightsError: if the source cannot be read.
    """
    network = source if isinstance(source, Network) else list_layers(source, key=key)
    measured = measure_network(network, keep=keep, trained_on=trained_on)
    return choose_plans(measured, budget, worst=worst)


def make_menu(shape: tuple[int, int, int]) -> list[LayerPlan]:
    """The plans that a layer of a shape, (slices, rows, columns), is measured by."""
    full = min(shape[1:])
    ranks = sorted({int(share * full) for share in RANK_SHARES if int(share * full) >= 2})
    return [
        LayerPlan(),
        *(LayerPlan(bits=bits, compensate=True) for bits in BITS),
        *(
            LayerPlan(bits=bits, sparsity=sparsity, compensate=True)
            for bits in SPARSE_BITS
            for sparsity in SPARSITIES
            if sparsity * bits > 1.0
        ),
        *(LayerPlan(bits=b, rank=rank, compensate=True) for b in RANK_BITS for rank in ranks),
    ]


def measure_network(
    network: Network, *, keep: Sequence[str] = (), trained_on: bool = False
) -> MeasuredNetwork:
    """Encode every layer by every plan of its menu, those to keep by none; as of `plan_budget`."""
    kept = match_layers(network, keep)
    ends = find_ends(network)
    as_is = apply_plans(network, {})
    now = sum(tensor.nbytes for tensor in as_is.stored.values())
    digits = len(str(now))
    found = {}
    for layer in network.layers:
        tensor = layer.read_tensor()
        before = to_matrices(tensor, axis=layer.axis, stacked=layer.stacked)
        judge = LayerDamage(before, end=layer.name in ends)
        encoder = LayerEncoder(layer.tensor.name, tensor, axis=layer.axis, stacked=layer.stacked)
        choices = []
        for plan in make_menu(layer.shape)[: 1 if layer.name in kept else None]:
            encoded = encoder.encode(plan)
            size = encoded.bytes
            size += sum(_count_item(name, t, digits) for name, t in encoded.stored.items())
            for name, entry in encoded.entries.items():
                scaled = trained_on and "bits" in entry
                size += _count_entry(name, {**entry, "unit": _LONG_UNIT} if scaled else entry)
            after = to_matrices(encoded.weights, axis=layer.axis, stacked=layer.stacked)
            error = judge.error(after)
            choices.append(Choice(plan, size, error, judge.damage(error)))
        found[layer.name] = tuple(_keep_best(choices))
    frame = count_file_bytes({}, describe_packed({}, as_is.tied)) + _PADDING
    rest = sum(t.nbytes + _count_item(name, t, digits) for name, t in as_is.rest.items())
    return MeasuredNetwork(found, frame + rest, now)


def choose_plans(
    measured: MeasuredNetwork, budget: float, *, worst: float | None = None
) -> BudgetPlan:
    """Choose among measured choices; arguments and errors as of `plan_budget`."""
    if not budget > 0.0:
        raise CompressionError(f"a budget is a number of bytes or a share below 1, got {budget:g}")
    limit = int(budget * measured.now if budget < 1.0 else budget)
    allowed = {
        name: [c for c in options if worst is None or c.error <= worst]
        for name, options in measured.choices.items()
    }
    _check_possible(allowed, limit, measured, worst)
    flat = [(name, choice) for name, options in allowed.items() for choice in options]
    damages = np.array([choice.damage for _, choice in flat])
    table = np.zeros((len(allowed) + 1, len(flat)))
    rows = {name: row for row, name in enumerate(allowed)}
    for column, (name, choice) in enumerate(flat):
        table[rows[name], column] = 1.0
        table[-1, column] = choice.bytes
    solved = milp(
        damages / max(float(damages.max()), 1e-300),
        constraints=LinearConstraint(
            table,
            np.append(np.ones(len(allowed)), 0.0),
            np.append(np.ones(len(allowed)), float(limit - measured.fixed)),
        ),
        integrality=np.ones(len(flat), dtype=np.int64),
        bounds=Bounds(0.0, 1.0),
        options={"mip_rel_gap": 0.0},
    )
    assert solved.x is not None, solved.message
    chosen = dict(flat[column] for column in np.flatnonzero(solved.x > 0.5))
    return BudgetPlan({name: chosen[name] for name in allowed}, measured.fixed, limit)


def _check_possible(
    allowed: Mapping[str, Sequence[Choice]],
    limit: int,
    measured: MeasuredNetwork,
    worst: float | None,
) -> None:
    least = {name: min(options, key=lambda c: c.bytes) for name, options in allowed.items()}
    total = measured.fixed + sum(choice.bytes for choice in least.values())
    if total <= limit:
        return
    within = "" if worst is None else f" with no layer's error above {worst:g}"
    largest = max(least, key=lambda name: least[name].bytes)
    takes = least[largest].bytes
    what = f"layer {largest!r} takes {takes:,} of them"
    if measured.fixed > takes:
        what = f"what is no layer (biases, norms, the header) takes {measured.fixed:,} of them"
    raise CompressionError(
        f"a budget of {limit:,} bytes cannot be met{within}: the least is {total:,} bytes, "
        f"1/{measured.now / total:.1f} of now; {what}"
    )


def _keep_best(choices: Sequence[Choice]) -> list[Choice]:
    """Those that no other beats with as few bytes, by bytes."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.bytes, c.damage)):
        if not kept or choice.damage < kept[-1].damage:
            kept.append(choice)
    return kept


def _count_item(name: str, tensor: torch.Tensor, digits: int) -> int:
    """Bytes of a tensor's line in the header, at most."""
    offsets = [10**digits - 1] * 2
    item = {name: {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": offsets}}
    text = json.dumps(item, separators=(",", ":"), ensure_ascii=False)
    return len(text.encode("utf-8")) - 1  # two braces less, a comma more


def _count_entry(name: str, entry: Mapping[str, Any]) -> int:
    """Bytes of what the header's metadata say of a tensor."""
    text = json.dumps({name: entry}, separators=(",", ":"))
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8")) - 2 - 1
