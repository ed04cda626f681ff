"""Results do not know who worked, how many there were, or who was first."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from math import factorial
from multiprocessing import get_context
from typing import Any

import pytest

from fedtwin_twins.trials.executor import run_all


class Backwards:
    """Works off what it was given from the last to the first, once the last one is asked for."""

    def __init__(self, size: int) -> None:
        self._size, self._waiting = size, list[tuple[Future[Any], Callable[[], Any]]]()

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        promise: Future[Any] = Future()
        self._waiting.append((promise, lambda: fn(*args)))
        if len(self._waiting) == self._size:
            for waiting, work in reversed(self._waiting):
                waiting.set_result(work())
        return promise


def test_the_order_is_that_of_the_items() -> None:
    expected = [factorial(item) for item in range(9)]
    assert run_all(factorial, range(9)) == expected
    assert run_all(factorial, range(9), Backwards(9)) == expected
    with ThreadPoolExecutor(3) as threads:
        assert run_all(factorial, range(9), threads) == expected
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        assert run_all(factorial, range(9), processes) == expected


def test_progress_counts_every_item() -> None:
    told: list[int] = []
    with ThreadPoolExecutor(2) as threads:
        run_all(factorial, range(5), threads, told.append)
    assert sum(told) == 5


def test_the_first_fault_is_raised_and_the_rest_given_up() -> None:
    gate, done = threading.Event(), list[int]()

    def work(item: int) -> None:
        if item == 0:
            raise ValueError("no")
        gate.wait(5)
        done.append(item)

    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(ValueError, match="no"):
            run_all(work, range(50), threads)
        gate.set()
    assert len(done) < 3
