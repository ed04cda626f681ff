"""When rows of an OMOP table happened and became known, a whole batch at a time.

The datetime counts, or else the date. Midnight stands for a time of day that is not known (that is
the model's convention for datetimes), so it counts as the date alone. A date alone happened at the
start of its day and was known by its end. Different days are few, and are read one by one by the
rules of every door; exact times are many, and those written plainly are read all at once.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedtwin_client.records.moments import Moment, whole_day
from fedtwin_client.records.reading import OLDEST_YEAR, Reading, UnusableError

NO_TIME = "no time"
_TIMESTAMP = pa.timestamp("us")
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)[ T]00:00(:00(\.0+)?)?(Z|[+-]\d\d(:?\d\d)?)?")
_PLAIN = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?"
_READ_EXACT = f"""
SELECT row, epoch_us(try_cast(datetime AS TIMESTAMP)) AS local FROM batch
WHERE regexp_full_match(datetime, '{_PLAIN}') AND try_cast(datetime AS TIMESTAMP) IS NOT NULL
AND NOT regexp_matches(datetime, '00:00:00(\\.0*)?$')
AND (date IS NULL OR date[1:10] = datetime[1:10])
"""  # noqa: S608 - of constants
_OTHER_DAYS = """
SELECT DISTINCT date, datetime FROM batch WHERE row NOT IN (SELECT row FROM exact)
"""
_EXACT = pa.schema([("row", pa.int64()), ("time", _TIMESTAMP), ("available_time", _TIMESTAMP)])
_DAYS = pa.schema(
    [
        ("date", pa.string()),
        ("datetime", pa.string()),
        ("time", _TIMESTAMP),
        ("available_time", _TIMESTAMP),
        ("latest", _TIMESTAMP),
        ("time_reason", pa.string()),
        ("two_days", pa.bool_()),
    ]
)


class _When(NamedTuple):
    time: datetime
    available_time: datetime
    latest: datetime
    two_days: bool


class RowTimes:
    """Reads the times of batches."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._offsets = local_offsets(reading.zone, reading.now.year + 1)
        self._oldest = _microseconds(datetime(OLDEST_YEAR, 1, 1))

    def read(self, db: duckdb.DuckDBPyConnection, delay: timedelta) -> None:
        """Put the times of the table `batch` into the tables `exact` and `days`.

        Args:
            db: has `batch` with `row`, `date` and `datetime`; `exact` is by row, `days` by what is
                written as date and datetime.
            delay: how long after it happened something became known.
        """
        now = _microseconds(_naive(self._reading.now))
        found = db.sql(_READ_EXACT).to_arrow_table()
        time = self._offsets.to_utc(found["local"].to_numpy())
        known = np.minimum(time + delay // _MICROSECOND, now)
        fit = (time <= now) & (time >= self._oldest)
        columns = (found["row"].to_numpy(), time, known)
        arrays = [
            pa.array(column[fit], type=pa.int64()).cast(field.type)
            for column, field in zip(columns, _EXACT, strict=True)
        ]
        db.register("exact", pa.Table.from_arrays(arrays, schema=_EXACT))
        rows = [self._row(date, at, delay) for date, at in db.sql(_OTHER_DAYS).fetchall()]
        cells = list(zip(*rows, strict=True)) or [()] * len(_DAYS)
        days = [pa.array(part, type=field.type) for part, field in zip(cells, _DAYS, strict=True)]
        db.register("days", pa.Table.from_arrays(days, schema=_DAYS))

    def _row(self, date: str | None, at: str | None, delay: timedelta) -> tuple[Any, ...]:
        try:
            when = self._when(date, at, delay)
        except UnusableError as error:
            return (date, at, None, None, None, error.reason, False)
        times = (_naive(time) for time in when[:3])
        return (date, at, *times, None, when.two_days)

    def _when(self, date: str | None, at: str | None, delay: timedelta) -> _When:
        day = None if date is None else as_day(self._reading, date)
        moment = time_or_day(self._reading, day, at)
        known = min(moment.end + delay, self._reading.now)
        return _When(moment.start, known, moment.end, day is not None and _apart(moment, day))


class LocalOffsets:
    """A time zone as a table, to turn many local times into UTC as `datetime` does one by one."""

    def __init__(self, zone: ZoneInfo, last_year: int) -> None:
        """Find the local times at which the distance to UTC changes.

        Args:
            zone: the time zone.
            last_year: until when; the first year is the oldest that records may have.
        """
        first = datetime(OLDEST_YEAR, 1, 1)
        starts, offsets = [first], [_offset(first, zone)]
        day = first
        while day.year <= last_year:
            following = day + timedelta(days=1)
            offset = _offset(following, zone)
            if offset != offsets[-1]:
                starts.append(_change(day, following, zone))
                offsets.append(offset)
            day = following
        self._starts = np.array([_microseconds(start) for start in starts], dtype=np.int64)
        self._offsets = np.array([offset // _MICROSECOND for offset in offsets], dtype=np.int64)

    def to_utc(self, local: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Microseconds since 1970 in UTC, of microseconds since 1970 on the local clock."""
        index = np.searchsorted(self._starts, local, side="right") - 1
        utc: npt.NDArray[np.int64] = local - self._offsets[np.maximum(index, 0)]
        return utc


@lru_cache(maxsize=4)
def local_offsets(zone: ZoneInfo, last_year: int) -> LocalOffsets:
    """The table of a time zone, made once."""
    return LocalOffsets(zone, last_year)


def as_day(reading: Reading, text: str) -> Moment:
    """The day of a date, also where a database keeps it with a midnight behind.

    Raises:
        UnusableError: it is no date, lies after now, or too long ago to be true.
    """
    if written := _MIDNIGHT.fullmatch(text.strip()):
        return reading.moment(written[1])
    moment = reading.moment(_with_minutes(text))
    if moment.precision == "time":
        local = moment.start.astimezone(reading.zone)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        return whole_day(midnight, reading.zone)
    return moment


def time_or_day(reading: Reading, day: Moment | None, at: str | None) -> Moment:
    """The time of a datetime, or a whole day where midnight says that no time of day is known.

    Args:
        reading: the import's rules.
        day: of the date beside it.
        at: the datetime. Some tools put `Z` behind times without a zone: a midnight that is of the
            date's day only as it is written, and of another on the hospital's clock, is no time.

    Raises:
        UnusableError: there is neither, or it is no time, lies after now, or too long ago.
    """
    if at is None:
        if day is None:
            raise UnusableError(NO_TIME)
        return day
    moment = reading.moment(_with_minutes(at))
    local = moment.start.astimezone(reading.zone)
    if moment.precision == "time" and local.time() == datetime.min.time():
        return whole_day(local.replace(tzinfo=None), reading.zone)
    written = _MIDNIGHT.fullmatch(at.strip())
    if written and day and _apart(moment, day) and reading.moment(written[1]).start == day.start:
        return day
    return moment


def _apart(moment: Moment, day: Moment) -> bool:
    return not day.start <= moment.start <= day.end


def _with_minutes(text: str) -> str:
    """PostgreSQL and DuckDB write offsets of whole hours as `+00`."""
    if len(text) > 13 and text[-3] in "+-" and text[-2:].isdigit() and ":" in text:
        return f"{text}:00"
    return text


def _offset(local: datetime, zone: ZoneInfo) -> timedelta:
    return local.replace(tzinfo=zone).utcoffset() or timedelta(0)


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The first second at which the distance is the later one."""
    offset = _offset(after, zone)
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if _offset(middle, zone) == offset:
            after = middle
        else:
            before = middle
    return after


def _naive(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None)


def _microseconds(naive: datetime) -> int:
    return (naive - _EPOCH) // _MICROSECOND
