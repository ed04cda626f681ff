"""Posted FHIR resources, from parsed JSON to what is kept and what the sender is told.

Observations and Patients are taken; a Patient within a Bundle says whose the Observations are.
Nothing that is answered names a patient: reasons are the reader's own words.
"""

import hashlib
import json
import re
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple, cast

from fedtwin_client.records.door import Keep
from fedtwin_client.records.fhir.answers import RefusalError, outcome
from fedtwin_client.records.fhir.events import FhirReader
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.report import Place
from fedtwin_client.records.resources import Found, parse_json
from fedtwin_client.records.source import Desk, Version
from fedtwin_client.records.subjects import Subjects
from fedtwin_client.records.witness import Witness

# Compared, not looked up: what is posted may hold anything.
_TAKEN = ("Observation", "Patient")
_BUNDLES = ("transaction", "batch", "collection")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z")


class Kept(NamedTuple):
    """Where a record is known by, and what is worth a note."""

    address: str
    remarks: Sequence[str]


class _Read(NamedTuple):
    versions: list[Version]
    kept: Kept
    wrong: Sequence[str]


class Intake:
    """Reads and keeps what one door is posted."""

    def __init__(self, desk: Desk, server: str, system: str | None, keep: Keep) -> None:
        """Start with what the desk knows.

        Args:
            desk: the door's own.
            server: the door's name.
            system: whose identifier makes the pseudonym; none: the sender's own Patient id.
            keep: makes things durable.
        """
        self._desk = desk
        self._server = server
        self._system = system
        self._keep = keep
        self._learned: dict[str, Identity] = {}

    @staticmethod
    def parsed(body: bytes) -> dict[str, Any]:
        """A posted resource.

        Raises:
            RefusalError: it is no FHIR resource.
        """
        value = parse_json(body)
        if not isinstance(value, dict) or not isinstance(value.get("resourceType"), str):
            raise RefusalError(400, "structure", "expected a FHIR resource in JSON, found none")
        return value

    async def one(self, resource: dict[str, Any], now: datetime) -> Kept:
        """Keep one Observation.

        Raises:
            RefusalError: it makes no event.
            RecordError: it could not be kept.
        """
        subjects = self._subjects()
        read = self._read(Found(resource=resource, place=Place(self._server, 1)), subjects, now)
        if read.wrong:
            await self._keep(())
            raise RefusalError(422, "processing", *read.wrong)
        await self._keep(read.versions)
        return read.kept

    async def bundle(self, bundle: dict[str, Any], now: datetime) -> dict[str, Any]:
        """Keep a Bundle, and say of each entry what became of it.

        Raises:
            RefusalError: it is none that is taken, or one entry of a transaction cannot be used.
            RecordError: it could not be kept.
        """
        kind = bundle.get("type")
        if kind not in _BUNDLES:
            raise RefusalError(
                422, "invalid", f"expected a Bundle of type {', '.join(sorted(_BUNDLES))}"
            )
        entries = bundle.get("entry", [])
        if not isinstance(entries, list):
            raise RefusalError(422, "invalid", "expected a list as the Bundle's entry")
        subjects = self._subjects()
        found = [_entry(entry, Place(self._server, at)) for at, entry in enumerate(entries, 1)]
        reader = FhirReader(self._desk.reading, subjects)
        for one in found:
            if isinstance(one, Found) and one.resource["resourceType"] == "Patient":
                reader.learn(one)
        reads = [one if isinstance(one, str) else self._read(one, subjects, now) for one in found]
        versions = [
            version
            for read in reads
            if isinstance(read, _Read) and not read.wrong
            for version in read.versions
        ]
        if kind != "batch":
            await self._refuse_parts(reads)
        await self._keep(versions, dict(subjects.learned))
        self._learned |= subjects.learned
        return {
            "resourceType": "Bundle",
            "type": "batch-response" if kind == "batch" else "transaction-response",
            "entry": [{"response": _response(read)} for read in reads],
        }

    async def _refuse_parts(self, reads: Sequence["_Read | str"]) -> None:
        wrong = []
        for number, read in enumerate(reads, start=1):
            reasons = [read] if isinstance(read, str) else read.wrong
            wrong += [f"entry {number}: {reason}" for reason in reasons]
        if wrong:
            await self._keep(())
            raise RefusalError(422, "processing", *wrong, "nothing of the Bundle was kept")

    def _subjects(self) -> Subjects:
        return Subjects(
            self._desk.pseudonyms,
            server=self._server,
            identifier_system=self._system,
            known=ChainMap(self._learned, cast("dict[str, Identity]", self._desk.known)),
            joins=False,
        )

    def _read(self, found: Found, subjects: Subjects, now: datetime) -> _Read:
        witness = Witness(self._desk.reading.tally)
        reader = FhirReader(self._desk.reading.at(now, witness), subjects)
        resource = found.resource
        own = resource.get("id")
        if own is None:
            own = _made_id(resource)
            found = replace(found, resource=resource | {"id": own})
        kind = resource["resourceType"]
        if not isinstance(own, str) or not _ID.match(own):
            witness.put_aside("an id that is none", found.place, resource)
            return _Read([], Kept(kind, ()), ["an id that is none (FHIR R4, datatype id)"])
        versions = list(reader.read(found))
        wrong = [remark.reason for remark in witness.remarks if remark.kind == "wrong"]
        others = [remark.reason for remark in witness.remarks if remark.kind != "wrong"]
        made = any(version.events for version in versions)
        if wrong and made:
            others, wrong = [f"not used: {reason}" for reason in wrong] + others, []
        others.append("kept" if made else "it makes no value here")
        return _Read(versions, Kept(f"{kind}/{own}", others), wrong)


def _entry(entry: Any, place: Place) -> "Found | str":
    """The resource of a Bundle's entry, or why it is not taken."""
    if not isinstance(entry, dict) or not isinstance(entry.get("resource"), dict):
        return "an entry without a resource"
    resource = entry["resource"]
    if resource.get("resourceType") not in _TAKEN:
        return "expected an Observation or a Patient"
    request = entry.get("request")
    method = request.get("method", "POST") if isinstance(request, dict) else "POST"
    if method not in ("POST", "PUT"):
        return "expected POST or PUT as the entry's method"
    address = entry.get("fullUrl")
    address = address if isinstance(address, str) else ""
    if resource.get("id") is None and address.startswith("urn:uuid:"):
        resource = resource | {"id": _made_id(resource)}
    return Found(resource=resource, place=place, address=address)


def _made_id(resource: dict[str, Any]) -> str:
    """An id for a resource without one: by its identifiers, or else by all that it says."""
    identifiers = resource.get("identifier")
    said = identifiers if isinstance(identifiers, list) and identifiers else resource
    content = json.dumps(said, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:40]


def _response(read: "_Read | str") -> dict[str, Any]:
    if isinstance(read, str):
        return {"status": "422", "outcome": outcome("error", "processing", read)}
    if read.wrong:
        return {"status": "422", "outcome": outcome("error", "processing", *read.wrong)}
    return {
        "status": "201",
        "location": read.kept.address,
        "outcome": outcome("information", "informational", *read.kept.remarks),
    }
