"""Stop at a signal: Ctrl-C, or the SIGTERM that Slurm, Kubernetes and spot machines send.

Either raises KeyboardInterrupt in the main thread, once. It does not always arrive as that:
Lightning makes a SystemExit of it, and libraries in C++ any error of theirs. So the signal is also
remembered, and whatever a trial ends with after it is an interruption.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE = 20.0  # seconds in which more signals do not break off what the first one cleans up


class Stop:
    """Whether a signal asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None  # number of the first one
        self._since = 0.0

    @property
    def requested(self) -> bool:
        """Whether there was one."""
        return self.signal is not None

    def caused(self, error: BaseException) -> bool:
        """Whether an error is an interruption, and no fault of the training."""
        return self.requested or isinstance(error, KeyboardInterrupt)

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.signal is not None and time.monotonic() - self._since < PATIENCE:
            return
        self.signal, self._since = number, time.monotonic()
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Hear SIGINT and SIGTERM inside the block; in the main thread, where Python lets one."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heard = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop.hear) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
