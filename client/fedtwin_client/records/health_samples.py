"""One sample of an Apple Health export into one event.

Quantities are put at the end of their span, and were known when the app had them (`creationDate`)
or at that end, whichever is later. A night's sleep stands as its stages, each with its length.
"""

import re
from dataclasses import replace
from datetime import datetime
from typing import Any

from fedtwin_client.records.events import Event
from fedtwin_client.records.healthkit import quantity, quantity_code, short_name
from fedtwin_client.records.reading import (
    Number,
    Reading,
    Times,
    UnusableError,
    checked_number,
    finite,
)
from fedtwin_client.records.xml_stream import Element

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
    attributes = element.attributes
    start, times = _times(attributes, reading)
    event = Event(
        subject_id=subject,
        time=times.time,
        code="",
        source=source,
        available_time=times.available_time,
    )
    if element.name == "Workout":
        return _workout(attributes, event)
    kind = attributes.get("type", "")
    name = short_name(kind)
    if kind.startswith("HKQuantityType"):
        made = quantity(name, _number(attributes.get("value")), attributes.get("unit"))
        return _with(replace(event, code=quantity_code(name)), made)
    if not attributes.get("value"):
        raise UnusableError("no value was recorded", wrong=False)
    text = attributes["value"][:200]
    event = replace(event, code=f"HEALTHKIT//{name}", text_value=text)
    if name != "SleepAnalysis":
        return event
    seconds = (times.time - start).total_seconds()
    length = checked_number(event.code, seconds, "s")
    return _with(replace(event, text_value=text.removeprefix(_STAGES)), length)


def _workout(attributes: dict[str, str], event: Event) -> Event:
    name = short_name(attributes.get("workoutActivityType", ""))
    event = replace(event, code="HEALTHKIT//Workout", text_value=name)
    if "duration" not in attributes:
        return event
    value = _number(attributes["duration"])
    return _with(event, checked_number(event.code, value, attributes.get("durationUnit")))


def _with(event: Event, number: Number) -> Event:
    return replace(event, numeric_value=number.value, unit=number.unit, src_unit=number.src_unit)


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
    if _ZONE.search(written) is None:
        raise UnusableError("a time without its zone, which Apple always writes")
    return reading.moment(_ZONE.sub(r"\1", written)).start


def _number(written: Any) -> float:
    if not isinstance(written, str) or not _NUMBER.match(written.strip()):
        raise UnusableError("expected a number, found text")
    return finite(float(written))
