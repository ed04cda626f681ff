"""FHIR R4 resources into events: Patient, Observation, Condition, MedicationRequest; and Consent.

Every resource of these types replaces what an earlier import made of it, also if its new version
makes nothing: a value that was withdrawn or spoilt must not live on. Other types are counted.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from fedtwin_client.records.codes import codes_of, is_local
from fedtwin_client.records.consent import Consent, statements_of
from fedtwin_client.records.events import BIRTH, DEATH, SEX, Event
from fedtwin_client.records.moments import Moment, read_moment
from fedtwin_client.records.observation import observation_events
from fedtwin_client.records.reading import Reading, Times, UnusableError
from fedtwin_client.records.resources import Found, Resource, list_of, own_id, text_of
from fedtwin_client.records.source import Version
from fedtwin_client.records.subjects import Subjects, local_address

READ = ("Patient", "Observation", "Condition", "MedicationRequest", "Consent")
_LOOKED_UP = ("Patient", "Medication")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class FhirReader:
    """Reads the resources of one server.

    Attributes:
        consents: the Consents that were read, by origin.
    """

    def __init__(
        self,
        reading: Reading,
        subjects: Subjects,
        find_medications: Callable[[], Iterable[Found]] = tuple,
    ) -> None:
        """Start a reader.

        Args:
            reading: the import's rules and account.
            subjects: leads from references to pseudonyms.
            find_medications: all Medications that requests may refer to; asked once, at the first
                reference that was not learned.
        """
        self._find_medications: Callable[[], Iterable[Found]] | None = find_medications
        self._reading = reading
        self._subjects = subjects
        self.consents: dict[str, Consent] = {}
        self._medications: dict[str, list[str]] = {}
        self._doors: dict[str, Callable[[Found, str], list[Event]]] = {
            "Patient": self._patient,
            "Observation": self._observation,
            "Condition": self._condition,
            "MedicationRequest": self._medication_request,
        }

    def learn(self, found: Found) -> None:
        """Take note of a resource that others refer to: a Patient or a Medication."""
        if found.resource["resourceType"] == "Patient":
            self._subjects.learn(found)
            return
        codes = codes_of(found.resource.get("code"))
        for reference in (f"Medication/{found.resource.get('id')}", found.address):
            address = local_address(reference, "Medication")
            if address is not None:
                self._medications[address] = codes

    def read(self, found: Found) -> Iterator[Version]:
        """The new version of one record; nothing for types that are not read."""
        kind = found.resource["resourceType"]
        self._reading.tally.read[kind] += 1
        if kind == "Consent":
            self._read_consent(found)
            return
        door = self._doors.get(kind)
        if door is None:
            if kind not in _LOOKED_UP:
                self._reading.tally.skip(f"resource type {kind[:40]} is not read", found.place)
            return
        origin = f"{self._reading.source}:{kind}/{own_id(found)}"
        events: list[Event] = []
        try:
            events = door(found, origin)
        except UnusableError as error:
            self._reading.unusable(error, found.place, found.resource)
        yield Version(origin=origin, updated=self._updated(found.resource), events=events)

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
        resource, place = found.resource, found.place
        self._subjects.learn(found)
        subject = self._subjects.of_patient(found)
        links = resource.get("link")
        if isinstance(links, list) and any(_replaced(link) for link in links):
            raise UnusableError("a Patient that another one replaces")
        events = []
        if resource.get("birthDate"):
            born = self._reading.moment(resource["birthDate"])
            if born.precision in {"year", "month"}:
                self._reading.tally.note(f"birth known only to the {born.precision}", place)
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
            self._reading.tally.note("a Patient without a birth date", place)
        if resource.get("gender"):
            sex = str(resource["gender"])
            events.append(
                Event(
                    subject_id=subject, time=None, code=SEX, source=f"{origin}#sex", text_value=sex
                )
            )
        return events + self._death(found, subject, origin)

    def _death(self, found: Found, subject: int, origin: str) -> list[Event]:
        if not found.resource.get("deceasedDateTime"):
            if found.resource.get("deceasedBoolean") is True:
                self._reading.tally.note("a death without a date", found.place)
            return []
        died = self._reading.moment(found.resource["deceasedDateTime"])
        time = min(died.end, self._reading.now)
        return [
            Event(
                subject_id=subject,
                time=time,
                code=DEATH,
                source=f"{origin}#death",
                available_time=time,
            )
        ]

    def _observation(self, found: Found, origin: str) -> list[Event]:
        _refuse_withdrawn(text_of(found.resource, "status"))
        subject = self._subjects.of(found.resource.get("subject"))
        return observation_events(found, subject, origin, self._reading)

    def _condition(self, found: Found, origin: str) -> list[Event]:
        resource = found.resource
        verification = _status(resource.get("verificationStatus"))
        _refuse_withdrawn(verification)
        subject = self._subjects.of(resource.get("subject"))
        period = resource.get("onsetPeriod")
        recorded = resource.get("recordedDate")
        times = self._reading.times(
            [
                resource.get("onsetDateTime"),
                period.get("start") if isinstance(period, dict) else None,
                recorded,
            ],
            recorded,
        )
        status = _status(resource.get("clinicalStatus")) or verification
        return self._coded(found, subject, codes_of(resource.get("code")), times, (origin, status))

    def _medication_request(self, found: Found, origin: str) -> list[Event]:
        resource = found.resource
        status = text_of(resource, "status")
        _refuse_withdrawn(status)
        if status in {"cancelled", "draft"}:
            raise UnusableError(f"medication request is {status}", wrong=False)
        if resource.get("doNotPerform") is True:
            raise UnusableError("medication request says not to give it", wrong=False)
        intent = text_of(resource, "intent")
        if intent in {"proposal", "plan", "option"}:
            raise UnusableError(f"medication request is only a {intent}", wrong=False)
        subject = self._subjects.of(resource.get("subject"))
        times = self._reading.times([resource.get("authoredOn")])
        codes = self._medication_codes(resource)
        return self._coded(found, subject, codes, times, (origin, status))

    def _medication_codes(self, resource: Resource) -> list[str]:
        reference = resource.get("medicationReference")
        written = reference.get("reference") if isinstance(reference, dict) else None
        if not isinstance(written, str):
            return codes_of(resource.get("medicationCodeableConcept"))
        for contained in list_of(resource, "contained"):
            if isinstance(contained, dict) and written == f"#{contained.get('id')}":
                return codes_of(contained.get("code"))
        address = local_address(written, "Medication")
        if address not in self._medications and self._find_medications is not None:
            find, self._find_medications = self._find_medications, None
            for found in find():
                self.learn(found)
        if address not in self._medications:
            raise UnusableError("refers to a Medication that is not in this import")
        return self._medications[address]

    def _coded(
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


def _refuse_withdrawn(status: str) -> None:
    if status in {"entered-in-error", "refuted"}:
        raise UnusableError(f"withdrawn ({status})", wrong=False)


def _status(concept: Any) -> str:
    codes = codes_of(concept)
    return codes[0].partition("//")[2] if codes else ""


def _replaced(link: Any) -> bool:
    return isinstance(link, dict) and link.get("type") == "replaced-by"
