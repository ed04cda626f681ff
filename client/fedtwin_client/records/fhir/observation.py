"""FHIR R4 Observation: one event for its value, and one for each component.

A value is a quantity, an integer, a boolean, a coded answer, a string, a date, a time or a period.
A coded yes or no is also a number (1 or 0). A ratio is a number and its text (a titer of 1:128); a
range is two events, one for each bound. Waveforms are counted and not read. An observation without
any value, reason or component still says that it was made, and makes an event without a value.
"""

import re
from typing import Any, NamedTuple

from fedtwin_client.records.codes.analytes import analyte
from fedtwin_client.records.codes.concepts import codes_of, is_local, yes_or_no
from fedtwin_client.records.codes.units import SAME, conversion, normal_unit
from fedtwin_client.records.events import Event
from fedtwin_client.records.moments import read_moment
from fedtwin_client.records.reading import (
    Reading,
    Times,
    UnusableError,
    checked_number,
    finite,
)
from fedtwin_client.records.report import Place
from fedtwin_client.records.resources import Found, Resource, list_of, refuse_modified, text_of

PLAIN = frozenset({"", "final", "preliminary"})
"""Statuses of Observations that make events as they stand."""
_CORRECTED = {"amended", "corrected"}
_STATUSES = PLAIN | _CORRECTED | {"unknown"}
_COMPARATORS = {"<", "<=", ">", ">="}
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?\Z")


class Value(NamedTuple):
    """What an event says: a number in the unit its code is kept in, a text, or both or neither."""

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
    if status not in _STATUSES:
        raise UnusableError("a status that FHIR R4 does not know for an Observation")
    times = reading.times(_effective(resource, reading), resource.get("issued"))
    if status in _CORRECTED and not resource.get("issued"):
        times = _not_before_the_correction(times, resource, reading)
    events: list[Event] = []
    for number, part in enumerate(_parts(resource)):
        try:
            refuse_modified(part)
            code = _code(part, reading, found.place)
            values = read_values(part, code, reading, whole=part is resource)
        except UnusableError as error:
            reading.unusable(error, found.place, resource)
            continue
        for ending, value in zip(("", "/high"), values, strict=False):
            source = f"{origin}#{number}{ending}"
            events.append(_event(subject, code, value, times, source, status))
    return events


def _effective(resource: Resource, reading: Reading) -> list[Any]:
    period = resource.get("effectivePeriod")
    reading.refuse_backwards(period)
    ends = [period.get("end"), period.get("start")] if isinstance(period, dict) else []
    single = [resource.get("effectiveDateTime"), resource.get("effectiveInstant")]
    return [*single, *ends, *_last_of(resource.get("effectiveTiming"), reading)]


def _last_of(timing: Any, reading: Reading) -> list[Any]:
    """The last of a timing's events, or the end of the time in which it repeats."""
    if not isinstance(timing, dict):
        return []
    events = list_of(timing, "event")
    repeat = timing.get("repeat")
    bounds = repeat.get("boundsPeriod") if isinstance(repeat, dict) else None
    within = [bounds.get("end"), bounds.get("start")] if isinstance(bounds, dict) else []
    return [max(events, key=lambda event: reading.moment(event).start, default=None), *within]


def _not_before_the_correction(times: Times, resource: Resource, reading: Reading) -> Times:
    """A corrected value that does not say when it was issued was known when its version was made.

    Its time is that of the value it corrects. Of a version without a usable time
    no more can be said than that it is here by now.
    """
    meta = resource.get("meta")
    updated = meta.get("lastUpdated") if isinstance(meta, dict) else None
    try:
        known = reading.moment(updated).known
    except UnusableError:
        known = reading.now
    return times._replace(available_time=max(times.available_time, known))


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


def read_values(part: Resource, code: str, reading: Reading, *, whole: bool) -> list[Value]:
    """The value of an Observation or component; of a range, both its bounds.

    Args:
        part: without a modifier extension.
        code: of what was observed.
        reading: the import's rules.
        whole: whether it is the Observation itself.

    Raises:
        UnusableError: it makes no event.
    """
    if "valueQuantity" in part:
        return [_quantity(part["valueQuantity"], code)]
    if "valueRange" in part:
        return _range(part["valueRange"], code)
    if "valueRatio" in part:
        return [_ratio(part["valueRatio"], code)]
    for key in ("valueDateTime", "valueTime", "valuePeriod"):
        if key in part:
            return [_dated(part[key], key, code, reading)]
    return [_read_value(part, code, whole=whole)]


