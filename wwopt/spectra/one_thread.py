"""One thread for one layer: its numbers are the same to the last bit however many there are.

Sums that threads share are rounded differently for every number of them: eigenvalues differ by
1e-16 of the largest, alphas by 1e-13. And those threads wait for each other by spinning. Two of
them took 5 times as long as one for MiniLM-L6 on two idle cores, and 7 to 20 times beside a busy
process. What uses the other cores is other layers (`wwopt.metrics.side_by_side`).

The price: one layer of 4,096 × 4,096, alone on two idle cores, takes 7.7 s, with two threads 4.5 s;
beside a busy process it is 10.5 s against 25 s.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import OpenBLASController, ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread of BLAS, and of OpenMP and torch in the calling thread.

    OpenMP and torch's MKL keep a number for every thread that calls them, BLAS one for the whole
    process. Calls may overlap, in one thread or in several: the first limits BLAS, the last sets it
    back. What torch computes in other threads keeps its own.
    """
    torch.get_num_threads()  # or torch's first operation in a thread sets OpenMP's number anew
    with _blas_limit, _libraries("openmp").limit(limits=1), _one_thread_of_mkl():
        yield


@lru_cache(maxsize=2)
def _libraries(user_api: str) -> ThreadpoolController:
    # Apart: leaving a limit sets all libraries back that its controller knows.
    return ThreadpoolController().select(user_api=user_api)


@contextmanager
def _one_thread_of_mkl() -> Iterator[None]:
    # torch.set_num_threads(n) gives MKL a number that goes before OpenMP's.
    set_here = _find_mkl()
    before = set_here(1) if set_here else 0
    try:
        yield
    finally:
        if set_here:
            set_here(before)


@lru_cache(maxsize=1)
def _find_mkl() -> Any:
    """MKL's setting for the calling thread, where it is part of torch, as in the wheels for x86."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    return (
        getattr(ctypes.CDLL(str(library)), "MKL_Set_Num_Threads_Local", None)
        if library.exists()
        else None
    )


class _SharedLimit:
    """BLAS limited to one thread while anybody is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                _free_control()
                self._limit = _libraries("blas").limit(limits=1)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _free_control()
                self._limit.restore_original_limits()
                _free_control()


def _free_control() -> None:
    """Let any thread set OpenBLAS's number: from threadpoolctl 3.8 on, else, only the first may.

    The others' limits do nothing, silently. Here whoever comes first limits for all.
    """
    free = getattr(OpenBLASController, "clear_controlling_thread", None)
    if free is not None:
        free(force=True)


_blas_limit = _SharedLimit()
