"""Reading dates and times of any precision, without inventing what was not said.

A moment is the span it may mean: `2010-03` spans the month. What happened is put at the start of
its span, and became known at the end of it at the latest, so that no prediction inside it can see
it: a result of which only the day is known may have come in the evening.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fedtwin_protocol.errors import RecordError

_PARTIAL = re.compile(r"(\d{4})(?:-(\d\d))?\Z")
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A date or time as it was written.

    Attributes:
        start: the earliest it may mean, UTC.
        end: the latest it may mean, UTC.
        precision: `year`, `month`, `day` or `time`.
    """

    start: datetime
    end: datetime
    precision: str

    @property
    def known(self) -> datetime:
        """When it was known at the latest, if nothing else says so."""
        return self.end


def read_zone(name: str) -> ZoneInfo:
    """Find a time zone by its IANA name.

    Raises:
        RecordError: there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise RecordError(
            f"expected a time zone such as 'Europe/Zurich' or 'UTC', found '{name}'"
        ) from error


@lru_cache(maxsize=65_536)
def read_moment(text: str, zone: tzinfo) -> Moment | None:
    """Read a FHIR date, dateTime or instant, or an ISO 8601 date or time of a table.

    Args:
        text: as it was written.
        zone: of dates, and of times that name no zone.

    Returns:
        The moment, or none if the text is not one.
    """
    text = text.strip()
    try:
        if _INSTANT.match(text):
            return _instant(datetime.fromisoformat(text), zone)
        if _DATE.match(text):
            return whole_day(datetime.fromisoformat(text), zone)
        partial = _PARTIAL.match(text)
        return _month_or_year(partial, zone) if partial else None
    except (ValueError, OverflowError):
        return None


def read_with_format(text: str, form: str, zone: tzinfo) -> Moment | None:
    """Read a time by a `strptime` format; one without an hour means all of the day, and so on."""
    try:
        value = datetime.strptime(text.strip(), form)
        match format_precision(form):
            case "time":
                return _instant(value, zone)
            case "day":
                return whole_day(value, zone)
            case "month":
                return _month(value.year, value.month, zone)
            case _:
                return _year(value.year, zone)
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=256)
def format_precision(form: str) -> str:
    """What a `strptime` format tells: `time`, `day`, `month` or `year`, as `Moment.precision`.

    Raises:
        ValueError: it is no format, or does not tell one time.
    """
    if "%I" in form and "%p" not in form:
        raise ValueError(f"'{form}' has hours to twelve (%I) without %p; %H are hours to 24")
    told = [(2003, 2, 1), (2002, 3, 1), (2002, 2, 2), (2002, 2, 1)]
    try:
        year, month, day, first = (
            datetime.strptime(datetime(*date, tzinfo=UTC).strftime(form), form) for date in told
        )
        clock = any(mark in form for mark in ("%H", "%I", "%X", "%c", "%s", "%T", "%R"))
    except (ValueError, re.error) as error:
        raise ValueError(
            f"expected a format such as %d.%m.%Y or %m/%d/%Y %H:%M, found '{form}' ({error})"
        ) from error
    if year == first or (month == first and day != first):
        raise ValueError(
            f"expected a format that tells the year, such as %d.%m.%Y, and not a day without its "
            f"month; found '{form}'"
        )
    if day == first and clock:
        raise ValueError(f"expected a format that tells the day of a time of day, found '{form}'")
    if day != first:
        return "time" if clock else "day"
    return "month" if month != first else "year"


def whole_day(value: datetime, zone: tzinfo) -> Moment:
    """The day of a date in a time zone."""
    start = value.replace(tzinfo=zone)
    return Moment(start=_utc(start), end=_last(start + timedelta(days=1)), precision="day")


def years_before(moment: datetime, years: float) -> datetime:
    """The moment so many years earlier: whole calendar years, then the part of a year in days."""
    whole = int(years)
    earlier = _back(moment, whole)
    length = earlier - _back(moment, whole + 1)
    return earlier - length * (years - whole)


def _back(moment: datetime, years: int) -> datetime:
    try:
        return moment.replace(year=moment.year - years)
    except ValueError:  # 29 February
        return moment.replace(year=moment.year - years, day=28)


def _instant(value: datetime, zone: tzinfo) -> Moment:
    aware = _utc(value if value.tzinfo else value.replace(tzinfo=zone))
    return Moment(start=aware, end=aware, precision="time")


def _month_or_year(match: re.Match[str], zone: tzinfo) -> Moment:
    year, month = int(match[1]), match[2]
    return _year(year, zone) if month is None else _month(year, int(month), zone)


def _year(year: int, zone: tzinfo) -> Moment:
    start, after = datetime(year, 1, 1, tzinfo=zone), datetime(year + 1, 1, 1, tzinfo=zone)
    return Moment(start=_utc(start), end=_last(after), precision="year")


def _month(year: int, month: int, zone: tzinfo) -> Moment:
    start = datetime(year, month, 1, tzinfo=zone)
    after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=zone)
    return Moment(start=_utc(start), end=_last(after), precision="month")


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _last(after: datetime) -> datetime:
    return _utc(after) - timedelta(seconds=1)
