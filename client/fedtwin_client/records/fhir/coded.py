"""FHIR R4 resources whose events are a code and a time: conditions, procedures, drugs and others.

Each standard code makes one event. What was not done, only planned, or taken back makes none and
is counted. `time` is when it happened or began; `available_time` is when it was written down, or,
where that is not said, when it had ended. Statuses are those of the R4 value sets of each resource
(http://hl7.org/fhir/R4/resourcelist.html).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from fedtwin_client.records.codes.concepts import codes_of, is_local
from fedtwin_client.records.events import Event
from fedtwin_client.records.fhir.medications import Medications
from fedtwin_client.records.fhir.observation import quantity_of
from fedtwin_client.records.reading import Reading, Times, UnusableError, checked_number, finite
from fedtwin_client.records.resources import Found, Resource, list_of, text_of
from fedtwin_client.records.subjects import Subjects

WITHDRAWN: Final = frozenset({"entered-in-error", "refuted"})
# For each type: what its reports are called, and statuses in which nothing has happened.
_NOTHING_HAPPENED: Final = {
    "Procedure": ("procedure", {"preparation", "not-done"}),
    "Immunization": ("immunization", {"not-done"}),
    "DiagnosticReport": ("report", {"registered", "cancelled"}),
    "MedicationRequest": ("medication request", {"cancelled", "draft"}),
    "MedicationAdministration": ("administration", {"not-done"}),
    "MedicationDispense": (
        "dispensing",
        {"preparation", "in-progress", "cancelled", "on-hold", "declined"},
    ),
    "MedicationStatement": ("statement of a medication", {"intended", "not-taken"}),
}


class CodedResources:
    """Makes the events of such resources.

    Attributes:
        readers: for each type, what makes its events from a resource and its origin.

    Args:
        reading: the import's rules and account.
        subjects: leads from references to pseudonyms.
        medications: leads from references to drugs.
    """

    def __init__(self, reading: Reading, subjects: Subjects, medications: Medications) -> None:
        self._reading = reading
        self._subjects = subjects
        self._medications = medications
        self.readers: dict[str, Callable[[Found, str], list[Event]]] = {
            "AllergyIntolerance": self._allergy,
            "Condition": self._condition,
            "DiagnosticReport": self._report,
            "Immunization": self._immunization,
            "MedicationAdministration": self._administration,
            "MedicationDispense": self._dispense,
            "MedicationRequest": self._request,
            "MedicationStatement": self._statement,
            "Procedure": self._procedure,
        }

    def _condition(self, found: Found, origin: str) -> list[Event]:
        resource = found.resource
        verification = concept_status(resource.get("verificationStatus"))
        refuse_withdrawn(verification)
        subject = self._subjects.of(resource.get("subject"))
        times = self._onset(found)
        status = concept_status(resource.get("clinicalStatus")) or verification
        return self._events(found, subject, codes_of(resource.get("code")), times, (origin, status))

    def _allergy(self, found: Found, origin: str) -> list[Event]:
        """An allergy's substance must not count as the drug, so it has a vocabulary of its own."""
        resource = found.resource
        verification = concept_status(resource.get("verificationStatus"))
        refuse_withdrawn(verification)
        subject = self._subjects.of(resource.get("patient"))
        times = self._onset(found)
        codes = codes_of(resource.get("code"))
        if not codes:  # R4 allows the substance to stand in the reactions alone
            reactions = [item for item in list_of(resource, "reaction") if isinstance(item, dict)]
            codes = [code for item in reactions for code in codes_of(item.get("substance"))]
        status = concept_status(resource.get("clinicalStatus")) or verification
        events = self._events(found, subject, codes, times, (origin, status))
        return [replace(event, code=f"ALLERGY//{event.code}") for event in events]

    def _onset(self, found: Found) -> Times:
        """When a condition or an allergy began, and when it was written down."""
        resource = found.resource
        recorded = resource.get("recordedDate")
        onset = [resource.get("onsetDateTime"), start_of(resource.get("onsetPeriod")), recorded]
        times = self._reading.times(onset, recorded)
        if not recorded:
            kind = resource["resourceType"]
            note = f"a {kind} without recordedDate, taken as known when it began"
            self._reading.tally.note(note, found.place)
        return times

    def _procedure(self, found: Found, origin: str) -> list[Event]:
        resource = found.resource
        status = _status(resource)
        period = resource.get("performedPeriod")
        self._reading.refuse_backwards(period)
        when = [resource.get("performedDateTime"), start_of(period), end_of(period)]
        for unread in ("performedString", "performedAge", "performedRange"):
            if unread in resource and not any(when):
                raise UnusableError(f"a procedure whose only time is a {unread}")
        codes = codes_of(resource.get("code"))
        return self._simple(found, codes, when, end_of(period), (origin, status))

    def _immunization(self, found: Found, origin: str) -> list[Event]:
        resource = found.resource
        status = _status(resource)
        if "occurrenceString" in resource and "occurrenceDateTime" not in resource:
            raise UnusableError("an immunization whose only time is an occurrenceString")
        when, known = [resource.get("occurrenceDateTime")], resource.get("recorded")
        return self._simple(
            found, codes_of(resource.get("vaccineCode")), when, known, (origin, status)
        )

    def _report(self, found: Found, origin: str) -> list[Event]:
        """That a report was made; what it found stands in Observations of its own."""
        resource = found.resource
        status = _status(resource)
        period = resource.get("effectivePeriod")
        self._reading.refuse_backwards(period)
        when = [resource.get("effectiveDateTime"), end_of(period), start_of(period)]
        known = resource.get("issued")
        codes = codes_of(resource.get("code"))
        return self._simple(found, codes, [*when, known], known, (origin, status))

    def _request(self, found: Found, origin: str) -> list[Event]:
        resource = found.resource
        status = _status(resource)
        if resource.get("doNotPerform") is True:
            raise UnusableError("medication request says not to give it", wrong=False)
        intent = text_of(resource, "intent")
        if intent in {"proposal", "plan", "option"}:
            raise UnusableError(f"medication request is only a {intent}", wrong=False)
        return self._drug(found, [resource.get("authoredOn")], None, (origin, status))

    def _administration(self, found: Found, origin: str) -> list[Event]:
        """A dose that was given; its amount is the event's number."""
        resource = found.resource
        status = _status(resource)
        period = resource.get("effectivePeriod")
        self._reading.refuse_backwards(period)
        when = [resource.get("effectiveDateTime"), start_of(period), end_of(period)]
        events = self._drug(found, when, end_of(period), (origin, status))
        return [self._with_dose(event, found) for event in events]

    def _with_dose(self, event: Event, found: Found) -> Event:
        dosage = found.resource.get("dosage")
        dose = dosage.get("dose") if isinstance(dosage, dict) else None
        if dose is None:
            return event
        try:
            amount, unit = quantity_of(dose)
            number = checked_number(event.code, finite(amount), unit)
        except UnusableError as error:
            self._reading.tally.note(f"a dose that is left out: {error.reason}", found.place)
            return event
        return replace(
            event, numeric_value=number.value, unit=number.unit, src_unit=number.src_unit
        )

    def _dispense(self, found: Found, origin: str) -> list[Event]:
        resource = found.resource
        status = _status(resource)
        when = [resource.get("whenHandedOver"), resource.get("whenPrepared")]
        return self._drug(found, when, None, (origin, status))

    def _statement(self, found: Found, origin: str) -> list[Event]:
        resource = found.resource
        status = _status(resource)
        asserted = resource.get("dateAsserted")
        period = resource.get("effectivePeriod")
        self._reading.refuse_backwards(period)
        when = [resource.get("effectiveDateTime"), start_of(period), end_of(period), asserted]
        return self._drug(found, when, asserted, (origin, status))

    def _drug(
        self, found: Found, when: Sequence[Any], known: Any, origin_and_status: tuple[str, str]
    ) -> list[Event]:
        subject = self._subjects.of(found.resource.get("subject"))
        times = self._reading.times(when, known)
        codes = self._medications.codes(found.resource)
        return self._events(found, subject, codes, times, origin_and_status)

    def _simple(
        self,
        found: Found,
        codes: list[str],
        when: Sequence[Any],
        known: Any,
        origin_and_status: tuple[str, str],
    ) -> list[Event]:
        resource = found.resource
        subject = self._subjects.of(resource.get("subject") or resource.get("patient"))
        times = self._reading.times(when, known)
        return self._events(found, subject, codes, times, origin_and_status)

    def _events(
        self,
        found: Found,
        subject: int,
        codes: list[str],
        times: Times,
        origin_and_status: tuple[str, str],
    ) -> list[Event]:
        """One event for each vocabulary's code, without a value."""
        origin, status = origin_and_status
        if not codes:
            raise UnusableError("no code")
        if is_local(codes[0]):
            self._reading.tally.note("code of a local vocabulary", found.place)
        return [
            Event(
                subject_id=subject,
                time=times.time,
                code=code,
                source=f"{origin}#{number}",
                available_time=times.available_time,
                status=status or None,
            )
            for number, code in enumerate(codes)
        ]


