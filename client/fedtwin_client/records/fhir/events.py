"""FHIR R4 resources into events, and Consents; which type is read how.

Every resource of a type that is read replaces what an earlier import made of it, also if its new
version makes nothing: a value that was withdrawn or spoilt must not live on. A resource that the
server has deleted takes out what was made of it. Other types are counted.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from fedtwin_client.records.consent import Consent, statements_of
from fedtwin_client.records.events import Event
from fedtwin_client.records.fhir.coded import CodedResources, refuse_withdrawn
from fedtwin_client.records.fhir.medications import Medications
from fedtwin_client.records.fhir.observation import observation_events
from fedtwin_client.records.fhir.patient import patient_events
from fedtwin_client.records.fhir.visits import visit_events
from fedtwin_client.records.moments import Moment, read_moment
from fedtwin_client.records.reading import Reading, UnusableError
from fedtwin_client.records.resources import Found, Resource, own_id, refuse_modified, text_of
from fedtwin_client.records.source import Version
from fedtwin_client.records.subjects import Subjects

READ = (
    "Patient",
    "Observation",
    "Condition",
    "MedicationRequest",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationStatement",
    "Procedure",
    "Encounter",
    "Immunization",
    "AllergyIntolerance",
    "DiagnosticReport",
    "Consent",
)
LOOKED_UP = ("Patient", "Medication")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class FhirReader:
    """Reads the resources of one server.

    Attributes:
        consents: the Consents that were read, by origin.
        medications: the Medications that were learned.
    """

    def __init__(
        self, reading: Reading, subjects: Subjects, medications: Medications | None = None
    ) -> None:
        """Start a reader.

        Args:
            reading: the import's rules and account.
            subjects: leads from references to pseudonyms.
            medications: that were learned before, or are found when they are asked for; none: of
                this reader alone.
        """
        self._reading = reading
        self._subjects = subjects
        self.consents: dict[str, Consent] = {}
        self.medications = Medications() if medications is None else medications
        self._readers: dict[str, Callable[[Found, str], list[Event]]] = {
            "Patient": self._patient,
            "Observation": self._observation,
            "Encounter": self._encounter,
            **CodedResources(reading, subjects, self.medications).readers,
        }

    def learn(self, found: Found) -> None:
        """Take note of a resource that others refer to: a Patient or a Medication."""
        if found.resource["resourceType"] == "Patient":
            self._subjects.learn(found)
        else:
            self.medications.learn(found)

    def read(self, found: Found) -> Iterator[Version]:
        """The new version of one record; nothing for types that are not read."""
        if found.deleted:
            yield from self._withdraw(found)
            return
        kind = found.resource["resourceType"]
        self._reading.tally.read[kind] += 1
        if kind == "Consent":
            self._read_consent(found)
            return
        reader = self._readers.get(kind)
        if reader is None:
            if kind not in LOOKED_UP:
                self._reading.tally.skip(f"resource type {kind[:40]} is not read", found.place)
            return
        origin = f"{self._reading.source}:{kind}/{own_id(found)}"
        events: list[Event] = []
        try:
            refuse_modified(found.resource)
            events = reader(found, origin)
        except UnusableError as error:
            self._reading.unusable(error, found.place, found.resource)
        yield Version(origin=origin, updated=self._updated(found.resource), events=events)

    def _withdraw(self, found: Found) -> Iterator[Version]:
        """What a resource's deletion at the server means: nothing is left of it here."""
        self._reading.tally.read["deletion"] += 1
        kind, updated = found.resource["resourceType"], self._updated(found.resource)
        origin = f"{self._reading.source}:{kind}/{own_id(found)}"
        if kind == "Consent":
            self.consents[origin] = Consent(updated=updated, subject_id=None, statements=[])
        elif kind in self._readers:
            yield Version(origin=origin, updated=updated, events=())
        else:
            reason = f"deletion of a {kind[:40]}, a type that is not read"
            self._reading.tally.skip(reason, found.place)

    def _read_consent(self, found: Found) -> None:
        """Keep what a Consent says, if no newer version of it was read."""
        origin = f"{self._reading.source}:Consent/{own_id(found)}"
        subject, statements = None, []
        try:
            statements = statements_of(found.resource, self._any_moment)
            if statements:
                subject = self._subjects.of(found.resource.get("patient"))
        except UnusableError as error:
            self._reading.unusable(error, found.place, found.resource)
        updated = self._updated(found.resource)
        before = self.consents.get(origin)
        if before is None or before.updated is None or (updated or _LONG_AGO) >= before.updated:
            self.consents[origin] = Consent(
                updated=updated, subject_id=subject, statements=statements
            )

    def _any_moment(self, written: Any) -> Moment:
        """A time of a consent, which may lie ahead."""
        moment = read_moment(written, self._reading.zone) if isinstance(written, str) else None
        if moment is None:
            raise UnusableError("a time that cannot be read")
        return moment

    def _updated(self, resource: Resource) -> datetime | None:
        meta = resource.get("meta")
        written = meta.get("lastUpdated") if isinstance(meta, dict) else None
        try:
            return self._reading.moment(written).start if written else None
        except UnusableError:
            return None

    def _patient(self, found: Found, origin: str) -> list[Event]:
        if not self._subjects.has_learned(found):
            self._subjects.learn(found)
        return patient_events(found, self._subjects, origin, self._reading)

    def _observation(self, found: Found, origin: str) -> list[Event]:
        refuse_withdrawn(text_of(found.resource, "status"))
        subject = self._subjects.of(found.resource.get("subject"))
        return observation_events(found, subject, origin, self._reading)

    def _encounter(self, found: Found, origin: str) -> list[Event]:
        return visit_events(found, self._subjects, origin, self._reading)
