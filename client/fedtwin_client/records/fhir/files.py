"""FHIR R4 files as a source: NDJSON, bundles, single resources, also gzipped."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedtwin_client.records.blocks import Block
from fedtwin_client.records.consent import Consent
from fedtwin_client.records.fhir.blocks import FhirBlocks
from fedtwin_client.records.fhir.events import FhirReader
from fedtwin_client.records.fhir.medications import Medications
from fedtwin_client.records.lines import OpenFile, Progress, begins_with, read_lines
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.resources import (
    Found,
    explained,
    find_files,
    is_lines,
    mentions,
    read_resources,
)
from fedtwin_client.records.source import (
    Desk,
    OpenSource,
    ReadAgainError,
    Version,
    check_source_name,
)
from fedtwin_client.records.subjects import Subjects, Systems
from fedtwin_protocol.errors import RecordError


def fhir_files(
    paths: Sequence[Path],
    server: str,
    identifier_system: Systems,
    progress: Progress | None = None,
) -> OpenSource:
    """FHIR records in files.

    Args:
        paths: files and folders.
        server: a name for where the records come from; ids of two servers do not meet.
        identifier_system: whose identifier makes the pseudonym, of several the first that a patient
            has; none: the server's own id.
        progress: is told how many bytes more of the files were read.

    Raises:
        RecordError: there is no such file, or the name is none.
    """
    check_source_name(server)
    files = find_files(paths)
    return lambda desk: FhirFiles(files, server, identifier_system, desk, progress=progress)


class FhirFiles:
    """Files of one server; a block source.

    Whom references mean is found out before anything is read, unless every reference means the
    patient whose id it names and no Patient has links. Where an import may start anew, links are
    looked for only in files that begin with Patients; who has one elsewhere is met late.
    Medications are looked for when the first resource refers to one.

    Attributes:
        title: what is imported, in words.
        learned: addresses of the patients.
        consents: what patients said of research.
    """

    def __init__(
        self,
        files: Sequence[Path],
        server: str,
        identifier_system: Systems,
        desk: Desk,
        *,
        opened: OpenFile | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.title = f"{len(files)} FHIR files from {server}"
        self._files = files
        self._opened = opened
        self._may_start_anew = desk.may_start_anew
        self._must_hold = opened is None  # a server may have nothing new, and says so in no line
        self._reading = desk.reading
        desk.reading.tally.tell_apart(files)
        self._progress = progress
        self._subjects = Subjects(
            desk.pseudonyms,
            server=server,
            identifier_system=identifier_system,
            known=desk.known,
        )
        medications = Medications(lambda: self._all("Medication"))
        self._reader = FhirReader(desk.reading, self._subjects, medications)
        self._learns_ahead = not (all(map(is_lines, files)) and self._subjects.by_own_id)

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
        self._learn(self._files)
        for file in self._files:
            for found in read_resources(file, self._reading.tally, self._opened, self._progress):
                yield from self._reader.read(found)
        self._refuse_nothing()

    def blocks(self) -> Iterator[Block]:
        """What `versions` yields; plain Observations in files of lines are read as columns.

        Raises:
            RecordError: as `versions`.
            ReadAgainError: a link that was not looked for; only where the desk allows that.
        """
        wary = self._may_start_anew
        learned = self._learn(
            [file for file in self._files if not wary or self._has_patients(file)]
        )
        read = self._read_wary if wary and not learned else self._reader.read
        blocks = FhirBlocks(self._reading, self._subjects, read)
        try:
            for file in self._files:
                if not is_lines(file):
                    yield from blocks.one_by_one(
                        read_resources(file, self._reading.tally, self._opened, self._progress)
                    )
                    continue
                with explained(file):
                    for lines in read_lines(file, self._progress, opened=self._opened):
                        yield from blocks.read(lines, file)
        finally:
            blocks.close()
        self._refuse_nothing()

    def _learn(self, files: Sequence[Path]) -> bool:
        """Learn all Patients ahead, if that is necessary as far as some files tell."""
        necessary = self._learns_ahead or any(self._links(files))
        if necessary:
            for found in self._all("Patient"):
                self._reader.learn(found)
        return necessary

    def _links(self, files: Sequence[Path]) -> Iterator[bool]:
        """Whether they have links, of Patients that may: who is one person must be known first."""
        for file in files:
            for found in mentions(file, ("Patient",), self._opened, with_member="link"):
                yield bool(found.resource.get("link"))

    def _has_patients(self, file: Path) -> bool:
        """Whether a file begins with Patients, as far as can be seen at once."""
        with explained(file):
            return begins_with(file, b'"Patient"', self._opened)

    def _read_wary(self, found: Found) -> Iterator[Version]:
        """As the reader of one, as long as no Patient has links."""
        if found.resource["resourceType"] == "Patient" and found.resource.get("link"):
            raise ReadAgainError
        return self._reader.read(found)

    def _all(self, kind: str) -> Iterator[Found]:
        for file in self._files:
            yield from mentions(file, (kind,), self._opened)

    def _refuse_nothing(self) -> None:
        tally = self._reading.tally
        if not tally.read and (tally.reasons or self._must_hold):
            listed = ", ".join(str(file) for file in self._files[:5])
            raise RecordError(
                f"found no FHIR resource in {listed}{tally.commonest()}; nothing was imported"
            )
