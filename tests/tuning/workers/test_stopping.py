"""A signal stops the main thread once, and is remembered."""

import os
import signal
import threading

import pytest

from wwopt.tuning.workers import stopping
from wwopt.tuning.workers.stopping import stoppable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_once_and_is_remembered(number: int) -> None:
    before = signal.getsignal(number)
    with stoppable() as stop:
        assert not stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # what the first one cleans up goes on
        assert stop.requested and stop.signal == number
        assert stop.caused(ValueError("made of it in C++"))
    assert signal.getsignal(number) == before


def test_an_impatient_second_one_interrupts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "PATIENCE", 0.0)
    with stoppable():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)


def test_without_a_signal_only_ctrl_c_is_an_interruption() -> None:
    with stoppable() as stop:
        assert stop.caused(KeyboardInterrupt()) and not stop.caused(SystemExit(1))


def test_in_another_thread_signals_are_left_alone() -> None:
    heard: list[bool] = []

    def run() -> None:
        with stoppable() as stop:
            heard.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [False]
