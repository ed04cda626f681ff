"""A door that asks a FHIR server again and again what has changed (`_lastUpdated`).

- Each type is asked from its newest change that was read, less an overlap: a change may become
  visible some minutes after the time it bears. What was read before is passed over.
- The newest change is remembered once everything of a round is kept, so that a kill, or a server
  that breaks off, costs nothing but reading again.
- What was deleted is read from the history, where the server has one.
- A Patient or Medication that a record refers to and that was never seen is asked for by its id, at
  the server's own address alone.
"""

import asyncio
import json
import logging
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from fedtwin_client.records.door import Keep
from fedtwin_client.records.fhir.events import FhirReader
from fedtwin_client.records.fhir.medications import Medications
from fedtwin_client.records.fhir.server.downloads import Folder
from fedtwin_client.records.fhir.server.export import check_types
from fedtwin_client.records.fhir.server.search import history, pages, search_url
from fedtwin_client.records.fhir.server.web import Clock, Web
from fedtwin_client.records.moments import read_moment, read_zone
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.records.resources import Found, resources_of
from fedtwin_client.records.source import Desk, Version
from fedtwin_client.records.subjects import Subjects, Systems, local_address
from fedtwin_protocol.errors import RecordError

_log = logging.getLogger(__name__)
_STATE: Final = "polling.json"
_UTC: Final = read_zone("UTC")
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Polled:
    """What a server is asked for.

    Attributes:
        types: resource types; Patients are asked for first.
        since: from when on, where nothing is remembered yet, as FHIR writes instants.
        systems: whose identifiers make the pseudonym; none: the server's own id.
        every_s: between two rounds.
        overlap: how much is asked for again.
        count: resources a page.
    """

    types: Sequence[str]
    since: str
    systems: Systems = None
    every_s: float = 60.0
    overlap: timedelta = timedelta(minutes=5)
    count: int = 200


