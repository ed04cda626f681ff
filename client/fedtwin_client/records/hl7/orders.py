"""Medications (RXO, RXE, RXD, RXA) and diagnoses (DG1) of HL7 v2 messages: chapters 4A and 6.

Only codes that hospitals share make events. An order that is cancelled takes its event out; control
codes that only report how it goes on (discontinued, on hold, changed status) leave it as it is.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from fedtwin_client.records.events import Event
from fedtwin_client.records.hl7.codes import Coded, read_coded
from fedtwin_client.records.hl7.context import Context
from fedtwin_client.records.hl7.text import Segment, part
from fedtwin_client.records.moments import Moment
from fedtwin_client.records.reading import UnusableError

# HL7 table 0119: an order that stands, as new, changed or accepted.
_STANDS = {"", "NW", "XO", "XX", "XR", "RO", "PA", "CH", "RF", "RE", "NA", "OK", "SN", "OP"}
_CANCELLED = {"CA", "OC", "CR", "OE"}
_CONTROL = re.compile(r"[A-Z]{2}\Z")
_NOT_GIVEN = {"RE", "NA"}
# HL7 table 0052: an admitting or working diagnosis is told as it is made; a final one is coded
# after the stay, and often dated at its beginning.
_AT_THE_BED = {"A", "W"}


class Coding(NamedTuple):
    """Where a medication segment names the medication, and its own times.

    Attributes:
        code: the field with the code.
        times: fields with the time it happened, best first; none: the order's.
    """

    code: int
    times: tuple[int, ...]


class Order(NamedTuple):
    """What stands around a medication segment.

    Attributes:
        common: the ORC before it.
        timing: the TQ1 of its group.
    """

    common: Segment | None
    timing: Segment | None


READ = {
    "RDE": ("RXE", Coding(2, ())),
    "ORM": ("RXO", Coding(1, ())),
    "OMP": ("RXO", Coding(1, ())),
    "RDS": ("RXD", Coding(2, (3,))),
    "RAS": ("RXA", Coding(5, (3, 4))),
}
"""By message type: the segment that is read, and how; others repeat what it says."""


def number_of(segment: Segment | None, fields: tuple[int, ...]) -> str:
    """An order's number with its name space: the first of several fields that is filled."""
    if segment is None:
        return ""
    for field in fields:
        number, space = segment.text(field), segment.text(field, 2)
        if number:
            return f"{number}@{space}" if space else number
    return ""


def medication(
    segment: Segment, coding: Coding, order: Order, subject: int, context: Context
) -> tuple[str, list[Event]]:
    """The record that a medication segment is, and its events.

    Args:
        segment: RXO, RXE, RXD or RXA.
        coding: how to read it.
        order: what stands around it.
        subject: the patient's pseudonym.
        context: of the message.

    Raises:
        UnusableError: nothing is to be done, and what the store holds of it stays.
    """
    common = order.common
    control = "" if common is None else common.text(1).upper()
    if control not in _STANDS | _CANCELLED:
        named = control if _CONTROL.match(control) else "of no known code"
        raise UnusableError(
            f"order control {named} changes nothing of when it was ordered", wrong=False
        )
    coded = read_coded(segment.repetitions(coding.code)[0], segment.marks, context.application)
    number = number_of(common, (2, 3))
    written = _time(segment, coding, order)
    key = [number] if number else [str(subject), *coded.codes[:1], written]
    origin = context.origin(
        "medication", context.sender, segment.name, *key, *_single(segment, written)
    )
    status = "" if common is None else common.text(5).upper()
    try:
        _refuse_cancelled(segment, control, status)
        events = _coded(coded, context.moment(_given(written)), subject, origin, context)
    except UnusableError as error:
        context.unusable(error, segment)
        events = []
    return origin, events


def _single(segment: Segment, written: str) -> list[str]:
    """Which of an order's doses or dispensings it is; many senders count them all as the first."""
    if segment.name == "RXA":
        return [segment.text(1), segment.text(2), written]
    return [segment.text(1), written] if segment.name == "RXD" else [""]


def _refuse_cancelled(segment: Segment, control: str, status: str) -> None:
    if control in _CANCELLED or status in {"CA", "RP"}:
        raise UnusableError("medication order is cancelled", wrong=False)
    if segment.name == "RXA":
        if segment.text(21).upper() == "D":
            raise UnusableError("withdrawn (deleted)", wrong=False)
        if segment.text(20).upper() in _NOT_GIVEN:
            raise UnusableError("a medication that was not given", wrong=False)


def _time(segment: Segment, coding: Coding, order: Order) -> str:
    """When it was given; for an order when it was ordered, or else from when on it holds."""
    own = [segment.text(field) for field in coding.times]
    if order.common is not None:
        own += [order.common.text(9), order.common.text(15)]
    if order.timing is not None:
        own.append(order.timing.text(7))
    if order.common is not None:
        own.append(order.common.text(7, 4))
    if segment.name == "RXE":
        own.append(segment.text(1, 4))
    return next((text for text in own if text), "")


def _given(text: str) -> str:
    if not text:
        raise UnusableError("no time")
    return text


def _coded(
    coded: Coded, happened: Moment, subject: int, origin: str, context: Context
) -> list[Event]:
    if not coded.shared:
        raise UnusableError("a medication or diagnosis without a code of a shared vocabulary")
    known = context.told(happened)
    return [
        Event(
            subject_id=subject,
            time=happened.start,
            code=code,
            source=f"{origin}#{number}",
            available_time=known,
        )
        for number, code in enumerate(coded.shared)
    ]


def diagnosis(
    segment: Segment, visit: str, subject: int, context: Context
) -> Iterator[tuple[str, list[Event]]]:
    """The record that a DG1 segment is, and its events.

    Args:
        segment: DG1.
        visit: number of the visit or account; empty if none.
        subject: the patient's pseudonym.
        context: of the message.
    """
    coded = read_coded(_with_method(segment), segment.marks, context.application)
    if not coded.codes:
        context.unusable(UnusableError("no code"), segment)
        return
    origin = context.origin("diagnosis", context.sender, str(subject), visit, coded.codes[0])
    try:
        if segment.text(21).upper() == "D":
            raise UnusableError("withdrawn (deleted)", wrong=False)
        attested = segment.text(19)
        happened = context.moment(_given(segment.text(5) or attested))
        events = _coded(coded, happened, subject, origin, context)
        known = context.known(attested, segment)
        if known is None and segment.text(6).upper() not in _AT_THE_BED:
            known = context.sent
        if known is not None:
            events = [replace(event, available_time=max(known, happened.start)) for event in events]
    except UnusableError as error:
        context.unusable(error, segment)
        events = []
    yield origin, events


def _with_method(segment: Segment) -> str:
    """DG1-3; where it names no coding system, with that of DG1-2, as versions to 2.3 have it."""
    written = segment.repetitions(3)[0]
    mark = segment.marks.component
    if part(written, 3, segment.marks) or not segment.text(2):
        return written
    code, text = [*written.split(mark, 2), ""][:2]
    return mark.join([code, text, segment.text(2)])
