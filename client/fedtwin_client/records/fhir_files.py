"""FHIR R4 files as a source: NDJSON, bundles, single resources, also gzipped."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.fhir import LOOKED_UP, FhirReader
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.resources import find_files, mentions, read_resources
from fedtwin_client.records.source import Desk, OpenSource, Version
from fedtwin_client.records.subjects import Subjects
from fedtwin_protocol.errors import RecordError

_SERVER = re.compile(r"[a-z0-9][a-z0-9-]{0,60}\Z")


def fhir_files(paths: Sequence[Path], server: str, identifier_system: str | None) -> OpenSource:
    """FHIR records in files.

    Args:
        paths: files and folders.
        server: a name for where the records come from; ids of two servers do not meet.
        identifier_system: whose identifier makes the pseudonym; none: the server's own id.

    Raises:
        RecordError: there is no such file, or the name is none.
    """
    check_server(server)
    files = find_files(paths)
    return lambda desk: FhirFiles(files, server, identifier_system, desk)


def check_server(server: str) -> None:
    """Refuse a name of a source that could not stand in an event's origin.

    Raises:
        RecordError: it holds something else than a-z, 0-9 and '-'.
    """
    if not _SERVER.match(server):
        raise RecordError(f"expected a server name of a-z, 0-9 and '-', found '{server}'")


class FhirFiles:
    """Reads files twice: first who and what the resources refer to, then all of them.

    Attributes:
        title: what is imported, in words.
        learned: addresses of the patients.
        consents: what patients said of research.
    """

    def __init__(
        self, files: Sequence[Path], server: str, identifier_system: str | None, desk: Desk
    ) -> None:
        self.title = f"{len(files)} FHIR files from {server}"
        self._files = files
        self._tally = desk.reading.tally
        self._subjects = Subjects(
            desk.pseudonyms,
            server=server,
            identifier_system=identifier_system,
            known=desk.known,
        )
        self._reader = FhirReader(desk.reading, self._subjects)

    @property
    def learned(self) -> Mapping[str, Identity]:
        """Addresses under which the files speak of patients."""
        return self._subjects.learned

    @property
    def consents(self) -> Mapping[str, Consent]:
        """The Consents that were read, by origin."""
        return self._reader.consents

    def versions(self) -> Iterator[Version]:
        """Every resource of a type that is read.

        Raises:
            RecordError: a file cannot be read, or none holds a resource.
        """
        for file in self._files:
            for found in mentions(file, LOOKED_UP):
                self._reader.learn(found)
        for file in self._files:
            for found in read_resources(file, self._tally):
                yield from self._reader.read(found)
        if self._tally.reasons and not self._tally.read:
            listed = ", ".join(str(file) for file in self._files[:5])
            raise RecordError(
                f"found no FHIR resource in {listed}{self._tally.commonest()}; nothing was imported"
            )