def refuse_withdrawn(status: str) -> None:
    """Refuse what its source has taken back.

    Raises:
        UnusableError: it has, or may have: the status is spelled as none of FHIR's is.
    """
    if status in WITHDRAWN:
        raise UnusableError(f"withdrawn ({status})", wrong=False)
    spelled = re.sub(r"[\s_-]+", "-", status.strip().lower()).replace("canceled", "cancelled")
    if spelled in WITHDRAWN | {"not-done", "cancelled"} and spelled != status:
        raise UnusableError(f"a status that seems to mean '{spelled}', but is spelled otherwise")


def concept_status(concept: Any) -> str:
    """The code of a status that is written as a concept; empty where there is none."""
    codes = codes_of(concept)
    return codes[0].partition("//")[2] if codes else ""


def start_of(period: Any) -> Any:
    """A period's beginning, as written."""
    return period.get("start") if isinstance(period, dict) else None


def end_of(period: Any) -> Any:
    """A period's end, as written."""
    return period.get("end") if isinstance(period, dict) else None


def _status(resource: Resource) -> str:
    """The resource's status, if something has happened.

    Raises:
        UnusableError: it was taken back, or nothing has happened.
    """
    status = text_of(resource, "status")
    refuse_withdrawn(status)
    name, nothing = _NOTHING_HAPPENED[resource["resourceType"]]
    if status in nothing:
        raise UnusableError(f"{name} is {status}", wrong=False)
    return status
