"""A patient's records as a sequence, as of the index date: codes and numbers, oldest first.

A record counts if its code is in the plan's vocabulary and it happened and was known by the index
date, within the window; of more than the plan keeps, the most recent are taken, in the order of the
store. Nothing is computed from the data of others: vocabulary, centres, scales and lengths are the
plan's.
"""

from dataclasses import dataclass
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import unit_conversions
from fedtwin_client.cohort.times import stored_codes
from fedtwin_protocol.study_sequence import RECORD_NUMBERS, Sequence

LARGEST_VALUE: Final = 5.0
"""Bound of a scaled value, either way."""
_WORDS = pa.schema(
    [
        ("word", pa.int32()),
        ("code", pa.string()),
        ("unit", pa.string()),
        ("factor", pa.float64()),
        ("shift", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("center", pa.float64()),
        ("scale", pa.float64()),
    ]
)
_RECORDS = """
WITH found AS (
    SELECT c.place, w.word, e.file_row_number AS position,
        (epoch_us(c.index_time) - epoch_us(e.time))::DOUBLE / 86400e6 AS days,
        CASE WHEN w.factor IS NOT NULL
            THEN tidy(e.numeric_value * w.factor + w.shift, w.factor, w.shift) END AS value,
        w.low, w.high, w.center, w.scale
    FROM events AS e
    JOIN words AS w ON e.code = w.code AND (w.unit IS NULL OR coalesce(e.unit, '') = w.unit)
    JOIN chosen AS c ON c.subject_id = e.subject_id
    WHERE e.time <= c.index_time AND e.available_time <= c.index_time
        AND ($days::INTEGER IS NULL OR e.time >= c.index_time - to_days($days::INTEGER))
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY place ORDER BY position DESC) AS back FROM found
)
SELECT place, word, days, CASE WHEN value BETWEEN low AND high THEN (value - center) / scale END
    AS scaled, row_number() OVER (PARTITION BY place ORDER BY position) - 1 AS slot
FROM ranked WHERE back <= $most
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


def raw_sequences(db: duckdb.DuckDBPyConnection, sequence: Sequence, patients: int) -> Sequences:
    """The sequences of the selected patients, in their order.

    Args:
        db: a connection with `events`, `chosen` (place and index date) and the macro `tidy`.
        sequence: the plan's part.
        patients: how many are selected.

    Raises:
        CohortError: a code's values are in a unit that does not fit; it is named.
    """
    db.register("words", _words(db, sequence))
    asked = {"days": sequence.window_days, "most": sequence.most_records}
    found = db.execute(_RECORDS, asked).fetchnumpy()
    codes = np.zeros((patients, sequence.most_records), np.int32)
    numbers = np.zeros((patients, sequence.most_records, RECORD_NUMBERS), np.float32)
    where = (np.asarray(found["place"]), np.asarray(found["slot"]))
    codes[where] = np.asarray(found["word"])
    scaled = np.ma.filled(np.ma.asarray(found["scaled"], np.float64), np.nan)
    known = np.isfinite(scaled)
    value = np.clip(np.where(known, scaled, 0.0), -LARGEST_VALUE, LARGEST_VALUE)
    gap = np.log1p(np.asarray(found["days"], np.float64) / sequence.gap_days)
    numbers[where] = np.stack([value, known, gap], axis=1)
    return Sequences(codes=codes, numbers=numbers)


def _words(db: duckdb.DuckDBPyConnection, sequence: Sequence) -> pa.Table:
    rows = []
    for place, word in enumerate(sequence.vocabulary, start=1):
        codes = stored_codes((word.code,))
        if word.plausible is None:
            rows += [{"word": place, "code": code} for code in codes]
            continue
        low, high = word.plausible
        scaling = {"low": low, "high": high, "center": word.center, "scale": word.scale}
        units = unit_conversions(db, codes, word.unit, f"the vocabulary's {word.code}")
        rows += [{"word": place, **unit, **scaling} for unit in units.to_pylist()]
    return pa.Table.from_pylist(rows, schema=_WORDS)
