"""HL7 v2 dates and times (DT, TS, DTM): YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ].

Chapter 2A: the precision is how far it is written; where a time names no offset, that of MSH-7
holds for the whole message, and without one that of the sender, which is the hospital's zone.
"""

import re
from datetime import timedelta, timezone, tzinfo
from functools import lru_cache

from fedtwin_client.records.moments import Moment, read_moment

_WRITTEN = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(\.\d{1,9})?)?)?)?)?)?\s*([+-]\d{4})?\Z"
)
_LONGEST = 40
_TIME_OF_DAY = re.compile(
    r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d)(?:\.\d+)?)?)?([+-]\d{4})?\Z"
)


def read_timestamp(text: str, zone: tzinfo) -> Moment | None:
    """Read one date or time.

    Args:
        text: as it was written; ISO 8601 is understood too.
        zone: of those that name no offset.

    Returns:
        The moment, or none if the text is not one.
    """
    return _read(text, zone) if len(text) <= _LONGEST else None


@lru_cache(maxsize=65_536)
def _read(text: str, zone: tzinfo) -> Moment | None:
    match = _WRITTEN.match(text.strip())
    if match is None:
        return read_moment(text, zone)
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    if offset is not None:
        found = offset_of(text)
        if found is None:
            return None
        zone = found
    date = "-".join(piece for piece in (year, month, day) if piece)
    if hour is None:
        return read_moment(date, zone)
    clock = f"{hour}:{minute or '00'}:{second or '00'}{(fraction or '')[:7]}"
    return read_moment(f"{date}T{clock}", zone)


def offset_of(text: str) -> timezone | None:
    """The offset from UTC that a time is written with; none if it names none that can be."""
    match = _WRITTEN.match(text.strip())
    if match is None or match[8] is None:
        return None
    hours, minutes = int(match[8][1:3]), int(match[8][3:])
    if hours > 14 or minutes > 59:
        return None
    size = timedelta(hours=hours, minutes=minutes)
    return timezone(-size if match[8].startswith("-") else size)


def spelled_date(text: str, zone: tzinfo) -> str | None:
    """A date or time that is an answer, as ISO 8601 to its own precision; none if it is none."""
    match = _WRITTEN.match(text.strip())
    if match is None or read_timestamp(text, zone) is None:
        return None
    date = "-".join(piece for piece in match.group(1, 2, 3) if piece)
    clock = ":".join(piece for piece in match.group(4, 5, 6) if piece)
    offset = match[8] or ""
    return f"{date}T{clock}{offset}" if clock else date


def spelled_time(text: str) -> str | None:
    """A time of day that is an answer (TM), as ISO 8601; none if it is none."""
    match = _TIME_OF_DAY.match(text.strip())
    return None if match is None else ":".join(piece for piece in match.group(1, 2, 3) if piece)
