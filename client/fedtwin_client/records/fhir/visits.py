"""FHIR R4 Encounter: the beginning and the end of a visit.

The kind of visit is Encounter.class. Its codes (HL7 v3 ActCode) become those that OMOP calls visits
by (IP, OP, ER), so that visits of both sources have one code; others stay as they are. The type of
the visit is the events' text.
"""

from typing import Any, Final, NamedTuple

from fedtwin_client.records.codes.concepts import codes_of
from fedtwin_client.records.events import Event
from fedtwin_client.records.fhir.coded import end_of, refuse_withdrawn, start_of
from fedtwin_client.records.reading import Reading, UnusableError
from fedtwin_client.records.resources import Found, Resource, list_of, text_of
from fedtwin_client.records.subjects import Subjects

VISIT_START: Final = "VISIT_START"
VISIT_END: Final = "VISIT_END"
_NOT_BEGUN: Final = {"planned", "cancelled"}
_OMOP: Final = {"IMP": "IP", "ACUTE": "IP", "NONAC": "IP", "AMB": "OP", "EMER": "ER"}


def visit_events(found: Found, subjects: Subjects, origin: str, reading: Reading) -> list[Event]:
    """The events of one Encounter.

    Args:
        found: the resource.
        subjects: leads from references to pseudonyms.
        origin: what a later version of the resource replaces.
        reading: the import's rules and account.

    Raises:
        UnusableError: the whole resource makes no event.
    """
    resource = found.resource
    status = text_of(resource, "status")
    refuse_withdrawn(status)
    if status in _NOT_BEGUN:
        raise UnusableError(f"encounter is {status}", wrong=False)
    subject = subjects.of(resource.get("subject"))
    kind, period = _kind(resource.get("class")), resource.get("period")
    if not any((start_of(period), end_of(period))):
        raise UnusableError("no time")
    types = [code for item in list_of(resource, "type") for code in codes_of(item)]
    common = _Common(
        subject=subject, text=types[0] if types else None, origin=origin, status=status or None
    )
    events: list[Event] = []
    for part in _parts(resource, kind, period):
        events += _part_events(part, len(events), common, found, reading)
    return events


class _Common(NamedTuple):
    """What all events of an Encounter share."""

    subject: int
    text: str | None
    origin: str
    status: str | None


class _Part(NamedTuple):
    """A time within a visit in which its kind did not change."""

    kind: str
    period: Any


def _parts(resource: Resource, kind: str, period: Any) -> list[_Part]:
    """The visit as a whole; or, where it is told how its kind changed, one part after another.

    Who came in by the emergency department was no inpatient yet, and nobody knew of it.
    """
    history = [one for one in list_of(resource, "classHistory") if isinstance(one, dict)]
    told = [(_kind(one.get("class")), one.get("period")) for one in history]
    told.sort(key=lambda part: str(start_of(part[1])))
    if not told or not all(start_of(span) for _, span in told):
        return [_Part(kind, period)]
    if told[-1][0] != kind and end_of(told[-1][1]):
        told.append((kind, {"start": end_of(told[-1][1])}))
    following = [start_of(span) for _, span in told[1:]] + [end_of(period)]
    return [
        _Part(part, {"start": start_of(span), "end": end_of(span) or end})
        for (part, span), end in zip(told, following, strict=True)
    ]


def _part_events(
    part: _Part, number: int, common: _Common, found: Found, reading: Reading
) -> list[Event]:
    """Its beginning and its end."""
    reading.refuse_backwards(part.period)
    events: list[Event] = []
    written = {VISIT_START: start_of(part.period), VISIT_END: end_of(part.period)}
    for prefix, text in written.items():
        if not text:
            reading.tally.note(f"an Encounter without {_MISSING[prefix]}", found.place)
            continue
        try:
            times = reading.times([text])
        except UnusableError as error:
            if not events:
                raise
            reason = f"an Encounter whose end cannot be used: {error.reason}"
            reading.tally.note(reason, found.place)
            continue
        events.append(
            Event(
                subject_id=common.subject,
                time=times.time,
                code=f"{prefix}//{part.kind}",
                text_value=common.text,
                source=f"{common.origin}#{number + len(events)}",
                available_time=times.available_time,
                status=common.status,
            )
        )
    return events


_MISSING: Final = {VISIT_START: "a beginning", VISIT_END: "an end"}


def _kind(written: Any) -> str:
    code = written.get("code") if isinstance(written, dict) else None
    if not isinstance(code, str) or not code.split():
        raise UnusableError("an Encounter without a class")
    plain = "_".join(code.split())
    return _OMOP.get(plain, plain)
