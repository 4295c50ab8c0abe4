"""The picture: quality by bytes, by the time of a batch, and by batch size at equal time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness.score_statistics import Array, mean_interval
from harness.train_large.comparisons import Found, find_front, list_choices
from harness.train_large.compressing import FLOAT
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
        axes.plot(x, y, color=colour, marker=mark, markersize=4, lw=1.3, label=tell_size(size))
        whole = next(each for each in own if each.way == FLOAT)
        axes.plot([x[-1], whole.bytes], [y[-1], whole.test.mean()], ":", color=colour, lw=1)
        shown += [whole.test.mean(), y[-1]]
        _mark_whole(axes, whole.bytes, whole.test, colour, mark)
    _limit(axes, shown)
    _log_axis(axes, lambda x, _: f"{x / 1e3:g}", (1.0, 3.0))
    axes.set_xlabel("file, kB (open: float32, as trained, with 95 % interval)")
    axes.set_title("compressed: quality by bytes", fontsize=10)
    axes.legend(title="width × depth", fontsize=7, title_fontsize=7)


def _draw_latency(axes: Axes, results: Results) -> None:
    choices = {
        (each.size, each.way.rank): each
        for each in list_choices(results.found)
        if each.way.bits == 32
    }
    shown = []
    for size, colour, mark in zip(results.found, COLOURS, MARKS, strict=False):
        own = [each for each in results.latencies if each.size == size]
        y = [choices[size, each.rank].test.mean() for each in own]
        axes.plot([each.median for each in own], y, color=colour, marker=mark, markersize=4, lw=1.3)
        shown.append(y[0])
        _mark_whole(axes, own[0].median, choices[size, own[0].rank].test, colour, mark)
    _limit(axes, shown)
    _log_axis(axes, lambda x, _: f"{x:g}", (1.0, 2.0, 5.0))
    axes.set_xlabel("time of a batch; 1: the smallest (filled: rank ½, ¼)")
    axes.set_title("cut to a rank: quality by latency", fontsize=10)


def _draw_batches(axes: Axes, results: Results) -> None:
    def parameters(size: Size) -> int:
        return sum(p.numel() for p in results.task.make_model(size).parameters())

    went_on = [size for size, networks in results.by_batch.items() if len(networks) > 1]
    colours = (SKY, GREEN, VERMILLION)
    for batch, colour, mark in zip(results.task.batches, colours, MARKS, strict=False):
        own = [size for size in went_on if batch in results.by_batch[size]]
        y = [results.by_batch[size][batch].validation for size in own]
        axes.plot([*map(parameters, own)], y, color=colour, marker=mark, label=str(batch))
    first = results.task.batches[0]
    others = [size for size in results.by_batch if size not in went_on]
    y = [results.by_batch[size][first].validation for size in others]
    words = f"{first}, other depth"
    axes.plot([*map(parameters, others)], y, MARKS[0], color=SKY, mfc="white", label=words)
    _log_axis(axes, lambda x, _: f"{x / 1e3:g}", (1.0, 3.0))
    axes.set_xlabel("parameters, thousands")
    axes.set_title(
        f"batch size × model size, {results.task.budget:g} CPU s (validation)", fontsize=10
    )
    axes.legend(title="batch", fontsize=7, title_fontsize=7)


def _mark_whole(axes: Axes, x: float, test: Array, colour: str, mark: str) -> None:
    interval = mean_interval(test)
    reach = [[interval.value - interval.low], [interval.high - interval.value]]
    axes.errorbar(
        x, interval.value, reach, fmt=mark, color=colour, markersize=9, mfc="white", mew=1.6
    )


def _limit(axes: Axes, values: Sequence[float]) -> None:
    """From the best to a little beyond the worst that is of interest; what broke is left out."""
    low, high = min(values), max(values)
    axes.set_ylim(low - 0.5 * (high - low), high + 0.7 * (high - low))


def _log_axis(axes: Axes, words: Callable[[float, int], str], ticks: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(words))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.25)
