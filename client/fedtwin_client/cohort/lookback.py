"""Which events a prediction at the index date may use.

An event may be used if it happened and was known by the index date, and lies in the window of the
question that asks for its code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.times import DAY_US
from fedtwin_client.store.pieces import Piece, taken

_MOST_DAYS: Final = 10**7  # longer than history; no window


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked for.

    Attributes:
        codes: any of which answers it, as the store writes them.
        window_days: how far back an event may lie; none: no limit.
    """

    codes: Sequence[str]
    window_days: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Patients of a piece, of whom something is asked.

    Attributes:
        places: (chosen,) among the piece's patients, rising.
        index: (chosen,) index dates, microseconds.
    """

    places: NDArray[np.int64]
    index: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Events that may be used: by question, and within a question in the order of the store.

    Attributes:
        rows: (found,) of the piece.
        question: (found,) the number of the question, rising.
        asked: (found,) which of the question's codes it has, as the place in `LookBack.pairs`.
        patient: (found,) the place among the chosen patients.
    """

    rows: NDArray[np.int64]
    question: NDArray[Any]
    asked: NDArray[Any]
    patient: NDArray[np.int32]

    def of(self, places: NDArray[np.int64]) -> "Found":
        """Some of the events."""
        if len(places) == len(self.rows):
            return self
        return Found(
            rows=self.rows[places],
            question=self.question[places],
            asked=self.asked[places],
            patient=self.patient[places],
        )

    @property
    def groups(self) -> NDArray[np.int64]:
        """Where the events of each question and patient begin."""
        if not len(self.rows):
            return np.zeros(0, np.int64)
        fresh = self.question[1:] != self.question[:-1]
        fresh |= self.patient[1:] != self.patient[:-1]
        return np.append(0, np.flatnonzero(fresh) + 1)


class LookBack:
    """Questions that are asked of one piece of the store after another.

    Attributes:
        pairs: each question with each of its codes.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self._days = np.array(
            [_MOST_DAYS if one.window_days is None else one.window_days for one in questions],
            np.int64,
        )
        asked: dict[str, list[int]] = {}
        for number, question in enumerate(questions):
            for code in question.codes:
                asked.setdefault(code, []).append(number)
        several = list(asked.values())
        self._first = np.cumsum([0, *(len(one) for one in several)])
        self.pairs = [(number, code) for code, numbers in asked.items() for number in numbers]
        # Of so few bits, so that numpy counts instead of sorting them.
        self._kind = _smallest(max(len(self.pairs), len(questions)))
        numbers = [number for one in several for number in one]
        self._question = np.array(numbers, self._kind)
        self._once = len(self.pairs) == len(asked)
        self._of_code = {code: place for place, code in enumerate(asked)}

    def find(self, piece: Piece, chosen: Chosen) -> Found:
        """The events that may be used."""
        place = np.full(len(piece.subjects), -1, np.int32)
        place[chosen.places] = np.arange(len(chosen.places))
        rows = self._in_reach(piece, chosen)
        if len(chosen.places) < len(place):
            rows = rows[np.flatnonzero(place[piece.owner[rows]] >= 0)]
        other = len(self._of_code)
        code = piece.of_code(self._of_code, other, self._kind, rows)
        meant = code != other
        if not meant.all():
            kept = np.flatnonzero(meant)
            rows, code = rows[kept], code[kept]
        rows, question, asked = self._by_question(rows, code)
        patient = taken(piece.owner, rows)
        if len(chosen.places) < len(place):
            patient = taken(place, patient)
        found = Found(rows=rows, question=question, asked=asked, patient=patient)
        return self._in_time(piece, chosen, found)

    def every(self, piece: Piece) -> Found:
        """The events of all patients, whenever they happened."""
        other = len(self._of_code)
        code = piece.of_code(self._of_code, other, self._kind)
        rows = np.flatnonzero(code != other)
        if len(rows) < len(code):
            code = code[rows]
        rows, question, asked = self._by_question(rows, code)
        patient = taken(piece.owner, rows)
        return Found(rows=rows, question=question, asked=asked, patient=patient)

    def _in_reach(self, piece: Piece, chosen: Chosen) -> NDArray[np.int64]:
        """Rows that some patient and question could use."""
        if not len(chosen.places) or not len(self._days):
            return np.zeros(0, np.int64)
        last = chosen.index.max()
        mask = piece.time <= last
        mask &= piece.known <= last
        mask &= piece.time >= chosen.index.min() - self._days.max() * DAY_US
        return np.flatnonzero(mask)

    def _by_question(
        self, rows: NDArray[np.int64], code: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
        """The rows once for each question that asks for their code, by question."""
        if self._once:
            question = taken(self._question, code)
            order = np.argsort(question, kind="stable")
            return taken(rows, order), taken(question, order), taken(code, order)
        first = self._first[code]
        number = self._first[code + 1] - first
        again = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        asked = np.repeat(first, number) + again
        question = self._question[asked]
        order = np.argsort(question, kind="stable")
        return np.repeat(rows, number)[order], question[order], asked[order]

    def _in_time(self, piece: Piece, chosen: Chosen, found: Found) -> Found:
        """The events that the very patient and question can use."""
        if not len(found.rows) or (
            (chosen.index == chosen.index[0]).all() and (self._days == self._days[0]).all()
        ):
            return found  # nobody's reach differs from the others'
        index = chosen.index[found.patient]
        time = piece.time[found.rows]
        usable = (time <= index) & (piece.known[found.rows] <= index)
        usable &= time >= index - self._days[found.question] * DAY_US
        return found.of(np.flatnonzero(usable))


def _smallest(number: int) -> Any:
    """The smallest type that numbers up to one fit into."""
    return np.min_scalar_type(number).type
