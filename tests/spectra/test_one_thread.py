"""One thread inside, everybody's own number outside, however the calls overlap."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from wwopt.spectra.one_thread import one_thread


def numbers(user_api: str) -> set[int]:
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == user_api}


@pytest.fixture(autouse=True)
def two() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        assert numbers("blas") == {2}
        yield
    torch.set_num_threads(before)


def test_inside_there_is_one_and_outside_as_many_as_before() -> None:
    with one_thread():
        assert numbers("blas") == {1}
        assert torch.get_num_threads() == 1
        with one_thread():
            assert numbers("blas") == {1}
        assert numbers("blas") == {1}
    assert numbers("blas") == {2}
    assert torch.get_num_threads() == 2


def test_an_error_sets_them_back() -> None:
    with pytest.raises(KeyError), one_thread():
        raise KeyError("x")
    assert numbers("blas") == {2}
    assert torch.get_num_threads() == 2


def test_whoever_leaves_last_sets_blas_back() -> None:
    entered, leave = threading.Event(), threading.Event()
    seen: list[object] = []

    def stay() -> None:
        with one_thread():
            entered.set()
            leave.wait(60)
            seen.append((numbers("blas"), torch.get_num_threads()))
        seen.append((numbers("blas"), torch.get_num_threads()))

    thread = threading.Thread(target=stay)
    with one_thread():
        thread.start()
        assert entered.wait(60)
    # The first has left, the other is inside: BLAS is the process's, torch's number a thread's.
    assert numbers("blas") == {1}
    assert torch.get_num_threads() == 2
    leave.set()
    thread.join(60)
    assert seen == [({1}, 1), ({2}, 2)]
    assert numbers("blas") == {2}


def test_a_thread_of_its_own_is_limited_too() -> None:
    seen: list[object] = []

    def work() -> None:
        with one_thread():
            seen.append((numbers("blas"), torch.get_num_threads()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert seen == [({1}, 1)]
    assert numbers("blas") == {2}


def test_products_are_those_of_one_thread_to_the_last_bit() -> None:
    entries = torch.randn(700, 300, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(1)
    alone = entries.mT @ entries, entries.ravel().dot(entries.ravel())
    torch.set_num_threads(2)  # MKL goes by this number, not by OpenMP's
    with one_thread():
        assert torch.equal(entries.mT @ entries, alone[0])
        assert torch.equal(entries.ravel().dot(entries.ravel()), alone[1])
