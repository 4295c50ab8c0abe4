"""The picture: quality by bytes, by the time of a batch, and by batch size at equal time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from harness.train_large.comparisons import Found, find_front, list_choices
from harness.train_large.compressing import FLOAT, INT8
from harness.train_large.latencies import Latency
from harness.train_large.tables import tell_size
from harness.train_large.tasks import Size, Task
from harness.train_large.training import Trained
from wwopt.metrics.colours import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION

COLOURS = (SKY, BLUE, GREEN, ORANGE, VERMILLION, PURPLE)
MARKS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class Results:
    """All that is drawn of one task."""

    task: Task
    by_batch: Mapping[Size, Mapping[int, Trained]]
    found: Found
    latencies: Sequence[Latency]


def draw(results: Sequence[Results], path: Path) -> None:
    """One row a task: a PNG of about 100 kB."""
    figure, rows = plt.subplots(
        len(results), 3, figsize=(12.5, 3.7 * len(results)), squeeze=False, layout="constrained"
    )
    for row, each in zip(rows, results, strict=True):
        _draw_bytes(row[0], each)
        _draw_latency(row[1], each)
        _draw_batches(row[2], each)
        row[0].set_ylabel(f"{each.task.name}: {each.task.unit}, test")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _draw_bytes(axes: Axes, results: Results) -> None:
    choices = list_choices(results.found)
    shown = []
    for (size, _), colour, mark in zip(results.found.items(), COLOURS, MARKS, strict=False):
        own = [each for each in choices if each.size == size]
        front = find_front(own)
        x, y = [each.bytes for each in front], [each.test.mean() for each in front]
        shown += [each.test.mean() for each in own if each.way in (FLOAT, INT8)]
        axes.plot(x, y, color=colour, marker=mark, markersize=4, lw=1.3, label=tell_size(size))
        whole = next(each for each in own if each.way == FLOAT)
        axes.plot(
            whole.bytes, whole.test.mean(), mark, color=colour, markersize=9, mfc="white", mew=1.6
        )
    _limit(axes, shown)
    _log_axis(axes, lambda x, _: f"{x / 1e3:g}")
    axes.set_xlabel("file, kB (open mark: float32, as trained)")
    axes.set_title("compressed: quality by bytes", fontsize=10)
    axes.legend(title="width × depth", fontsize=7, title_fontsize=7)


def _draw_latency(axes: Axes, results: Results) -> None:
    choices = {
        (each.size, each.way.rank): each
        for each in list_choices(results.found)
        if each.way.bits == 32
    }
    whole = []
    for size, colour, mark in zip(results.found, COLOURS, MARKS, strict=False):
        own = [each for each in results.latencies if each.size == size]
        y = [choices[size, each.rank].test.mean() for each in own]
        axes.plot([each.median for each in own], y, color=colour, marker=mark, markersize=4, lw=0.8)
        whole.append(y[0])
        axes.plot(own[0].median, y[0], mark, color=colour, markersize=9, mfc="white", mew=1.6)
    _limit(axes, whole)
    _log_axis(axes, lambda x, _: f"{x:g}")
    axes.set_xlabel("time of a batch (smallest: 1; filled: rank ½, ¼)")
    axes.set_title("cut to a rank: quality by latency", fontsize=10)


def _draw_batches(axes: Axes, results: Results) -> None:
    def parameters(size: Size) -> int:
        return sum(p.numel() for p in results.task.make_model(size).parameters())

    colours = (SKY, GREEN, VERMILLION)
    for batch, colour, mark in zip(results.task.batches, colours, MARKS, strict=False):
        own = [size for size in results.found if batch in results.by_batch[size]]
        y = [results.by_batch[size][batch].validation for size in own]
        axes.plot([*map(parameters, own)], y, color=colour, marker=mark, label=str(batch))
    others = [size for size in results.by_batch if size not in results.found]
    first = results.task.batches[0]
    y = [results.by_batch[size][first].validation for size in others]
    axes.plot([*map(parameters, others)], y, MARKS[0], color=SKY, mfc="white", label="other depth")
    _log_axis(axes, lambda x, _: f"{x / 1e3:g}")
    axes.set_xlabel("parameters, thousands")
    axes.set_title(
        f"batch size × model size, {results.task.budget:g} CPU s (validation)", fontsize=10
    )
    axes.legend(title="batch", fontsize=7, title_fontsize=7)


def _limit(axes: Axes, values: Sequence[float]) -> None:
    """From the best to a little beyond the worst that is of interest; what broke is left out."""
    low, high = min(values), max(values)
    axes.set_ylim(low - 0.08 * (high - low), high + 0.5 * (high - low))


def _log_axis(axes: Axes, words: object) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(words))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
