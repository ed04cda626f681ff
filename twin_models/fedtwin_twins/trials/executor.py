"""Many replicates on many cores: one small interface, and results that do not know of it.

Whatever has `submit` as `concurrent.futures.Executor` has it will do: processes of this machine, a
Dask cluster (`distributed.Client.get_executor()`), or Ray behind a `submit` of three lines
(docs/trials.md). Work is a function that can be found by name, its input and output are small;
results come back in the order of the items, so that neither the number of workers nor their order
of finishing can be seen in them.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Promise(Protocol):
    """A result that comes later."""

    def result(self) -> Any:
        """Wait for it; raises what the work raised."""
        ...

    def cancel(self) -> Any:
        """It is not wanted any more."""
        ...


class Executor(Protocol):
    """Somebody who works."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Promise:
        """Begin with a piece of work, now or later."""
        ...


def run_all(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    executor: Executor | None = None,
    done: Callable[[int], None] | None = None,
) -> list[Result]:
    """Do a piece of work for each item.

    Args:
        work: a function of a module, without memory of what it did before.
        items: in the order in which results are wanted.
        executor: who works; none: this process, one item after the other.
        done: told how many more are finished.

    Returns:
        One result for each item, in the same order.

    Raises:
        Exception: whatever the work raised first; what has not begun is then given up.
    """
    tell = done or (lambda _: None)
    results = []
    if executor is None:
        for item in items:
            results.append(work(item))
            tell(1)
        return results
    promises = [executor.submit(work, item) for item in items]
    try:
        for promise in promises:
            results.append(promise.result())
            tell(1)
    except BaseException:
        for promise in promises:
            promise.cancel()
        raise
    return results
