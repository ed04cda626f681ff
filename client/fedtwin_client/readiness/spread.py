"""Exact quantiles of many numbers that come in parts, in bounded memory if they repeat."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Spread:
    """Numbers, of which those that are equal are held once when they become many.

    Args:
        most: how many are held as they come.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[Floats] = []
        self._held = 0
        self._values: Floats = np.zeros(0)
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, numbers: Floats) -> None:
        """Take some numbers."""
        self._parts.append(numbers)
        self._held += len(numbers)
        if self._held > self._most:
            self._count()

    def quantiles(self, levels: Sequence[float]) -> list[float] | None:
        """Quantiles, between neighbours where none lies at the very place; none of nothing."""
        if len(self._values):
            self._count()
            whole, ends = self._values, np.cumsum(self._counts)
            number = int(ends[-1])
        else:
            whole = np.concatenate([np.zeros(0), *self._parts])
            number = len(whole)
        if not number:
            return None
        places: Floats = (number - 1) * np.asarray(levels)
        below = np.floor(places).astype(np.int64)
        above = np.minimum(below + 1, number - 1)
        if len(self._values):
            low, high = (whole[np.searchsorted(ends, at, "right")] for at in (below, above))
        else:
            _put_in_place(whole, np.unique(np.append(below, above)).tolist())
            low, high = whole[below], whole[above]
        with np.errstate(invalid="ignore"):
            between = low + (high - low) * (places - below)
        found: list[float] = np.where(low == high, low, between).tolist()
        return found

    def _count(self) -> None:
        """Hold equal numbers once."""
        values, counts = np.unique(np.concatenate([np.zeros(0), *self._parts]), return_counts=True)
        both, place = np.unique(np.concatenate([self._values, values]), return_inverse=True)
        weights = np.concatenate([self._counts, counts])
        self._counts = np.bincount(place, weights, len(both)).astype(np.int64)
        self._values, self._parts, self._held = both, [], 0


def _put_in_place(whole: Floats, places: Sequence[int]) -> None:
    """Bring to some rising places what lies there in order; NaN lies last.

    One place after another, between those that are done: for one place at a time numpy has a
    quick way, for several at once it has not.
    """
    if not places:
        return
    middle = len(places) // 2
    place = places[middle]
    whole.partition(place)
    _put_in_place(whole[:place], places[:middle])
    _put_in_place(whole[place + 1 :], [one - place - 1 for one in places[middle + 1 :]])
