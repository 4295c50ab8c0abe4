"""The study's tables, in Markdown."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from harness.markdown_tables import format_markdown
from harness.score_statistics import Array, mean_interval
from harness.train_large.comparisons import Choice, Found, fight, find_front, list_choices
from harness.train_large.compressing import FLOAT
from harness.train_large.latencies import Latency
from harness.train_large.tasks import Size, Task
from harness.train_large.training import Trained


def tell_size(size: Size) -> str:
    """As "64 × 2": width and depth."""
    return f"{size[0]} × {size[1]}"


def tell_bytes(count: float) -> str:
    """In kB of 1,000."""
    return f"{count / 1e3:,.0f} kB" if count >= 1e4 else f"{count / 1e3:.1f} kB"


def digits_of(task: Task) -> int:
    """Decimals that a quality is told with."""
    return 3 if task.name == "text" else 2


def tell_less(differences: Array, digits: int) -> str:
    """A mean difference, with its interval over seeds where there are two."""
    if len(differences) < 2:
        return f"{differences.mean():+.{digits}f}"
    return f"{mean_interval(differences):+.{digits}f}"


def print_table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> None:
    """One Markdown table, and a line after it."""
    print(format_markdown(pd.DataFrame(rows, columns=list(heads)), index=False) + "\n")


def print_training(task: Task, by_batch: Mapping[Size, Mapping[int, Trained]]) -> None:
    """Batch size × model size at equal CPU time: validation quality of one seed, rate, steps."""
    rows = []
    for size, networks in by_batch.items():
        best = min(networks.values(), key=lambda trained: trained.validation)
        cells = []
        for batch in task.batches:
            trained = networks.get(batch)
            if trained is None:
                cells.append("")
                continue
            mark = "**" if trained is best else ""
            quality = f"{mark}{trained.validation:.{digits_of(task)}f}{mark}"
            cells.append(f"{quality} ({trained.recipe.rate:.2g}; {trained.steps:,})")
        rows.append([tell_size(size), *cells])
    heads = [f"batch of {batch}" for batch in task.batches]
    print("Batch size × model size: validation quality of one seed (learning rate; steps).\n")
    print_table(rows, ["width × depth", *heads])


def print_finals(
    task: Task, finals: Mapping[Size, Sequence[Trained]], found: Found, longer: Found
) -> None:
    """Every size as it was trained, at its best rate and batch size; and after longer training."""
    rows = []
    for size, networks in finals.items():
        as_trained = _of(list_choices({size: found[size]}))
        steps = np.array([trained.steps for trained in networks])
        row = [tell_size(size), str(networks[0].recipe.batch), f"{networks[0].recipe.rate:.2g}"]
        row += [f"{steps.mean():,.0f}", f"{100 * np.ptp(steps) / steps.mean():.0f} %"]
        row += [tell_bytes(as_trained.bytes)]
        row += [f"{mean_interval(as_trained.test):.{digits_of(task)}f}"]
        own = _of(list_choices({size: longer[size]})).test
        row += [f"{own.mean():.{digits_of(task)}f}"]
        row += [tell_less(own - as_trained.test[: len(own)], digits_of(task))]
        rows.append(row)
    print("Each size at its best, over seeds; and trained for longer.\n")
    heads = ["width × depth", "batch", "rate", "steps", "spread of steps", "bytes", "test"]
    print_table(rows, [*heads, "longer: test", "less before"])


def _of(choices: Sequence[Choice]) -> Choice:
    return next(each for each in choices if each.way == FLOAT)


def print_duels(task: Task, found: Found) -> None:
    """The claim: small networks against larger ones compressed to their bytes."""
    digits = digits_of(task)
    rows = [
        [
            tell_bytes(duel.bytes),
            f"{tell_size(duel.small.size)}, {duel.small.way}",
            f"{duel.small.test.mean():.{digits}f}",
            f"{tell_size(duel.large.size)}, {duel.large.way}",
            f"{duel.large.test.mean():.{digits}f}",
            tell_less(duel.large.test - duel.small.test, digits),
        ]
        for duel in fight(found)
    ]
    print_table(rows, ["bytes", "small", "test", "large, compressed", "test", "large less small"])


def print_front(task: Task, found: Found) -> None:
    """What to train and how to compress it, by the bytes that there are."""
    rows = []
    for each in find_front(list_choices(found)):
        quality = f"{mean_interval(each.test):.{digits_of(task)}f}"
        rows.append([tell_bytes(each.bytes), tell_size(each.size), str(each.way), quality])
    print("The best by validation within so many bytes.\n")
    print_table(rows, ["bytes", "width × depth", "compressed to", "test"])


def print_latencies(task: Task, found: Found, latencies: Sequence[Latency]) -> None:
    """Quality against the time of one batch; "*" where nothing faster is as good."""
    choices = {(c.size, c.way.rank): c for c in list_choices(found) if c.way.bits == 32}
    rows, best = [], float("inf")
    for each in sorted(latencies, key=lambda each: each.median):
        choice = choices[each.size, each.rank]
        mark = " *" if choice.validation < best else ""
        best = min(best, choice.validation)
        ratio = f"{each.median:.2f} [{each.ratios[0]:.2f}, {each.ratios[-1]:.2f}]{mark}"
        quality = f"{mean_interval(choice.test):.{digits_of(task)}f}"
        rank = "whole" if each.rank == 1.0 else f"rank {each.rank:g}"
        rows.append([ratio, tell_size(each.size), rank, tell_bytes(choice.bytes), quality])
    print("By the time of a batch; * where nothing faster is as good by validation.\n")
    print_table(rows, ["latency", "width × depth", "matrices", "bytes", "test"])


def tell_winners(task: Task, found: Found) -> str:
    """Where on the axis of bytes which size is best, in one line."""
    front = find_front(list_choices(found))
    parts, start = [], front[0]
    for before, after in pairwise([*front, None]):
        if after is None or after.size != start.size:
            parts.append(f"{tell_size(start.size)} from {tell_bytes(start.bytes)}")
            start = after or before
    return f"Best by bytes ({task.unit}): {', '.join(parts)}."
