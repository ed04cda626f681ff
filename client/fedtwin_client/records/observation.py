"""FHIR R4 Observation: one event for its value, and one for each component.

A value is a quantity, an integer, a boolean, a coded answer or a string. A coded yes or no is also
a number (1 or 0). An observation without any value, reason or component still says that it was
made, and makes an event without a value.
"""

from typing import Any, NamedTuple

from fedtwin_client.records.analytes import analyte
from fedtwin_client.records.codes import codes_of, is_local, yes_or_no
from fedtwin_client.records.events import Event
from fedtwin_client.records.reading import (
    Reading,
    Times,
    UnusableError,
    checked_number,
    finite,
)
from fedtwin_client.records.report import Place
from fedtwin_client.records.resources import Found, Resource, list_of, text_of
from fedtwin_client.records.units import SAME, conversion, normal_unit

PLAIN_NOT = frozenset({"entered-in-error", "refuted", "cancelled", "registered"})
"""Statuses of Observations that make no events."""
_COMPARATORS = {"<", "<=", ">", ">="}
_NOT_READ = (
    "valueRange",
    "valueRatio",
    "valueSampledData",
    "valueTime",
    "valueDateTime",
    "valuePeriod",
)


class _Value(NamedTuple):
    number: float | None = None
    text: str | None = None
    unit: str | None = None
    src_unit: str | None = None
    comparator: str | None = None


def observation_events(found: Found, subject: int, origin: str, reading: Reading) -> list[Event]:
    """The events of one Observation that is neither withdrawn nor somebody else's.

    Args:
        found: the resource.
        subject: the patient's pseudonym.
        origin: what a later version of the resource replaces.
        reading: the import's rules and account.

    Raises:
        UnusableError: the whole resource makes no event.
    """
    resource = found.resource
    status = text_of(resource, "status")
    if status in {"cancelled", "registered"}:
        raise UnusableError(f"observation is {status}", wrong=False)
    times = reading.times(_effective(resource), resource.get("issued"))
    events: list[Event] = []
    for number, part in enumerate(_parts(resource)):
        try:
            code = _code(part, reading, found.place)
            value = _read_value(part, code, whole=part is resource)
        except UnusableError as error:
            reading.unusable(error, found.place, resource)
            continue
        events.append(_event(subject, code, value, times, f"{origin}#{number}", status))
    return events


def _effective(resource: Resource) -> list[Any]:
    period = resource.get("effectivePeriod")
    ends = [period.get("end"), period.get("start")] if isinstance(period, dict) else []
    return [resource.get("effectiveDateTime"), resource.get("effectiveInstant"), *ends]


def _parts(resource: Resource) -> list[Resource]:
    """The observation itself, if it says something by itself, and its components."""
    parts = list_of(resource, "component")
    if not all(isinstance(part, dict) for part in parts):
        raise UnusableError("a component that is not an object")
    valued = any(key.startswith("value") for key in resource)
    return [resource, *parts] if valued or not parts else parts


def _code(part: Resource, reading: Reading, place: Place) -> str:
    codes = codes_of(part.get("code"))
    if not codes:
        raise UnusableError("no code")
    if is_local(codes[0]):
        reading.tally.note("code of a local vocabulary", place)
    return codes[0]


def _read_value(part: Resource, code: str, *, whole: bool) -> _Value:
    if "valueQuantity" in part:
        return _quantity(part["valueQuantity"], code)
    if "valueInteger" in part:
        number = checked_number(code, finite(part["valueInteger"]), None)
        return _Value(number=number.value)
    if "valueBoolean" in part:
        return _Value(number=_boolean(part["valueBoolean"]))
    if "valueCodeableConcept" in part:
        return _answer(part["valueCodeableConcept"], code)
    if "valueString" in part:
        return _text(part["valueString"], code)
    unread = next((key for key in _NOT_READ if key in part), None)
    if unread is not None:
        raise UnusableError(f"a {unread} is not read", wrong=False)
    if "dataAbsentReason" in part or not whole:
        raise UnusableError("no value was recorded", wrong=False)
    return _Value()


def _quantity(quantity: Any, code: str) -> _Value:
    if not isinstance(quantity, dict):
        raise UnusableError("a valueQuantity that is not an object")
    if quantity.get("value") is None:
        raise UnusableError("no value was recorded", wrong=False)
    comparator = comparator_of(quantity)
    number = checked_number(code, finite(quantity["value"]), unit_of(quantity))
    return _Value(
        number=number.value, unit=number.unit, src_unit=number.src_unit, comparator=comparator
    )


def comparator_of(quantity: Resource) -> str | None:
    """The quantity's comparator, if it has one.

    Raises:
        UnusableError: it is none of FHIR R4's four.
    """
    comparator = text_of(quantity, "comparator") or None
    if comparator is not None and comparator not in _COMPARATORS:
        raise UnusableError("a comparator that is not known")
    return comparator


def unit_of(quantity: Resource) -> str | None:
    """The quantity's unit: its code if that is known here, or else what people read.

    Raises:
        UnusableError: the two are different units.
    """
    written = [text for text in (quantity.get("code"), quantity.get("unit")) if _is_text(text)]
    known = [text for text in written if normal_unit(text) is not None]
    normal = [unit for unit in map(normal_unit, known) if unit is not None]
    if len(normal) == 2 and conversion(normal[0], normal[1]) != SAME:
        raise UnusableError("a quantity's unit and its code are different units")
    return (known or written or [None])[0]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _boolean(value: Any) -> float:
    if not isinstance(value, bool):
        raise UnusableError("a valueBoolean that is neither true nor false")
    return float(value)


def _answer(concept: Any, code: str) -> _Value:
    codes = codes_of(concept)
    if codes:
        return _Value(number=yes_or_no(codes[0]), text=codes[0])
    text = concept.get("text") if isinstance(concept, dict) else None
    return _text(text, code)


def _text(text: Any, code: str) -> _Value:
    if not isinstance(text, str) or not text.strip():
        raise UnusableError("no value was recorded", wrong=False)
    if analyte(code) is not None:
        raise UnusableError("expected a number, found text")
    return _Value(text=text.strip())


def _event(subject: int, code: str, value: _Value, times: Times, source: str, status: str) -> Event:
    return Event(
        subject_id=subject,
        time=times.time,
        code=code,
        numeric_value=value.number,
        text_value=value.text,
        available_time=times.available_time,
        unit=value.unit,
        src_unit=value.src_unit,
        comparator=value.comparator,
        source=source,
        status=status or None,
    )
