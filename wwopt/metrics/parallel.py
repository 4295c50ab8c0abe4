"""Measure the layers of a model on any `concurrent.futures.Executor`: many processes or machines.

Files travel as path and tensor name, so every worker reads its own layers; modules travel as
arrays, a bounded number at a time. Results come back in the order of the layers. A worker that is
lost takes its layers with it; those are computed again.
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.weights.matrices import WeightMatrix

Result = TypeVar("Result")

RETRIES = 3  # of a layer whose worker was lost; Dask has by then tried some times itself
# Dask's and asyncio's names for "whoever computed this is gone". CancelledError is also what a
# future says that Dask's scheduler has forgotten.
_LOST = frozenset({"KilledWorker", "CancelledError", "FutureCancelledError", "CommClosedError"})


class LostWorkerError(RuntimeError):
    """A layer whose workers were lost again and again."""


@dataclass
class _Job:
    matrix: WeightMatrix
    future: "Future[Any]"
    lost: int = 0  # workers so far


def map_layers(
    function: Callable[[WeightMatrix], Result],
    matrices: Sequence[WeightMatrix],
    *,
    executor: Executor,
    from_files: bool,
) -> Iterator[Result]:
    """Yield function(matrix) for every matrix, in their order.

    Args:
        function: what to compute; it travels, so it must be importable where the workers are.
        matrices: the layers.
        executor: the caller's; it is not shut down here.
        from_files: whether the layers can be read by the workers; their values travel otherwise.

    Raises:
        LostWorkerError: if a layer lost its worker more than `RETRIES` times.
    """
    limit = _in_flight(executor)
    jobs: deque[_Job] = deque()
    waiting = iter(matrices)
    try:
        while True:
            # A broken pool also refuses new work; what is left is then computed here.
            try:
                while len(jobs) < limit and (matrix := next(waiting, None)) is not None:
                    jobs.append(_Job(matrix, _submit(executor, function, matrix, from_files)))
            except BrokenExecutor as error:
                _warn(error)
                yield from _finish(function, [*(job.matrix for job in jobs), matrix, *waiting])
                return
            if not jobs:
                return
            job = jobs[0]
            try:
                result = _wait(job, executor, function, from_files)
            except BrokenExecutor as error:
                _warn(error)
                yield from _finish(function, [*(job.matrix for job in jobs), *waiting])
                return
            jobs.popleft()
            yield result
    finally:  # also on Ctrl-C: nothing of ours stays in the caller's queue
        for job in jobs:
            job.future.cancel()


def _wait(
    job: _Job, executor: Executor, function: Callable[[WeightMatrix], Result], from_files: bool
) -> Result:
    while True:
        try:
            result: Result = job.future.result()
            return result
        except BaseException as error:
            if not _LOST & {kind.__name__ for kind in type(error).__mro__}:
                raise
            job.lost += 1
            if job.lost > RETRIES:
                raise LostWorkerError(
                    f"layer {job.matrix.name} lost its worker {job.lost} times "
                    f"({type(error).__name__}: {error}); a worker needs about six times the "
                    "layer's size in float32, give them more memory or fewer threads"
                ) from error
        job.future = _submit(executor, function, job.matrix, from_files)


def _submit(
    executor: Executor, function: Callable[[WeightMatrix], Any], matrix: WeightMatrix, file: bool
) -> "Future[Any]":
    if not file:
        # As an array: torch shares its tensors' memory with other processes and leaves it behind
        # when they are killed.
        values = np.ascontiguousarray(matrix.read().detach().cpu().numpy())
        matrix = replace(matrix, read=partial(_tensor, values))
    return executor.submit(function, matrix)


def _tensor(values: NDArray[Any]) -> torch.Tensor:
    # Arrays that arrive over a network are read-only, which torch warns of.
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _finish(
    function: Callable[[WeightMatrix], Result], matrices: Sequence[WeightMatrix | None]
) -> Iterator[Result]:
    for matrix in matrices:
        if matrix is not None:
            yield function(matrix)


def _warn(error: BrokenExecutor) -> None:
    warnings.warn(
        f"the executor lost a worker and takes no more work ({error}); the remaining layers are "
        "computed in this process",
        RuntimeWarning,
        stacklevel=4,
    )


def _in_flight(executor: Executor) -> int:
    """Layers submitted and not yet collected: enough to keep every worker busy."""
    workers = getattr(executor, "_max_workers", None)  # pools of the standard library
    client = getattr(executor, "_client", None)  # Dask's
    if client is not None:
        workers = sum(client.nthreads().values())
    return 2 * max(int(workers or os.cpu_count() or 1), 2)
