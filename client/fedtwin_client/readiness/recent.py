"""Values of the last days and of as many days before, although the last day is known at the end."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.times import DAY_US

DRIFT_DAYS: Final = 30
_SPAN_US: Final = DRIFT_DAYS * DAY_US

Floats = NDArray[np.float64]
Times = NDArray[np.int64]


class Recent:
    """Values of which the newest event so far does not say yet that they are too old."""

    def __init__(self) -> None:
        self._newest: int | None = None
        self._parts: list[tuple[Times, Floats]] = []

    def add(self, time: Times, value: Floats, usable: NDArray[np.bool_], newest: int) -> None:
        """Take values.

        Args:
            time: (rows,) microseconds, none of those that are usable later than `newest`.
            value: (rows,) of these moments.
            usable: (rows,) whether the value counts.
            newest: of all events so far, microseconds; it never falls.
        """
        if self._newest != newest:
            self._newest = newest
            self._parts = [_since(*part, newest - 2 * _SPAN_US) for part in self._parts]
        rows = np.flatnonzero(usable & (time > newest - 2 * _SPAN_US))
        if len(rows):
            self._parts.append((time[rows], value[rows]))

    def halves(self, newest: int) -> tuple[Floats, Floats]:
        """The values of the last days, and of those before.

        Args:
            newest: of all events.
        """
        time = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in self._parts)])
        value = np.concatenate([np.zeros(0), *(part[1] for part in self._parts)])
        late = time > newest - _SPAN_US
        early = (time > newest - 2 * _SPAN_US) & ~late
        return value[late], value[early]


def furthest(late: Floats, early: Floats) -> float:
    """The Kolmogorov-Smirnov distance of two samples."""
    steps = np.unique(np.concatenate([late, early]))
    parts = [np.searchsorted(np.sort(one), steps, "right") / len(one) for one in (late, early)]
    return float(np.abs(parts[0] - parts[1]).max())


def _since(time: Times, value: Floats, moment: int) -> tuple[Times, Floats]:
    kept = time > moment
    return time[kept], value[kept]
