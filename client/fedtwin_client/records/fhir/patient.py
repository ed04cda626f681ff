"""FHIR R4 Patient: birth, sex and death."""

from fedtwin_client.records.events import BIRTH, DEATH, SEX, Event
from fedtwin_client.records.reading import Reading, UnusableError
from fedtwin_client.records.resources import Found
from fedtwin_client.records.subjects import Subjects


def patient_events(found: Found, subjects: Subjects, origin: str, reading: Reading) -> list[Event]:
    """The events of one Patient.

    Args:
        found: the resource.
        subjects: leads to the pseudonym.
        origin: what a later version of the resource replaces.
        reading: the import's rules and account.

    Raises:
        UnusableError: it does not say who it is, or another Patient says it for this one.
    """
    resource, place = found.resource, found.place
    subject = subjects.of_patient(found)
    for fault in subjects.faults(found):
        reading.tally.note(fault, place)
    if subjects.is_replaced(found):
        reason = "a Patient who is one with another; the other's birth, sex and death count"
        raise UnusableError(reason, wrong=False)
    events = []
    if resource.get("birthDate"):
        born = reading.moment(resource["birthDate"])
        if born.precision in {"year", "month"}:
            reading.tally.note(f"birth known only to the {born.precision}", place)
        events.append(
            Event(
                subject_id=subject,
                time=born.start,
                code=BIRTH,
                source=f"{origin}#birth",
                available_time=born.start,
            )
        )
    else:
        reading.tally.note("a Patient without a birth date", place)
    if resource.get("gender"):
        sex = str(resource["gender"])
        events.append(
            Event(subject_id=subject, time=None, code=SEX, source=f"{origin}#sex", text_value=sex)
        )
    return events + _death(found, subject, origin, reading)


def _death(found: Found, subject: int, origin: str, reading: Reading) -> list[Event]:
    if not found.resource.get("deceasedDateTime"):
        if found.resource.get("deceasedBoolean") is True:
            reading.tally.note("a death without a date", found.place)
        return []
    died = reading.moment(found.resource["deceasedDateTime"])
    time = min(died.end, reading.now)
    return [
        Event(
            subject_id=subject,
            time=time,
            code=DEATH,
            source=f"{origin}#death",
            available_time=time,
        )
    ]