def _read_value(part: Resource, code: str, *, whole: bool) -> Value:
    if "valueInteger" in part:
        number = checked_number(code, finite(part["valueInteger"]), None)
        return Value(number=number.value)
    if "valueBoolean" in part:
        return Value(number=_boolean(part["valueBoolean"]))
    if "valueCodeableConcept" in part:
        return _answer(part["valueCodeableConcept"], code)
    if "valueString" in part:
        return _text(part["valueString"], code)
    if "valueSampledData" in part:
        raise UnusableError("a waveform (valueSampledData) is not read", wrong=False)
    unknown = sorted(key for key in part if key.startswith("value"))
    if unknown:
        raise UnusableError(f"a {unknown[0][:40]}, which FHIR R4 does not know")
    if "dataAbsentReason" in part or not whole:
        raise UnusableError("no value was recorded", wrong=False)
    return Value()


def _quantity(quantity: Any, code: str) -> Value:
    if not isinstance(quantity, dict):
        raise UnusableError("a valueQuantity that is not an object")
    if quantity.get("value") is None:
        raise UnusableError("no value was recorded", wrong=False)
    comparator = comparator_of(quantity)
    number = checked_number(code, finite(quantity["value"]), unit_of(quantity))
    return Value(
        number=number.value, unit=number.unit, src_unit=number.src_unit, comparator=comparator
    )


def quantity_of(written: Any) -> tuple[Any, str | None]:
    """A quantity's value as written, and its unit.

    Raises:
        UnusableError: it is no quantity, or its unit and its code are different units.
    """
    if not isinstance(written, dict):
        raise UnusableError("a quantity that is not an object")
    return written.get("value"), unit_of(written)


def _range(written: Any, code: str) -> list[Value]:
    """At least the low bound, and at most the high one."""
    if not isinstance(written, dict):
        raise UnusableError("a valueRange that is not an object")
    values = []
    for bound, comparator in (("low", ">="), ("high", "<=")):
        if written.get(bound) is not None:
            amount, unit = quantity_of(written[bound])
            number = checked_number(code, finite(amount), unit)
            values.append(
                Value(
                    number=number.value,
                    unit=number.unit,
                    src_unit=number.src_unit,
                    comparator=comparator,
                )
            )
    if not values:
        raise UnusableError("no value was recorded", wrong=False)
    if len(values) == 2 and (values[0].number or 0) > (values[1].number or 0):
        raise UnusableError("a range whose low bound lies above the high one")
    return values


def _ratio(written: Any, code: str) -> Value:
    """The quotient, in the units' quotient, and as text what was written."""
    if not isinstance(written, dict):
        raise UnusableError("a valueRatio that is not an object")
    if written.get("numerator") is None and written.get("denominator") is None:
        raise UnusableError("no value was recorded", wrong=False)
    above, unit = quantity_of(written.get("numerator"))
    below, by = quantity_of(written.get("denominator"))
    over, under = finite(above), finite(below)
    if not under:
        raise UnusableError("a ratio whose denominator is zero")
    whole = unit if by in {None, "1"} else f"{unit or '1'}/{by}"
    comparator = comparator_of(written["numerator"])
    number = checked_number(code, finite(over / under), whole)
    return Value(
        number=number.value,
        text=f"{above}:{below}",
        unit=number.unit,
        src_unit=number.src_unit,
        comparator=comparator,
    )


def _dated(written: Any, key: str, code: str, reading: Reading) -> Value:
    """A date, a time of day or a period is a text, in FHIR's own spelling; it may lie ahead."""
    if key == "valuePeriod":
        if not isinstance(written, dict):
            raise UnusableError("a valuePeriod that is not an object")
        ends = [written.get("start"), written.get("end")]
        if not any(ends):
            raise UnusableError("no value was recorded", wrong=False)
        if not all(end is None or _is_moment(end, reading) for end in ends):
            raise UnusableError("a valuePeriod that cannot be read")
        return _text("/".join(end or "" for end in ends), code)
    known = _is_clock(written) if key == "valueTime" else _is_moment(written, reading)
    if not known:
        raise UnusableError(f"a {key} that cannot be read")
    return _text(written, code)


def _is_moment(written: Any, reading: Reading) -> bool:
    return isinstance(written, str) and read_moment(written, reading.zone) is not None


def _is_clock(written: Any) -> bool:
    return isinstance(written, str) and _CLOCK.match(written) is not None


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


def _answer(concept: Any, code: str) -> Value:
    codes = codes_of(concept)
    if codes:
        return Value(number=yes_or_no(codes[0]), text=codes[0])
    text = concept.get("text") if isinstance(concept, dict) else None
    return _text(text, code)


def _text(text: Any, code: str) -> Value:
    if not isinstance(text, str) or not text.strip():
        raise UnusableError("no value was recorded", wrong=False)
    if analyte(code) is not None:
        raise UnusableError("expected a number, found text")
    return Value(text=text.strip())


def _event(subject: int, code: str, value: Value, times: Times, source: str, status: str) -> Event:
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
