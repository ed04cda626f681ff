"""From a patient's records to a sequence's arrays: the same arithmetic at sites and researchers.

For a record with value v of a word with centre c, scale s and plausible range [lo, hi], d days
before the index date, in a plan whose gap unit is g:

- its code is the word's place in the vocabulary, from 1;
- its numbers are clip((v - c) / s, -5, 5), 1, log(1 + d / g), or 0, 0, log(1 + d / g) where there
  is no value, where it lies outside [lo, hi], or where values of the word are not looked at.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.study_patients import LARGEST_VALUE
from fedtwin_protocol.study_sequence import RECORD_NUMBERS, Sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRecords:
    """Records whose codes are in the vocabulary, patient by patient, each one's oldest first.

    Attributes:
        places: (records,) the patient's place, rising.
        words: (records,) place of the code in the vocabulary, from 1.
        days: (records,) before the index date, at least 0.
        values: (records,) in the word's unit; NaN where there is none.
    """

    places: NDArray[np.integer[Any]]
    words: NDArray[np.integer[Any]]
    days: NDArray[np.float64]
    values: NDArray[np.float64]


def sequence_arrays(
    sequence: Sequence, patients: int, records: RawRecords
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The most recent records of every patient, oldest first; empty slots are zeros, and last.

    Args:
        sequence: the plan's part.
        patients: how many there are, with or without records.
        records: of all of them.

    Returns:
        codes (patients, most_records) and numbers (patients, most_records, 3).
    """
    slots = _slots(sequence, records)
    kept = slots >= 0
    where = (records.places[kept], slots[kept])
    codes = np.zeros((patients, sequence.most_records), np.int32)
    numbers = np.zeros((*codes.shape, RECORD_NUMBERS), np.float32)
    scaled = _scaled(sequence, records)[kept]
    known = np.isfinite(scaled)
    value = np.clip(np.where(known, scaled, 0.0), -LARGEST_VALUE, LARGEST_VALUE)
    gap = np.log1p(records.days[kept] / sequence.gap_days)
    codes[where] = records.words[kept]
    numbers[where] = np.stack([value, known, gap], axis=1)
    return codes, numbers


def implausible(sequence: Sequence, records: RawRecords) -> NDArray[np.bool_]:
    """Which kept records have a value that is looked at and is out of range, (records,)."""
    low, high, *_ = _of_words(sequence, records)
    outside = ~((records.values >= low) & (records.values <= high))
    outside &= ~np.isnan(records.values) & ~np.isnan(low)
    return np.asarray(outside & (_slots(sequence, records) >= 0), np.bool_)


def _slots(sequence: Sequence, records: RawRecords) -> NDArray[np.integer[Any]]:
    """Each record's place among the patient's most recent; below 0 where it is older."""
    counts = np.bincount(records.places)
    first = np.cumsum(counts) - np.minimum(counts, sequence.most_records)
    return np.asarray(np.arange(len(records.places)) - first[records.places])


def _scaled(sequence: Sequence, records: RawRecords) -> NDArray[np.float64]:
    """Scaled values; NaN where none counts."""
    low, high, center, scale = _of_words(sequence, records)
    with np.errstate(all="ignore"):
        sound = (records.values >= low) & (records.values <= high)
        return np.where(sound, (records.values - center) / scale, np.nan)


def _of_words(sequence: Sequence, records: RawRecords) -> NDArray[np.float64]:
    """Range, centre and scale of each record's word, (4, records); NaN ends where none counts."""
    table = np.array(
        [
            [*(word.plausible or (np.nan, np.nan)), word.center, word.scale]
            for word in sequence.vocabulary
        ]
    )
    return np.asarray(table[np.asarray(records.words) - 1].T, np.float64)
