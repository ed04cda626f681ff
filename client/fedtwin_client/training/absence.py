"""Who is absent from a task though their row was built: asked anew before every task.

A source of absence is a function without arguments that returns pseudonyms. It is asked at each
task, so it must be cheap where nothing changed, and return the very same set then.
"""

from collections.abc import Callable

Absent = Callable[[], frozenset[int]]


def nobody() -> frozenset[int]:
    """Everybody takes part."""
    return frozenset()


def any_of(*sources: Absent) -> Absent:
    """Absent is whom at least one source names."""
    last: tuple[frozenset[int], ...] = ()
    union: frozenset[int] = frozenset()

    def absent() -> frozenset[int]:
        nonlocal last, union
        now = tuple(source() for source in sources)
        if len(now) != len(last) or any(new is not old for new, old in zip(now, last, strict=True)):
            last, union = now, frozenset().union(*now)
        return union

    return absent
