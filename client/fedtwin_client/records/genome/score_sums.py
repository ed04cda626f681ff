"""Sums of a polygenic score for many patients, one variant of all of them at a time."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedtwin_twins.genes.polygenic import Copies, RunningScore, ScoreVariant

Kind = TypeVar("Kind", bound=np.generic)


class ScoreSums:
    """A row for each patient; the same numbers as a `RunningScore` for each would have."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, int] = {}
        self._total, self._size = np.zeros(0), np.zeros(0)
        self._matched, self._flipped, self._palindromic = (np.zeros(0, np.int64) for _ in range(3))
        self._seen: dict[int, NDArray[np.bool_]] = {}

    def rows(self, persons: Sequence[Hashable]) -> NDArray[np.int64]:
        """The rows of some patients; new ones begin with nothing.

        Args:
            persons: each once.
        """
        found = [self._rows.setdefault(person, len(self._rows)) for person in persons]
        more = len(self._rows)
        self._total, self._size = _grown(self._total, more), _grown(self._size, more)
        self._matched, self._flipped = _grown(self._matched, more), _grown(self._flipped, more)
        self._palindromic = _grown(self._palindromic, more)
        return np.array(found, np.int64)

    def add(
        self,
        variant: tuple[int, ScoreVariant],
        copies: Sequence[Copies | None],
        which: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        """Count a variant; for a patient of whom it was counted before, that changes nothing.

        Args:
            variant: with its number in the score.
            copies: different things that genotypes say; none: nothing.
            which: (samples,) the place in `copies`.
            rows: (samples,) of the patients, each once.
        """
        number, one = variant
        seen = _grown(self._seen.get(number, np.zeros(0, np.bool_)), len(self._rows))
        known = np.array([said is not None for said in copies], np.bool_)
        fresh = known[which] & ~seen[rows]
        if not fresh.all():
            rows, which = rows[fresh], which[fresh]
        if not len(rows):
            return
        seen[rows] = True
        self._seen[number] = seen
        told = [said or Copies(0) for said in copies]
        with np.errstate(over="ignore"):
            self._total[rows] += np.array([one.weights[min(said.count, 2)] for said in told])[which]
            self._size[rows] += one.size
        self._matched[rows] += 1
        for counts, which_are in (
            (self._flipped, [said.flipped for said in told]),
            (self._palindromic, [said.palindromic for said in told]),
        ):
            if any(which_are):
                counts[rows] += np.array(which_are, np.int64)[which]

    def of(self, person: Hashable) -> RunningScore:
        """One patient's sum."""
        row = self._rows[person]
        return RunningScore(
            total=float(self._total[row]),
            matched=int(self._matched[row]),
            flipped=int(self._flipped[row]),
            palindromic=int(self._palindromic[row]),
            size=float(self._size[row]),
        )


def _grown(column: NDArray[Kind], length: int) -> NDArray[Kind]:
    """A column with zeros at its end, as long as it should be."""
    lacking = length - len(column)
    return np.append(column, np.zeros(lacking, column.dtype)) if lacking else column
