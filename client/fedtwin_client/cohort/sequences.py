"""A patient's records as a sequence, as of the index date: codes and numbers, oldest first.

A record counts if its code is in the plan's vocabulary and it happened and was known by the index
date, within the window, with a number or without; of more than the plan keeps, the most recent are
taken, in the order of the store. A number outside the plausible range is no value, and is counted.
Nothing is computed from the data of others: vocabulary, centres, scales and lengths are the plan's.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import (
    StoredUnits,
    UnitConversion,
    UnitTable,
    unit_conversions,
)
from fedtwin_client.cohort.lookback import Chosen, Found, LookBack, Question
from fedtwin_client.cohort.selection import Selected
from fedtwin_client.cohort.times import DAY_US, stored_codes
from fedtwin_client.store.pieces import Piece
from fedtwin_protocol.sequence_encoding import RawRecords, implausible, sequence_arrays
from fedtwin_protocol.study_sequence import Sequence, SequenceCode


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequences:
    """Patients' records; an empty slot is all zeros, and stands behind the filled ones.

    Attributes:
        codes: (patients, records) int32; place in the vocabulary from 1, 0 where empty.
        numbers: (patients, records, 3) float32: scaled value, whether there is one, time gap.
    """

    codes: NDArray[np.int32]
    numbers: NDArray[np.float32]

    def where(self, chosen: NDArray[np.bool_]) -> "Sequences":
        """The patients who are chosen, (patients,)."""
        return Sequences(codes=self.codes[chosen], numbers=self.numbers[chosen])


@dataclass(frozen=True, kw_only=True, slots=True)
class RawSequences:
    """Patients' records, and what of them was not used.

    Attributes:
        rows: the records.
        implausible: for each code that has any, how many of the kept records have a number
            outside the plausible range.
    """

    rows: Sequences
    implausible: dict[str, int]


class SequenceRecords:
    """The sequences of one piece's patients after another's.

    Attributes:
        columns: which columns of the store are read for them.
    """

    def __init__(self, sequence: Sequence, units: StoredUnits) -> None:
        """Understand what is asked.

        Args:
            sequence: the plan's part.
            units: what the store says of its units.

        Raises:
            CohortError: a code's values are in a unit that does not fit; it is named.
        """
        self._sequence = sequence
        words = {code: word for word in sequence.vocabulary for code in stored_codes((word.code,))}
        places = {word.code: place for place, word in enumerate(sequence.vocabulary, start=1)}
        # One question of all codes: its events come in the order of the store.
        question = Question(codes=tuple(words), window_days=sequence.window_days)
        self._look_back = LookBack([question])
        codes = [code for _, code in self._look_back.pairs]
        self._words = np.array([places[words[code].code] for code in codes], np.int64)
        self._units = UnitTable([_conversions(words[code], code, units) for code in codes])
        self.columns = self._units.columns
        self._parts: list[Sequences] = []
        self._implausible: Counter[int] = Counter()

    def add(self, piece: Piece, selected: Selected, places: NDArray[np.int64]) -> None:
        """Take the sequences of a piece's patients.

        Args:
            piece: the events.
            selected: the patients of the piece who take part.
            places: (selected,) of each among the piece's patients.
        """
        chosen = Chosen(places=places, index=selected.index)
        found = self._newest(self._look_back.find(piece, chosen))
        values, there = self._units.values(piece, found.rows, found.asked)
        records = RawRecords(
            places=found.patient,
            words=self._words[found.asked],
            days=(chosen.index[found.patient] - piece.time[found.rows]) / DAY_US,
            values=np.where(there, values, np.nan),
        )
        codes, numbers = sequence_arrays(self._sequence, len(places), records)
        self._parts.append(Sequences(codes=codes, numbers=numbers))
        self._implausible.update(records.words[implausible(self._sequence, records)].tolist())

    def whole(self, order: NDArray[np.int64]) -> RawSequences:
        """All patients' sequences.

        Args:
            order: (patients,) the place of each among the pieces', one after another.
        """
        vocabulary = self._sequence.vocabulary
        return RawSequences(
            rows=Sequences(
                codes=np.concatenate([part.codes for part in self._parts])[order],
                numbers=np.concatenate([part.numbers for part in self._parts])[order],
            ),
            implausible={
                vocabulary[word - 1].code: count
                for word, count in sorted(self._implausible.items())
            },
        )

    def _newest(self, found: Found) -> Found:
        """No more of each patient than is kept."""
        starts = found.groups
        lengths = np.diff(starts, append=len(found.rows))
        older = np.arange(len(found.rows)) - np.repeat(starts, lengths)
        kept = older >= np.repeat(lengths - self._sequence.most_records, lengths)
        return found.of(np.flatnonzero(kept))


def _conversions(word: SequenceCode, code: str, units: StoredUnits) -> list[UnitConversion]:
    """How values of a code are converted; nothing where they are not looked at."""
    if word.plausible is None:
        return []
    return unit_conversions(units, [code], word.unit, f"the vocabulary's {word.code}")
