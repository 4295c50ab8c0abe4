"""What does it cost to link decisions to 10,000 examples? `python benchmarks/time_neighbours.py`.

Features of 10 classes around their rows; the nearest training examples of 12 decisions, as many as
a page shows, the index made among them; and the look-up of 1,000 examples. CPU seconds, one thread,
best of three. Half a minute. Results: docs/class-tree.md.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from wwopt.class_tree import Features, Hierarchy, NearestExamples, link_classes, vote

EXAMPLES, ASKED, CLASSES, SHOWN = 10_000, 1_000, 10, 12


def main() -> None:
    rng = np.random.default_rng(0)
    print("| width | 12 decisions, s | look-up of 1,000, s |\n|---|---|---|")
    for width in (128, 512, 2048):
        rows = rng.normal(size=(CLASSES, width))
        hierarchy = link_classes(rows, [str(i) for i in range(CLASSES)])
        labels = np.arange(EXAMPLES + ASKED) % CLASSES
        inputs = (rows[labels] + rng.normal(size=(len(labels), width))).astype(np.float32)
        whole = Features(inputs, labels)
        training, asked = whole[:EXAMPLES], whole[EXAMPLES:]

        with threadpool_limits(1):
            linked = best_of(partial(link, training, asked, hierarchy))
            looked_up = best_of(partial(vote, training, asked, CLASSES))
        print(f"| {width} | {linked:.2f} | {looked_up:.2f} |", flush=True)


def link(training: Features, asked: Features, hierarchy: Hierarchy) -> None:
    index = NearestExamples(training, hierarchy)
    for number in range(SHOWN):
        index.near(asked.inputs[number], hierarchy.root)


def best_of(run: Callable[[], object], times: int = 3) -> float:
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


if __name__ == "__main__":
    main()
