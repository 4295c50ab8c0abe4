"""Measure layers side by side in this process: a thread each, no more at once than fit into memory.

Every layer is computed by one thread, so the numbers are those of one after the other to the last
bit, whatever the number of workers. What takes time (BLAS, LAPACK, torch, numpy's loops) lets go of
Python's lock: MiniLM-L6 takes .42 s with two workers on two cores, and .71 s with one.
"""

import contextvars
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from wwopt.spectra.spectrum import MAX_SIZE
from wwopt.weights.matrices import WeightMatrix

Result = TypeVar("Result")

# Bytes beyond what the largest layer needs by itself: three layers of 768 × 768, or one of
# 1,024 × 1,024 beside the largest. Python with torch takes 340 MB.
SPARE_BYTES = 64 << 20
# Bytes for quick estimates: two layers of 11,008 × 4,096, so that LLaMA's keep two cores busy.
QUICK_BYTES = 1100 << 20
# Columns of a layer, from which on a second thread gains: two take 1.24 times as long as one for
# layers of 64 × 64, as long at 128, .7 times at 256. Below it Python's own steps, under its lock,
# are most of the time; a thread's start is not (.1 ms).
FEWEST_COLUMNS = 192


def count_workers() -> int:
    """As many as torch has threads here, by `torch.set_num_threads` or OMP_NUM_THREADS, or cores.

    torch counts physical cores, and one in the workers of a `DataLoader`.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(torch.get_num_threads(), cores))


def choose_workers(matrices: Sequence[WeightMatrix], *, on_cpu: bool) -> int:
    """How many layers to compute at once by default: one where a thread more gains nothing."""
    gaining = sum(matrix.shape[1] >= FEWEST_COLUMNS for matrix in matrices)
    # A GPU computes one layer after the other, and its memory is not counted here.
    return max(1, min(count_workers(), gaining)) if on_cpu else 1


def bytes_needed(
    matrix: WeightMatrix, *, max_size: int = MAX_SIZE, quick_from: int | None = None
) -> int:
    """Upper estimate of the memory that measuring one layer takes at its peak, in bytes.

    The layer in float32, its shuffle and what shuffles it; a Gram matrix in float64, the entries
    widened to multiply it, and their squares. For layers beyond `max_size`, which are estimated, a
    Krylov space of 2,048 dimensions in float32 and a copy; one of 512 where the estimate is quick.
    """
    N, M = matrix.shape
    if quick_from is not None and quick_from <= M:
        return 12 * N * M * matrix.num_slices + 16 * 512 * M
    entry = 20 if matrix.dtype == "float64" else 12
    side = 24 * M if max_size >= M else 16 * 2048
    return entry * N * M * matrix.num_slices + side * M


def map_side_by_side(
    function: Callable[[WeightMatrix], Result],
    matrices: Sequence[WeightMatrix],
    *,
    workers: int,
    needs: Sequence[int],
    budget: int,
) -> Iterator[Result]:
    """Yield function(matrix) for every matrix, in their order.

    Layers are begun in their order, each as soon as a worker is free and what it needs fits beside
    what is being computed; one that needs more than the budget is computed alone. An error is
    raised where its layer's turn is; layers being computed are then waited for, others never begun.

    Args:
        function: what to compute, in a thread of its own, with the caller's context variables.
        matrices: the layers.
        workers: how many may be computed at once.
        needs: of every layer, in the unit of the budget.
        budget: for all that are computed at once.
    """
    waiting = deque(zip(matrices, needs, strict=True))
    ordered: deque[Future[Result]] = deque()
    running: dict[Future[Result], int] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="wwopt-layer") as pool:
        try:
            while waiting or ordered:
                running = {job: need for job, need in running.items() if not job.done()}
                while waiting and is_admitted(
                    waiting[0][1], list(running.values()), workers=workers, budget=budget
                ):
                    matrix, need = waiting.popleft()
                    job = pool.submit(contextvars.copy_context().run, function, matrix)
                    running[job] = need
                    ordered.append(job)
                if ordered[0].done():
                    yield ordered.popleft().result()
                else:
                    wait(running, return_when=FIRST_COMPLETED)
        finally:  # also on Ctrl-C, and where the caller stops
            for job in ordered:
                job.cancel()


def is_admitted(need: int, running: Sequence[int], *, workers: int, budget: int) -> bool:
    """Whether a layer may be begun beside others, all in the unit of the budget."""
    if not running:
        return True
    return len(running) < workers and need + sum(running) <= budget
