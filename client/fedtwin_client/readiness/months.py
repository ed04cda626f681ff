"""How many events lie in each calendar month, from moments that come in parts."""

from collections import Counter
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.times import DAY_US


class Months:
    """Events by month, UTC."""

    def __init__(self) -> None:
        self._numbers: Counter[int] = Counter()

    def add(self, time: NDArray[np.int64]) -> None:
        """Take moments, microseconds since 1970; at least one."""
        day = time // DAY_US
        first = int(day.min())
        events = np.bincount(day - first)
        days = np.flatnonzero(events)
        month = (first + days).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        starts = np.append(0, np.flatnonzero(month[1:] != month[:-1]) + 1)
        numbers = np.add.reduceat(events[days], starts)
        for one, number in zip(month[starts].tolist(), numbers.tolist(), strict=True):
            self._numbers[one] += number

    def named(self) -> tuple[tuple[str, int], ...]:
        """Each month that has events, `2026-03`, and the number, oldest first."""
        found = []
        for month, number in self._numbers.items():
            first = datetime(1970 + month // 12, 1 + month % 12, 1, tzinfo=UTC)
            found.append((f"{first:%Y-%m}", number))
        return tuple(sorted(found))
