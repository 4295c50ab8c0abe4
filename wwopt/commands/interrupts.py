"""The interrupts that a command has heard, also where something made another error of them."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

_KEY = "wwopt.interrupts"  # of the context
_GRACE = "wwopt.grace"  # likewise


@contextmanager
def hear_interrupts(context: click.Context) -> Iterator[list[int]]:
    """The interrupts so far; each raises KeyboardInterrupt, as ever. Ignored ones stay ignored."""
    heard: list[int] = []
    context.meta[_KEY] = heard
    before = signal.getsignal(signal.SIGINT)

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) == 1 and _GRACE in context.meta:
            last = threading.Timer(context.meta[_GRACE], _end)
            last.daemon = True
            last.start()
        signal.default_int_handler(number, frame)

    hears = before is signal.default_int_handler
    if hears and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, hear)
        try:
            yield heard
        finally:
            signal.signal(signal.SIGINT, before)
    else:
        yield heard


def is_interrupted() -> bool:
    """Whether the command that runs has heard one, for those that go on after errors."""
    return bool(click.get_current_context().meta.get(_KEY))


def bound_ending(seconds: float) -> None:
    """End the process so long after its first interrupt, whatever it still waits for then.

    An interrupt that arrives while a library takes a lock leaves it taken, and what closes the
    library then waits for ever. Only for commands that may be killed at any moment.
    """
    click.get_current_context().meta[_GRACE] = seconds


def _end() -> None:
    sys.stderr.write("wwopt: interrupted; what still held it up was left\n")
    sys.stderr.flush()
    os._exit(130)
