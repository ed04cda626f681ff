"""`lowBoundary()` and `highBoundary()`: the least and the greatest that a written value may mean.

By FHIRPath 3.0.0-ballot (hl7.org/fhirpath, section "Boundary"): a decimal spans half a unit of its
last written digit; a date or time spans what it leaves open. Without a zone a dateTime may lie in
any, from +14:00 (earliest) to -12:00 (latest). A number's trailing zeros end where JSON was parsed
into a number, so that 1.50 counts as 1.5, and 1.0 as 1.0.
"""

import calendar
import re
from decimal import Decimal

_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?\Z")
_MOMENT = re.compile(
    r"(\d{4}(?:-\d\d(?:-\d\d)?)?)T?(\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?)?(Z|[+-]\d\d:\d\d)?\Z"
)
_TIME = re.compile(r"(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?\Z")


def decimal_boundary(value: Decimal, high: bool, digits: int | None = None) -> Decimal | None:
    """The boundary of a number.

    Args:
        value: as it was written.
        high: the greatest, otherwise the least.
        digits: round outwards to so many decimal places; none: as many as the boundary has.
    """
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):  # infinite or not a number
        return None
    half = Decimal(5).scaleb(min(exponent, 0) - 1)
    edge = value + half if high else value - half
    if digits is None:
        return edge
    if not 0 <= digits <= 28:
        return None
    step = Decimal(1).scaleb(-digits)
    return edge.quantize(step, rounding="ROUND_CEILING" if high else "ROUND_FLOOR")


def date_boundary(text: str, high: bool) -> str | None:
    """The first or last day of a date, `YYYY-MM-DD`; none if it is no date."""
    match = _DATE.match(text)
    if match is None:
        return None
    year, month, day = match[1], match[2], match[3]
    month = month or ("12" if high else "01")
    if not 1 <= int(month) <= 12 or not 1 <= int(year) <= 9999:
        return None
    last = calendar.monthrange(int(year), int(month))[1]
    day = day or (f"{last:02}" if high else "01")
    return f"{year}-{month}-{day}" if 1 <= int(day) <= last else None


def moment_boundary(text: str, high: bool) -> str | None:
    """The first or last millisecond of a dateTime or instant; none if it is neither."""
    match = _MOMENT.match(text)
    if match is None:
        return None
    day = date_boundary(match[1], high)
    time = time_boundary(match[2], high) if match[2] else None
    if day is None or (match[2] and time is None):
        return None
    zone = match[3] or ("-12:00" if high else "+14:00")
    return f"{day}T{time or ('23:59:59.999' if high else '00:00:00.000')}{zone}"


def time_boundary(text: str, high: bool) -> str | None:
    """The first or last millisecond of a time of day; none if it is none."""
    match = _TIME.match(text)
    if match is None:
        return None
    open_end = ("59", "59", "999") if high else ("00", "00", "000")
    minute, second = match[2] or open_end[0], match[3] or open_end[1]
    part = match[4]
    milli = (part + ("9" if high else "0") * 3)[:3] if part else open_end[2]
    if int(match[1]) > 23 or int(minute) > 59 or int(second) > 59:
        return None
    return f"{match[1]}:{minute}:{second}.{milli}"
