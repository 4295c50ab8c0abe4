"""A checkpoint a week, on disk, and any two of them compared as `wwopt check` compares them.

What was trained or compared once is read again from the folder. A history that breaks shares its
healthy weeks with the one that does not.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from harness.damage_cases import make_plain_layer
from harness.retrainings.training import (
    ANEW,
    BREAKAGES,
    CONTINUED,
    HEALTHY,
    RECIPES,
    TASKS,
    WEEKS,
    Task,
    Week,
    measure_accuracy,
    open_stream,
    train_week,
)
from wwopt.gate.changes import LayerChange
from wwopt.gate.checks import GateResult, LayerCheck, Side, compare_sides, judge, measure_side
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.model_metrics import LayerMetrics
from wwopt.weights.matrices import read_weights


@dataclass
class History:
    """One network over the weeks."""

    network: str
    way: str  # CONTINUED or ANEW
    seed: int
    breakage: str  # "": none
    folder: Path
    healthy: "History | None" = None  # the one that it shares its first weeks with
    accuracies: list[float] = field(default_factory=list)
    pairs: dict[str, Any] = field(default_factory=dict)  # "3-4" → as compared
    sides: dict[int, Side] = field(default_factory=dict)
    results: dict[str, GateResult] = field(default_factory=dict)

    @property
    def judges(self) -> bool:
        """Whether it is of the half that had no say in the rule."""
        return self.seed % 2 == 1

    def path(self, week: int) -> Path:
        """The checkpoint of a week; week 0 is the first."""
        if self.healthy is not None and week <= HEALTHY:
            return self.healthy.path(week)
        return self.folder / f"week-{week:02}.safetensors"

    def compare(self, before: int, after: int) -> GateResult:
        """Two weeks, as `wwopt check` compares them."""
        if self.healthy is not None and max(before, after) <= HEALTHY:
            return self.healthy.compare(before, after)
        key = f"{before}-{after}"
        if key in self.results:
            return self.results[key]
        if key not in self.pairs:
            for week in {before, after} - self.sides.keys():
                self.sides[week] = measure_side(read_weights(self.path(week)))
            found = compare_sides(self.sides[before], self.sides[after], Thresholds())
            self.pairs[key] = [
                {
                    "name": row.name,
                    "before": make_plain_layer(row.before),
                    "after": make_plain_layer(row.after),
                    "change": asdict(row.change),
                }
                for row in found.layers
            ]
            self.sides.pop(min(self.sides) if len(self.sides) > 3 else -1, None)
        rows = [
            LayerCheck(
                row["name"],
                LayerMetrics(**row["before"]),
                LayerMetrics(**row["after"]),
                LayerChange(**row["change"]),
            )
            for row in self.pairs[key]
        ]
        self.results[key] = judge(rows, Thresholds())
        return self.results[key]

    def save(self) -> None:
        """Keep what was compared."""
        _write(self.folder / "pairs.json", self.pairs)


def open_history(
    network: str, way: str, seed: int, breakage: str, *, data: Path | None, cache: Path
) -> History:
    """Train what is not there yet, compare each week with the one before, and keep both."""
    folder = _name_folder(network, way, seed, breakage, cache)
    healthy = None
    if breakage:
        healthy = open_history(network, way, seed, "", data=data, cache=cache)
    history = History(network, way, seed, breakage, folder, healthy)
    done = folder / "accuracies.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(done, _train(history, data))
    history.accuracies = json.loads(done.read_text())
    if (folder / "pairs.json").exists():
        history.pairs = json.loads((folder / "pairs.json").read_text())
    known = len(history.pairs)
    for week in range(HEALTHY + 1 if breakage else 1, WEEKS + 1):
        history.compare(week - 1, week)
    if len(history.pairs) > known:
        history.save()
    return history


def is_trained(network: str, way: str, seed: int, breakage: str, *, cache: Path) -> bool:
    """Whether a history, and the healthy one that it shares weeks with, is there and compared."""
    folders = {_name_folder(network, way, seed, part, cache) for part in ("", breakage)}
    return all((folder / "pairs.json").exists() for folder in folders)


def _name_folder(network: str, way: str, seed: int, breakage: str, cache: Path) -> Path:
    name = f"breakage-{list(BREAKAGES).index(breakage)}" if breakage else "healthy"
    return cache / f"{network}-{way}-{seed}" / name


def _train(history: History, data: Path | None) -> list[float]:
    """Accuracies of the weeks; a broken one's begin where it parts from the healthy one."""
    task = TASKS[history.network]
    stream = open_stream(history.network, history.seed, data)
    recipe = None if task.data == "text" else history.seed // 2 % len(RECIPES)
    first = HEALTHY + 1 if history.breakage else 0
    accuracies = []
    for week in range(first, WEEKS + 1):
        torch.manual_seed(1000 * history.seed + week)
        model = task.make()
        goes_on = history.way == CONTINUED and week > 0
        if goes_on:
            model.load_state_dict(load_file(history.path(week - 1)))
        changed = BREAKAGES[history.breakage](week - HEALTHY) if history.breakage else Week()
        examples = stream.take(week, changed.data)
        train_week(
            model, examples, _count_epochs(task, history.way, week), recipe=recipe, week=changed
        )
        save_file(model.state_dict(), history.path(week))
        accuracies.append(measure_accuracy(model, stream.held_out))
    return accuracies


def _count_epochs(task: Task, way: str, week: int) -> int:
    if way == ANEW:
        return task.anew
    return task.weekly if week else task.first


def _write(path: Path, found: Any) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(path)


WAYS = (CONTINUED, ANEW)
