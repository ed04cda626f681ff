"""Many written times at once, each exactly as the reading of a single one has it.

Times of the common forms (`2024-05-01T08:00:00.517+02:00`, with or without a fraction of up to six
digits, with an offset or `Z`) are read as columns of digits; every other text is read by itself,
once however often it comes.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_SECOND: Final = 1_000_000
_SHORTEST: Final = len("2024-05-01T08:00:00Z")
_LONGEST: Final = len("2024-05-01T08:00:00.517000+02:00")
_DIGITS: Final = (0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18)
_FIRST_MONTH: Final = (1 - 1970) * 12
_FIRST_DAYS: Final = (
    np.arange(_FIRST_MONTH, (10_000 - 1970) * 12 + 1)
    .astype("datetime64[M]")
    .astype("datetime64[D]")
    .astype(np.int64)
)
_DAYS: Final = np.diff(_FIRST_DAYS).astype(np.uint8)
_DAY: Final = 24 * 3600
_ZERO: Final = np.uint8(ord("0"))
_ONE: Final = np.uint8(1)
_MARKS: Final = ((4, 45), (7, 45), (10, 84), (13, 58), (16, 58))  # - - T : :


class Instants(NamedTuple):
    """Times as columns.

    Attributes:
        start: (rows,) microseconds since 1970, UTC: the earliest that was meant.
        known: (rows,) when it was known at the latest.
        good: (rows,) whether there is a time, and it may be used.
    """

    start: NDArray[np.int64]
    known: NDArray[np.int64]
    good: NDArray[np.bool_]


ReadOne = Callable[[str], tuple[int, int] | None]
"""The start of a written time and when it was known, in microseconds; none if it is no good."""


def read_instants(texts: pa.Array, earliest: int, latest: int, read_one: ReadOne) -> Instants:
    """Read a column of times.

    Args:
        texts: JSON strings with their quotation marks, or nulls.
        earliest: microseconds; what starts before is no good.
        latest: microseconds; what starts after is no good.
        read_one: reads JSON texts of another form, with all rules.
    """
    rows = len(texts)
    start, known = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    good = np.zeros(rows, dtype=np.bool_)
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int32)[texts.offset :][: rows + 1]
    content = texts.buffers()[2]
    lengths = np.diff(offsets)
    if content is not None:
        data = np.frombuffer(content, dtype=np.uint8)
        for length in np.unique(lengths).tolist():
            if not _SHORTEST <= length - 2 <= _LONGEST:
                continue
            chosen = np.flatnonzero(lengths == length)
            if len(chosen) == rows:
                taken = data[offsets[0] : offsets[-1]].reshape(rows, length)
            else:
                taken = data[offsets[:-1][chosen][:, None] + np.arange(length)]
            microseconds, fits = _read_columns(np.ascontiguousarray(taken[:, 1:-1].T))
            fits &= (taken[:, 0] == 34) & (taken[:, -1] == 34)
            start[chosen] = known[chosen] = microseconds
            good[chosen] = fits
    rest = ~good & np.asarray(texts.is_valid())
    good &= (start >= earliest) & (start <= latest)
    if rest.any():
        rows_of = np.flatnonzero(rest)
        _read_rest(texts.take(pa.array(rows_of)), rows_of, Instants(start, known, good), read_one)
    return Instants(start, known, good)


def read_alike(texts: NDArray[np.uint8], earliest: int, latest: int, read_one: ReadOne) -> Instants:
    """Read times of one length.

    Args:
        texts: (rows, characters) of ASCII, without quotation marks.
        earliest: as in `read_instants`.
        latest: likewise.
        read_one: likewise.
    """
    rows, length = texts.shape
    start, good = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.bool_)
    if _SHORTEST <= length <= _LONGEST:
        start, good = _read_columns(np.ascontiguousarray(texts.T))
    rest = np.flatnonzero(~good)
    good &= (start >= earliest) & (start <= latest)
    found = Instants(start, start.copy(), good)
    if len(rest):
        written = [f'"{row.tobytes().decode()}"' for row in texts[rest]]
        _read_rest(pa.array(written, type=pa.string()), rest, found, read_one)
    return found


def _read_rest(
    texts: pa.Array, rows: NDArray[np.int64], found: Instants, read_one: ReadOne
) -> None:
    coded = pc.dictionary_encode(texts)
    spans = [read_one(text) for text in coded.dictionary.to_pylist()]
    places = coded.indices.to_numpy()
    found.start[rows] = np.array([span[0] if span else 0 for span in spans], dtype=np.int64)[places]
    found.known[rows] = np.array([span[1] if span else 0 for span in spans], dtype=np.int64)[places]
    found.good[rows] = np.array([span is not None for span in spans], dtype=np.bool_)[places]


def _read_columns(columns: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times of one length, (characters, rows)."""
    length = len(columns)
    fits = np.ones(columns.shape[1], dtype=np.bool_)
    for place, mark in _MARKS:
        fits &= columns[place] == mark
    zulu = columns[-1] == ord("Z")
    start = _civil(columns, fits) * _SECOND
    with_z, with_offset = length - 20, length - 25  # the length of the fraction, with its point
    if zulu.any():
        start += np.where(zulu, _fraction(columns, 19, with_z, zulu, fits), 0)
    if not zulu.all():
        other = ~zulu
        if with_offset < 0:
            fits &= zulu
        else:
            after = _fraction(columns, 19, with_offset, other, fits)
            start += np.where(zulu, 0, after - _offset(columns[-6:], other, fits) * _SECOND)
    return start, fits


