"""A patient's records as a sequence, as of the index date: codes and numbers, oldest first.

A record counts if its code is in the plan's vocabulary and it happened and was known by the index
date, within the window, with a number or without; of more than the plan keeps, the most recent are
taken, in the order of the store. A number outside the plausible range is no value, and is counted.
Nothing is computed from the data of others: vocabulary, centres, scales and lengths are the plan's.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import conversion_table, stored_units, unit_conversions
from fedtwin_client.cohort.times import stored_codes
from fedtwin_protocol.sequence_encoding import RawRecords, implausible, sequence_arrays
from fedtwin_protocol.study_sequence import Sequence

_WORDS = pa.schema([("word", pa.int32()), ("code", pa.string())])
_RECORDS = """
WITH found AS (
    SELECT c.place, w.word, e.file_row_number AS position,
        (epoch_us(c.index_time) - epoch_us(e.time))::DOUBLE / 86400e6 AS days,
        CASE WHEN u.factor IS NOT NULL
            THEN tidy(e.numeric_value * u.factor + u.shift, u.factor, u.shift) END AS value
    FROM events AS e
    JOIN words AS w ON e.code = w.code
    LEFT JOIN word_units AS u ON e.code = u.code AND coalesce(e.unit, '') = u.unit
    JOIN chosen AS c ON c.subject_id = e.subject_id
    WHERE e.time <= c.index_time AND e.available_time <= c.index_time
        AND ($days::INTEGER IS NULL OR e.time >= c.index_time - to_days($days::INTEGER))
)
SELECT place, word, days, value FROM found
QUALIFY row_number() OVER (PARTITION BY place ORDER BY position DESC) <= $most
ORDER BY place, position
"""


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


def raw_sequences(db: duckdb.DuckDBPyConnection, sequence: Sequence, patients: int) -> RawSequences:
    """The sequences of the selected patients, in their order.

    Args:
        db: a connection with `events`, `units`, `chosen` (place and index date) and the macro
            `tidy`.
        sequence: the plan's part.
        patients: how many are selected.

    Raises:
        CohortError: a code's values are in a unit that does not fit; it is named.
    """
    db.register("words", _words(sequence))
    db.register("word_units", _units(db, sequence))
    # No more is fetched than is kept; `sequence_arrays` keeps the same.
    asked = {"days": sequence.window_days, "most": sequence.most_records}
    found = db.execute(_RECORDS, asked).fetchnumpy()
    records = RawRecords(
        places=np.asarray(found["place"], np.int64),
        words=np.asarray(found["word"], np.int64),
        days=np.asarray(found["days"], np.float64),
        values=np.ma.filled(np.ma.asarray(found["value"], np.float64), np.nan),
    )
    codes, numbers = sequence_arrays(sequence, patients, records)
    counts = Counter(records.words[implausible(sequence, records)].tolist())
    return RawSequences(
        rows=Sequences(codes=codes, numbers=numbers),
        implausible={
            sequence.vocabulary[word - 1].code: count for word, count in sorted(counts.items())
        },
    )


def _words(sequence: Sequence) -> pa.Table:
    rows = [
        {"word": place, "code": code}
        for place, word in enumerate(sequence.vocabulary, start=1)
        for code in stored_codes((word.code,))
    ]
    return pa.Table.from_pylist(rows, schema=_WORDS)


def _units(db: duckdb.DuckDBPyConnection, sequence: Sequence) -> pa.Table:
    """Of the codes whose values are looked at."""
    words = [word for word in sequence.vocabulary if word.plausible is not None]
    stored = stored_units(db, (code for word in words for code in stored_codes((word.code,))))
    rows: list[dict[str, Any]] = []
    for word in words:
        codes, asked_by = stored_codes((word.code,)), f"the vocabulary's {word.code}"
        rows += unit_conversions(stored, codes, word.unit, asked_by)
    return conversion_table(rows)
