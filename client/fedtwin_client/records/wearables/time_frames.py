"""The `effective_time_frame` of Open mHealth and IEEE 1752.1: a point in time, or a span.

What happened over a span is put at its end, because only then its value was complete. A span of a
date and a part of the day (`morning`) is known no better than the day: it is put at the day's
start, and counts as known at its end.
"""

from datetime import datetime, timedelta
from typing import Any

from fedtwin_client.records.codes.units import conversion, normal_unit
from fedtwin_client.records.reading import Reading, Times, UnusableError, finite


def read_frame(frame: Any, created: Any, reading: Reading) -> Times:
    """When it happened, and when it became known.

    Args:
        frame: the `effective_time_frame`, parsed.
        created: when the data point was made, as written; none if nothing says so.
        reading: the import's rules.

    Raises:
        UnusableError: no time, one that cannot be read or lies ahead, or a span that ends before
            it begins.
    """
    if not isinstance(frame, dict):
        raise UnusableError("no time")
    if frame.get("date_time"):
        happened = reading.moment(frame["date_time"])
        time, known = happened.start, happened.known
    else:
        time, known = _span(frame.get("time_interval"), reading)
    if not created:
        return Times(time, known)
    return Times(time, max(known, reading.moment(created).known))


def _span(span: Any, reading: Reading) -> tuple[datetime, datetime]:
    if not isinstance(span, dict):
        raise UnusableError("no time")
    if span.get("date"):
        day = reading.moment(span["date"])
        return day.start, min(day.end, reading.now)
    first, last, length = (span.get(f"{name}") for name in _NAMES)
    start = reading.moment(first).start if first else None
    end = reading.moment(last).start if last else None
    if start is None and end is None:
        raise UnusableError("no time")
    if start is not None and end is not None and end < start:
        raise UnusableError("a time span that ends before it begins")
    if end is None and start is not None and length is not None:
        end = _later(start, length)
        reading.check(end)
    if end is None:
        raise UnusableError("a time span without an end")
    return end, end


_NAMES = ("start_date_time", "end_date_time", "duration")


def _later(start: datetime, length: Any) -> datetime:
    if not isinstance(length, dict) or not isinstance(length.get("unit"), str):
        raise UnusableError("a duration that is not a value with its unit")
    seconds = conversion(normal_unit(length["unit"]) or "", "s")
    value = finite(length.get("value"))
    if seconds is None or value < 0:
        raise UnusableError("a duration that cannot be read")
    try:
        return start + timedelta(seconds=seconds(value))
    except OverflowError as error:
        raise UnusableError("a duration that cannot be read") from error