class PollingDoor:
    """Asks one server.

    Args:
        name: of the server at this site.
        connect: opens HTTP to it, with a clock whose waiting ends when the door shuts.
        folder: for what is remembered.
        polled: what it is asked for.
        now: the time, aware.

    Raises:
        RecordError: a type is none.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[Clock], Web],
        folder: Folder,
        polled: Polled,
        now: Callable[[], datetime],
    ) -> None:
        check_types(polled.types)
        self.name = name
        self._connect = connect
        self._folder = folder
        self._types = sorted(dict.fromkeys(polled.types), key=lambda kind: kind != "Patient")
        self._asked = polled
        self._now = now
        self._seen: dict[tuple[str, str], str] = {}
        self._without_history: set[str] = set()
        self._learned: dict[str, Identity] = {}
        self._medications = Medications()
        self._stop = threading.Event()

    async def serve(self, desk: Desk, keep: Keep) -> None:
        """Ask until cancelled.

        Raises:
            RecordError: the server cannot be reached, refuses, or its pages cannot be followed.
        """
        self._stop.clear()
        try:
            web = await asyncio.to_thread(self._connect, Clock(now=self._now, wait=self._wait))
            with web:
                while True:
                    for kind in self._types:
                        await self.ask(kind, web, desk, keep)
                    await asyncio.sleep(self._asked.every_s)
        finally:
            self._stop.set()

    async def ask(self, kind: str, web: Web, desk: Desk, keep: Keep) -> None:
        """Read what has changed of one type, and remember it.

        Raises:
            RecordError: the server refuses, or nothing could be kept.
        """
        state = self._state()
        newest = state.get(kind, self._asked.since)
        since = _earlier(newest, self._asked.overlap)
        named = [("_lastUpdated", f"ge{since}"), ("_sort", "_lastUpdated")]
        found = pages(web, search_url(web.base, kind, named, self._asked.count))
        number = 0
        while (page := await asyncio.to_thread(next, found, None)) is not None:
            number += 1
            place = Place(f"{kind} page", number)
            changed = list(self._changed(page[0], place, desk))
            await self._keep(changed, web, desk, keep)
            newest = max([newest, *map(_updated, changed)], key=_instant)
        await self._read_deletions(kind, since, web, desk, keep)
        if newest != state.get(kind):
            self._folder.write(_STATE, json.dumps(self._state() | {kind: newest}).encode())
        self._forget(kind, _earlier(newest, 2 * self._asked.overlap))

    def _changed(self, page: dict[str, Any], place: Place, desk: Desk) -> Iterator[Found]:
        """The resources of a page that were not read before in this version."""
        for found in resources_of(page, place, desk.reading.tally):
            if found.resource["resourceType"] == "OperationOutcome":
                desk.reading.tally.note("the server says something of its search", found.place)
            elif not self._knows(found):
                yield found

    def _knows(self, found: Found) -> bool:
        key = (found.resource["resourceType"], str(found.resource.get("id")))
        return bool(_updated(found)) and self._seen.get(key) == _mark(found)

    async def _keep(self, found: list[Found], web: Web, desk: Desk, keep: Keep) -> None:
        """Read resources, make what they say durable, and then know them."""
        if not found and not desk.reading.tally.notes:
            return
        await asyncio.to_thread(self._fetch_missing, found, web, desk)
        subjects = self._subjects(desk)
        reader = FhirReader(desk.reading, subjects, self._medications)
        for one in found:
            if one.resource["resourceType"] in {"Patient", "Medication"} and not one.deleted:
                reader.learn(one)
        versions: list[Version] = []
        for one in found:
            versions += reader.read(one)
        await keep(versions, subjects.learned, reader.consents)
        self._learned |= subjects.learned
        for one in found:
            key = (one.resource["resourceType"], str(one.resource.get("id")))
            self._seen[key] = _mark(one)

    def _subjects(self, desk: Desk) -> Subjects:
        return Subjects(
            desk.pseudonyms,
            server=self.name,
            identifier_system=self._asked.systems,
            known=ChainMap(self._learned, dict(desk.known)),
        )

    def _fetch_missing(self, found: Sequence[Found], web: Web, desk: Desk) -> None:
        """Ask for Patients (where their numbers are needed) and Medications never seen."""
        known = {
            one.resource.get("id") for one in found if one.resource["resourceType"] == "Patient"
        }
        patients, drugs = set[str](), set[str]()
        for one in found:
            resource = one.resource
            if self._asked.systems:
                for member in ("subject", "patient"):
                    patients |= _own_addresses(resource.get(member), "Patient", web)
            drugs |= _own_addresses(resource.get("medicationReference"), "Medication", web)
        for address in sorted(patients):
            key = f"{self.name}:{address}"
            if address.partition("/")[2] not in known and not (
                key in self._learned or key in desk.known
            ):
                self._fetch(address, web, desk)
        for address in sorted(drugs):
            if not self._medications.known(address):
                self._fetch(address, web, desk)

    def _fetch(self, address: str, web: Web, desk: Desk) -> None:
        answer = web.get(f"{web.base}/{address}")
        if answer.status != 200:
            return  # what refers to it is then accounted for
        with suppress(RecordError):
            resource = answer.json()
            kind = address.partition("/")[0]
            if resource.get("resourceType") == kind:
                found = Found(resource=resource, place=Place(address, 1))
                subjects = self._subjects(desk)
                FhirReader(desk.reading, subjects, self._medications).learn(found)
                self._learned |= subjects.learned

    async def _read_deletions(
        self, kind: str, since: str, web: Web, desk: Desk, keep: Keep
    ) -> None:
        if kind in self._without_history:
            return
        bundles = await asyncio.to_thread(history, web, kind, since, self._asked.count)
        if bundles is None:
            self._without_history.add(kind)
            _log.warning(
                "%s has no history of %s: what is deleted there stays here until the next export",
                self.name,
                kind,
            )
            return
        number = 0
        while (page := await asyncio.to_thread(next, bundles, None)) is not None:
            number += 1
            place = Place(f"{kind} history page", number)
            # The versions that a history holds beside deletions were read by the search.
            entries = resources_of(page, place, Tally(quarantine=None))
            gone = [one for one in entries if one.deleted and not self._knows(one)]
            await self._keep(gone, web, desk, keep)

    def _state(self) -> dict[str, str]:
        data = self._folder.read(_STATE)
        try:
            value = {} if data is None else json.loads(data)
        except ValueError:
            value = {}
        found = value.items() if isinstance(value, dict) else ()
        return {kind: text for kind, text in found if isinstance(text, str) and _readable(text)}

    def _forget(self, kind: str, before: str) -> None:
        """Drop what is too old to come again."""
        limit = _instant(before)
        self._seen = {
            key: mark
            for key, mark in self._seen.items()
            if key[0] != kind or _instant(mark.partition(" ")[0]) >= limit
        }

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise RecordError(f"asking {self.name} was ended")


def _own_addresses(reference: Any, kind: str, web: Web) -> set[str]:
    """The address behind a reference, if it is the server's own."""
    written = reference.get("reference") if isinstance(reference, dict) else None
    if not isinstance(written, str):
        return set()
    if ":" in written and not written.startswith(f"{web.base}/"):
        return set()
    address = local_address(written, kind)
    own = address is not None and address.partition("/")[2].replace("-", "").replace(".", "")
    return {address} if address is not None and own and own.isalnum() else set()


def _updated(found: Found) -> str:
    """When a resource was last changed, as written; empty if that cannot be read."""
    meta = found.resource.get("meta")
    written = meta.get("lastUpdated") if isinstance(meta, dict) else None
    return written if isinstance(written, str) and _readable(written) else ""


def _mark(found: Found) -> str:
    """What tells one version of a resource from another."""
    meta = found.resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    return f"{_updated(found)} {version} {'deleted' if found.deleted else ''}"


def _readable(text: str) -> bool:
    return bool(text) and read_moment(text, _UTC) is not None


def _instant(text: str) -> datetime:
    moment = read_moment(text, _UTC) if text else None
    return _LONG_AGO if moment is None else moment.start


def _earlier(text: str, span: timedelta) -> str:
    return (_instant(text) - span).isoformat(timespec="milliseconds")
