"""Compress a trained network in many ways, without data and without retraining, and judge each.

Rows of weights are rounded, the smallest weights set to zero, matrices cut to a rank; combinations
too. The layers that meet characters or classes keep their rank and all of their weights, and at
least 4 bits: there is little to gain.
"""

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass

from torch import nn

from harness.train_large.tasks import Parts, Task, judge
from harness.train_large.training import Trained
from wwopt.compression import LayerPlan, Network, apply_plans, list_layers

GROUP = 32  # inputs that share a scale, from 4 bits down


@dataclass(frozen=True, order=True)
class Way:
    """A way to compress; as it is by default."""

    bits: int = 32
    sparsity: float = 0.0
    rank: float = 1.0  # share of the smaller side

    def __str__(self) -> str:
        parts = [] if self.rank == 1.0 else [f"rank {self.rank:g}"]
        parts += [] if not self.sparsity else [f"{self.sparsity:.0%} pruned"]
        return ", ".join([*parts, "float32" if self.bits == 32 else f"{self.bits} bits"])


FLOAT, INT8 = Way(), Way(8)
WAYS = (
    *(FLOAT, INT8, *(Way(bits) for bits in (6, 5, 4, 3, 2))),
    *(Way(bits, sparsity=s) for bits in (8, 4) for s in (0.5, 0.75)),
    *(Way(bits, rank=r) for bits in (32, 8, 4, 3, 2) for r in (0.5, 0.25)),
    *(Way(bits, rank=0.125) for bits in (4, 3)),
)


@dataclass(frozen=True)
class Compressed:
    """What became of a network that was compressed."""

    way: Way
    bytes: int  # of the file, scales, masks and header included
    validation: float  # quality, lower is better
    test: float


def compress_or_read(task: Task, parts: Parts, trained: Trained) -> list[Compressed]:
    """A trained network, compressed in every way of `WAYS`, as far as that was not done before."""
    path = trained.path.with_suffix(".json")
    rows = json.loads(path.read_text()) if path.exists() else []
    found = [Compressed(**row | {"way": Way(**row["way"])}) for row in rows]
    missing = [way for way in WAYS if way not in {each.way for each in found}]
    if missing:
        found += _compress(task, parts, trained, missing)
        path.with_suffix(".new").write_text(json.dumps([asdict(each) for each in found]))
        path.with_suffix(".new").replace(path)
    return [each for way in WAYS for each in found if each.way == way]


def _compress(
    task: Task, parts: Parts, trained: Trained, ways: Sequence[Way]
) -> Iterator[Compressed]:
    model = trained.load(task)
    network = list_layers(model)
    for way in ways:
        compressed = apply_plans(network, plan(network, way, task.ends(trained.recipe.size)))
        other = task.make_model(trained.recipe.size)
        other.load_state_dict(compressed.weights)
        quality = [judge(task, other, part) for part in (parts.validation, parts.test)]
        yield Compressed(way, compressed.bytes, *quality)


def plan(network: Network, way: Way, ends: Container[str]) -> dict[str, LayerPlan]:
    """The plan of every layer.

    Args:
        network: its layers.
        way: to compress them.
        ends: names of the layers that are spared.
    """
    plans = {}
    for layer in network.layers:
        spare = layer.name in ends
        bits = max(way.bits, 4) if spare else way.bits
        cut = way.rank < 1.0 and not spare
        plans[layer.name] = LayerPlan(
            bits=None if bits == 32 else bits,
            group=GROUP if bits <= 4 else None,
            clip=bits <= 4,
            sparsity=0.0 if spare else way.sparsity,
            rank=round(way.rank * min(layer.shape[1:])) if cut else None,
        )
    return plans


def cut_modules(model: nn.Module, share: float, ends: Container[str]) -> nn.Module:
    """The same network with thin layers in place of its dense ones: what a rank buys in time.

    The weights are left as they come: the time does not depend on them.
    """
    dense = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name, layer in dense.items():
        if name not in ends:
            rank = round(share * min(layer.in_features, layer.out_features))
            thin = nn.Sequential(
                nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features)
            )
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, thin)
    return model
