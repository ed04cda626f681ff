"""One message of a stream into versions: a data point, FHIR, or a plain value.

A plain value is `{"code": "LOINC//8867-4", "value": 71, "unit": "/min", "time":
"2026-03-01T08:30:00Z"}`, perhaps with `id`, `patient` and `comparator`. A message of another form,
or that no reader can use, is put aside as a whole; whatever it holds, reading it raises nothing.
"""

import hashlib
import json
import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, cast

from fedtwin_client.records.codes.concepts import standard_code
from fedtwin_client.records.consent import Consent
from fedtwin_client.records.events import Event
from fedtwin_client.records.fhir.events import FhirReader
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import UnusableError, checked_number, finite
from fedtwin_client.records.report import Place
from fedtwin_client.records.resources import Found, parse_json, resources_of
from fedtwin_client.records.source import Desk, Version
from fedtwin_client.records.subjects import Subjects
from fedtwin_client.records.wearables.openmhealth import PointReader
from fedtwin_client.records.whole import Whole

_CODE = re.compile(r"[A-Za-z0-9_.\-]{1,60}//[^\s#]{1,120}\Z")
_COMPARATORS = ("<", "<=", ">", ">=")  # compared, not looked up: a message may hold anything
_BARE_LOINC = re.compile(r"\d{1,7}-\d\Z")


class Read(NamedTuple):
    """What one message makes, as `keep` takes it."""

    versions: list[Version]
    learned: Mapping[str, Identity]
    consents: Mapping[str, Consent]


class TopicSubjects(Subjects):
    """The one patient that a message's topic names."""

    def __init__(self, desk: Desk, server: str, identity: Identity) -> None:
        super().__init__(
            desk.pseudonyms, server=server, identifier_system=identity.system, known=desk.known
        )
        self._identity_of_topic = identity

    def of(self, reference: Any) -> int:
        """The topic's patient, if the resource does not name another.

        Raises:
            UnusableError: it does.
        """
        if reference is not None:
            try:
                named = super().of(reference)
            except UnusableError:
                named = None  # a reference that only the sender knows says nothing against it
            if named not in {None, self._pseudonyms.of(self._identity_of_topic)}:
                raise UnusableError("the message names another patient than its topic")
        return self._pseudonyms.of(self._identity_of_topic)

    def learn(self, found: Found) -> None:
        """Nothing: what a stream says of who is one person does not count."""

    def of_patient(self, found: Found) -> int:
        """Refuse: a stream of values says nothing of who patients are."""
        raise UnusableError("a Patient in a stream whose topic names the patient", wrong=False)


class MessageReader:
    """Reads messages of one door."""

    def __init__(self, desk: Desk, server: str, system: str | None) -> None:
        """Start a reader.

        Args:
            desk: the door's own.
            server: the door's name, of FHIR ids that are its own.
            system: whose numbers name the patients; none: this door's alone.
        """
        self._desk = desk
        self._server = server
        self._system = system
        self._learned: dict[str, Identity] = {}

    def read(self, payload: bytes, place: Place, patient: str | None, now: datetime) -> Read:
        """All that one message makes; what cannot be used is accounted for.

        Args:
            payload: the message.
            place: for the account; its file names the door, never a patient.
            patient: whom the topic names; none if the message does.
            now: nothing may lie after it.
        """
        tally = Whole(self._desk.reading.tally)
        desk = replace(self._desk, reading=self._desk.reading.at(now, tally))
        read = self._read(desk, payload, place, patient)
        tally.end(place, partial(payload.decode, "utf-8", "surrogateescape"), patient)
        return read

    def _read(self, desk: Desk, payload: bytes, place: Place, patient: str | None) -> Read:
        value = parse_json(payload)
        if not isinstance(value, dict):
            desk.reading.tally.wrong("not a JSON object", place)
            return Read([], {}, {})
        if "resourceType" in value:
            return self._fhir(desk, value, place, patient)
        if "code" in value and "header" not in value:
            return Read(self._plain(desk, value, place, patient), {}, {})
        points = PointReader(desk.reading, desk.pseudonyms, self._system or self._server, patient)
        return Read(list(points.read(value, place)), {}, {})

    def _fhir(self, desk: Desk, value: dict[str, Any], place: Place, patient: str | None) -> Read:
        if patient is not None:
            identity = Identity(self._system or self._server, patient)
            subjects: Subjects = TopicSubjects(desk, self._server, identity)
        else:
            subjects = Subjects(
                desk.pseudonyms,
                server=self._server,
                identifier_system=self._system,
                known=ChainMap(self._learned, cast("dict[str, Identity]", desk.known)),
                joins=False,
            )
        reader = FhirReader(desk.reading, subjects)
        found = list(resources_of(value, place, desk.reading.tally))
        for one in found:
            if one.resource["resourceType"] in {"Patient", "Medication"}:
                reader.learn(one)
        versions = [version for one in found for version in reader.read(one)]
        if patient is None:
            self._learned |= subjects.learned
        return Read(versions, subjects.learned if patient is None else {}, reader.consents)

    def _plain(
        self, desk: Desk, value: dict[str, Any], place: Place, patient: str | None
    ) -> list[Version]:
        desk.reading.tally.read["values"] += 1
        try:
            return [self._plain_version(desk, value, patient)]
        except UnusableError as error:
            desk.reading.unusable(error, place, value)
            return []

    def _plain_version(self, desk: Desk, value: dict[str, Any], patient: str | None) -> Version:
        subject = desk.pseudonyms.of(self._identity(value, patient))
        code = _code(value.get("code"))
        times = desk.reading.times([value.get("time")], value.get("available_time"))
        unit, comparator = value.get("unit"), value.get("comparator")
        if unit is not None and not isinstance(unit, str):
            raise UnusableError("a unit that is not text")
        if comparator is not None and comparator not in _COMPARATORS:
            raise UnusableError("a comparator that is not known")
        number = checked_number(code, finite(value.get("value")), unit)
        own = value.get("id")
        said = [subject, own] if isinstance(own, str | int) else [subject, code, str(times.time)]
        digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]
        origin = f"{desk.reading.source}:value/{digest}"
        event = Event(
            subject_id=subject,
            time=times.time,
            code=code,
            numeric_value=number.value,
            available_time=times.available_time,
            unit=number.unit,
            src_unit=number.src_unit,
            comparator=comparator,
            source=f"{origin}#0",
        )
        return Version(origin=origin, updated=None, events=[event])

    def _identity(self, value: dict[str, Any], patient: str | None) -> Identity:
        written = value.get("patient")
        named = str(written).strip() if isinstance(written, str | int) else ""
        if patient is not None and named and named != patient:
            raise UnusableError("the message names another patient than its topic")
        if not (patient or named):
            raise UnusableError("no patient")
        return Identity(self._system or self._server, patient or named)


def _code(written: Any) -> str:
    if isinstance(written, str) and _BARE_LOINC.match(written):
        return f"LOINC//{written}"
    if not isinstance(written, str) or not _CODE.match(written):
        raise UnusableError("a code that is not of the form LOINC//8867-4")
    return standard_code(written)