def _civil(columns: NDArray[np.uint8], fits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Seconds since 1970 of a date and time of day as written; anything where it does not fit."""
    digits = columns[list(_DIGITS)] - _ZERO
    fits &= (digits <= 9).all(axis=0)
    century, years, month, day, hour, minute, second = _pairs(digits)
    fits &= (century | years != 0) & (month - _ONE <= 11) & (day >= 1)
    fits &= (hour <= 23) & (minute <= 59) & (second <= 59)
    months = (century.astype(np.int32) * 100 + years - 1970) * 12 + month - 1
    place = np.where(fits, months - _FIRST_MONTH, 0)
    fits &= day <= _DAYS[place]
    of_day = (hour.astype(np.int32) * 60 + minute) * 60 + second
    seconds: NDArray[np.int64] = (_FIRST_DAYS[place] + day - 1) * _DAY + of_day
    return seconds


def _pairs(digits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every two digits as a number below 100."""
    found: NDArray[np.uint8] = digits[::2] * np.uint8(10) + digits[1::2]
    return found


def _fraction(
    columns: NDArray[np.uint8],
    start: int,
    length: int,
    where: NDArray[np.bool_],
    fits: NDArray[np.bool_],
) -> Any:
    """Microseconds of a fraction of a second; what is none does not fit."""
    if length == 0:
        return 0
    if not 2 <= length <= 7:
        fits &= ~where
        return 0
    digits = columns[start + 1 : start + length] - _ZERO
    right = (digits <= 9).all(axis=0) & (columns[start] == ord("."))
    fits &= right | ~where
    total = np.zeros(columns.shape[1], dtype=np.int32)
    for digit in digits:
        total = total * 10 + digit
    return total.astype(np.int64) * 10 ** (7 - length)


def _offset(
    columns: NDArray[np.uint8], where: NDArray[np.bool_], fits: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Seconds east of UTC of `+02:00`."""
    digits = columns[[1, 2, 4, 5]] - _ZERO
    hours, minutes = _pairs(digits)
    right = (digits <= 9).all(axis=0) & (columns[3] == ord(":"))
    right &= (hours <= 23) & (minutes <= 59) & ((columns[0] == 43) | (columns[0] == 45))
    fits &= right | ~where
    seconds = (hours.astype(np.int64) * 60 + minutes) * 60
    east: NDArray[np.int64] = np.where(columns[0] == 45, -seconds, seconds)
    return east
