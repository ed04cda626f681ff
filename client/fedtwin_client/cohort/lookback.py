"""Which events a prediction at the index date may use.

An event may be used if it happened and was known by the index date, and lies in the window of the
question that asks for its code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.times import DAY_US, first_from
from fedtwin_client.store.pieces import Piece, alike, taken

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
    """Events that may be used, in the order of the store; one that several ask for comes for each.

    Attributes:
        rows: (found,) of the piece.
        question: (found,) the number of the question.
        asked: (found,) which of the question's codes it has, as the place in `LookBack.pairs`.
        patient: (found,) the place among the chosen patients.
    """

    rows: NDArray[np.int64]
    question: NDArray[Any]
    asked: NDArray[Any]
    patient: NDArray[np.int32]

    def of(self, places: NDArray[np.int64]) -> "Found":
        """Some of the events."""
        return Found(
            rows=taken(self.rows, places),
            question=taken(self.question, places),
            asked=taken(self.asked, places),
            patient=taken(self.patient, places),
        )

    @classmethod
    def nothing(cls, kind: Any) -> "Found":
        """No event; its questions are of a numpy type."""
        rows, numbers = np.zeros(0, np.int64), np.zeros(0, kind)
        return cls(rows=rows, question=numbers, asked=numbers, patient=rows.astype(np.int32))

    def by_question(self) -> "Found":
        """The events by question, and within a question in the order of the store."""
        return self.of(np.argsort(self.question, kind="stable"))

    @property
    def groups(self) -> NDArray[np.int64]:
        """Where the events of each question and patient begin, if they are by question."""
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
        self._alike = numbers == list(range(len(asked)))
        self._of_code = {code: place for place, code in enumerate(asked)}

    def find(self, piece: Piece, chosen: Chosen) -> Found:
        """The events that may be used."""
        if not len(chosen.places) or not len(self._days):
            return Found.nothing(self._kind)
        rows, patient = self._in_reach(piece, chosen)
        code = piece.of_code(self._of_code, len(self._of_code), self._kind, rows)
        return self._in_window(piece, chosen, self._asked(rows, patient, code))

    def every(self, piece: Piece) -> Found:
        """The events of all patients, whenever they happened, by question."""
        code = piece.of_code(self._of_code, len(self._of_code), self._kind)
        rows = np.arange(len(code))
        return self._asked(rows, piece.owner, code).by_question()

    def _in_reach(
        self, piece: Piece, chosen: Chosen
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Rows that some question could use, and whose they are of the chosen patients.

        A patient's rows are in the order of time, so that those of a span lie together.
        """
        first = piece.starts[chosen.places]
        end = np.append(piece.starts, piece.table.num_rows)[chosen.places + 1]
        since = chosen.index - self._days.max() * DAY_US
        first, end = first_from(piece.time, first, end, np.stack([since, chosen.index + 1]))
        number = end - first
        patient = np.repeat(np.arange(len(number), dtype=np.int32), number)
        rows = np.repeat(first - np.cumsum(number) + number, number)
        rows += np.arange(len(rows))
        until = chosen.index[0] if alike(chosen.index) else taken(chosen.index, patient)
        known = taken(piece.known, rows) <= until
        if known.all():
            return rows, patient
        kept = np.flatnonzero(known)
        return taken(rows, kept), taken(patient, kept)

    def _asked(
        self, rows: NDArray[np.int64], patient: NDArray[np.int32], code: NDArray[Any]
    ) -> Found:
        """Those of the rows whose code is asked for, once for each question that does."""
        meant = code != len(self._of_code)
        if not meant.all():
            kept = np.flatnonzero(meant)
            rows, patient, code = (taken(one, kept) for one in (rows, patient, code))
        if self._once:
            question = code if self._alike else taken(self._question, code)
            return Found(rows=rows, question=question, asked=code, patient=patient)
        first = self._first[code]
        number = self._first[code + 1] - first
        again = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        asked = np.repeat(first, number) + again
        return Found(
            rows=np.repeat(rows, number),
            question=self._question[asked],
            asked=asked,
            patient=np.repeat(patient, number),
        )

    def _in_window(self, piece: Piece, chosen: Chosen, found: Found) -> Found:
        """The events in the window of the very question."""
        if alike(self._days):
            return found
        since = chosen.index[found.patient] - self._days[found.question] * DAY_US
        usable = piece.time[found.rows] >= since
        return found if usable.all() else found.of(np.flatnonzero(usable))


def _smallest(number: int) -> Any:
    """The smallest type that numbers up to one fit into."""
    return np.min_scalar_type(number).type
