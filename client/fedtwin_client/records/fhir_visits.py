"""FHIR R4 Encounter: the beginning and the end of a visit.

The kind of visit is Encounter.class. Its codes (HL7 v3 ActCode) become those that OMOP calls visits
by (IP, OP, ER), so that visits of both sources have one code; others stay as they are. The type of
the visit is the events' text.
"""

from typing import Any, Final

from fedtwin_client.records.codes import codes_of
from fedtwin_client.records.events import Event
from fedtwin_client.records.fhir_coded import end_of, refuse_withdrawn, start_of
from fedtwin_client.records.reading import Reading, UnusableError
from fedtwin_client.records.resources import Found, list_of, text_of
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
    kind = _kind(resource.get("class"))
    period = resource.get("period")
    written = {VISIT_START: start_of(period), VISIT_END: end_of(period)}
    if not any(written.values()):
        raise UnusableError("no time")
    reading.refuse_backwards(period)
    types = [code for item in list_of(resource, "type") for code in codes_of(item)]
    events: list[Event] = []
    for number, (prefix, text) in enumerate(written.items()):
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
                subject_id=subject,
                time=times.time,
                code=f"{prefix}//{kind}",
                text_value=types[0] if types else None,
                source=f"{origin}#{number}",
                available_time=times.available_time,
                status=status or None,
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
