"""One sample of an Apple Health export into one event.

Quantities are put at the end of their span, and were known when the app had them (`creationDate`)
or at that end, whichever is later. A night's sleep stands as its stages, each with its length.
"""

import re
from datetime import datetime
from functools import lru_cache
from typing import Any

from fedtwin_client.records.events import Event
from fedtwin_client.records.reading import (
    Number,
    Reading,
    Times,
    UnusableError,
    checked_number,
    finite,
)
from fedtwin_client.records.wearables.healthkit import quantity, quantity_code, short_name
from fedtwin_client.records.wearables.xml_stream import Element

_ZONE = re.compile(r" ([+-]\d{4})\Z")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z")
_STAGES = "HKCategoryValueSleepAnalysis"


def read_sample(element: Element, subject: int, source: str, reading: Reading) -> Event:
    """The event of one Record or Workout.

    Args:
        element: its start tag.
        subject: the person's pseudonym.
        source: of the event.
        reading: the import's rules.

    Raises:
        UnusableError: it makes no event.
    """
    start, times = _times(element.attributes, reading)
    meaning = _workout if element.name == "Workout" else _record
    code, text, number = meaning(element.attributes, (times.time - start).total_seconds())
    return Event(
        subject_id=subject,
        time=times.time,
        code=code,
        numeric_value=None if number is None else number.value,
        text_value=text,
        available_time=times.available_time,
        unit=None if number is None else number.unit,
        src_unit=None if number is None else number.src_unit,
        source=source,
    )


def _record(attributes: dict[str, str], seconds: float) -> tuple[str, str | None, Number | None]:
    """Code, text and value of a quantity or a category."""
    kind = attributes.get("type", "")
    name = short_name(kind)
    if kind.startswith("HKQuantityType"):
        value = _number(attributes.get("value"))
        return quantity_code(name), None, quantity(name, value, attributes.get("unit"))
    if not attributes.get("value"):
        raise UnusableError("no value was recorded", wrong=False)
    text, code = attributes["value"][:200], f"HEALTHKIT//{name}"
    if name != "SleepAnalysis":
        return code, text, None
    return code, text.removeprefix(_STAGES), checked_number(code, seconds, "s")


def _workout(attributes: dict[str, str], _: float) -> tuple[str, str | None, Number | None]:
    """Code, activity and length of a workout."""
    code, name = "HEALTHKIT//Workout", short_name(attributes.get("workoutActivityType", ""))
    if "duration" not in attributes:
        return code, name, None
    value = _number(attributes["duration"])
    return code, name, checked_number(code, value, attributes.get("durationUnit"))


def _times(attributes: dict[str, str], reading: Reading) -> tuple[datetime, Times]:
    start, end = (_moment(attributes.get(f"{name}Date"), reading) for name in ("start", "end"))
    if end < start:
        raise UnusableError("a time span that ends before it begins")
    written = attributes.get("creationDate")
    known = max(end, _moment(written, reading)) if written else end
    return start, Times(end, known)


def _moment(written: str | None, reading: Reading) -> datetime:
    """A time as the export writes it: `2024-03-01 08:30:00 +0100`."""
    if not written:
        raise UnusableError("no time")
    spelled = _spelled(written)
    if spelled is None:
        raise UnusableError("a time without its zone, which Apple always writes")
    return reading.moment(spelled).start


@lru_cache(maxsize=65_536)
def _spelled(written: str) -> str | None:
    """With the zone next to the time, as ISO 8601 has it; none without a zone."""
    return written[:-6] + written[-5:] if _ZONE.search(written) else None


def _number(written: Any) -> float:
    if not isinstance(written, str) or not _NUMBER.match(written.strip()):
        raise UnusableError("expected a number, found text")
    return finite(float(written))
