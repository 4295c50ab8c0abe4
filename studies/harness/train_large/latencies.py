"""How long one batch takes, in units of the smallest network's, whole and cut to a rank."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.train_large.compressing import WAYS, cut_modules
from harness.train_large.tasks import Parts, Size, Task
from wwopt.metrics import measure_latency

SHARES = tuple(sorted({way.rank for way in WAYS if way.bits == 32}, reverse=True))


@dataclass(frozen=True)
class Latency:
    """Of one shape of network. Rounding and zeros change the file alone, not the time."""

    size: Size
    rank: float  # share of the smaller side that matrices are cut to; 1 for whole ones
    ratios: tuple[float, ...]  # to the smallest network, sorted

    @property
    def median(self) -> float:
        """Of the repeats."""
        return self.ratios[len(self.ratios) // 2]


def measure_or_read(task: Task, parts: Parts, sizes: Sequence[Size], folder: Path) -> list[Latency]:
    """All ranks of some sizes, taking turns with the first one, unless that was done before."""
    path = folder / task.name / "latencies.json"
    if path.exists():
        rows = json.loads(path.read_text())
        return [Latency((w, d), rank, tuple(ratios)) for w, d, rank, ratios in rows]
    batch, _ = parts.draw(task.few, torch.Generator().manual_seed(0))
    models = {
        (size, share): cut_modules(task.make_model(size), share, task.ends(size))
        if share < 1.0
        else task.make_model(size)
        for size in sizes
        for share in SHARES
    }
    smallest = task.make_model(sizes[0]).eval()
    found: dict[tuple[Size, float], list[float]] = {shape: [] for shape in models}
    for _ in range(task.repeats):  # outermost: what else the machine does falls on all of them
        for shape, model in models.items():
            ratio = measure_latency(model, batch, reference=lambda: smallest(batch))
            found[shape].append(ratio)
    latencies = [Latency(size, rank, tuple(sorted(r))) for (size, rank), r in found.items()]
    rows = [[*each.size, each.rank, each.ratios] for each in latencies]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return latencies
