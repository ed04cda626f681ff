"""What was fetched from a FHIR server, as a source: read by the reader of FHIR files.

Also the server's own words: errors and warnings that came with an export or a search are put aside,
so that a person sees them, and deletions take out what was imported before.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Final

from fedtwin_client.records.blocks import Block
from fedtwin_client.records.consent import Consent
from fedtwin_client.records.fhir.files import FhirFiles
from fedtwin_client.records.fhir.server.downloads import Folder
from fedtwin_client.records.fhir.server.web import outcome_text
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Desk, OpenSource, Version
from fedtwin_client.records.subjects import Systems
from fedtwin_protocol.errors import RecordError

LEFT_OUT: Final = "the server could not export something"
"""The reason under which the server's own errors are put aside."""
WARNED: Final = "the server warns of what it sent"
_NOTHING: Final = (
    "the server sent nothing: nothing has changed, or the group, types or filters are wrong"
)


def fetched(folder: Folder, name: str, systems: Systems) -> OpenSource:
    """The downloads of one server.

    Args:
        folder: with files `output-*`, `deleted-*` and `error-*`.
        name: of the server at this site.
        systems: whose identifiers make the pseudonym; none: the server's own id.
    """
    return lambda desk: Fetched(folder, name, systems, desk)


class Fetched:
    """Reads the downloads of one server.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(self, folder: Folder, name: str, systems: Systems, desk: Desk) -> None:
        self._folder = folder
        self._tally = desk.reading.tally
        files = [*folder.files("output-*.ndjson"), *folder.files("deleted-*.ndjson")]
        self._inner = FhirFiles(files, name, systems, desk, opened=folder.open)
        self._name = name
        self._count = len(files)
        self.title = f"{len(files)} files fetched from the FHIR server {name}"

    @property
    def learned(self) -> Mapping[str, Identity]:
        """Addresses under which the files speak of patients."""
        return self._inner.learned

    @property
    def consents(self) -> Mapping[str, Consent]:
        """The Consents that were read, by origin."""
        return self._inner.consents

    def versions(self) -> Iterator[Version]:
        """Every resource of a type that is read, and deletions.

        Raises:
            RecordError: a file cannot be read, or none holds a resource.
        """
        self._read_errors()
        yield from self._inner.versions()

    def blocks(self) -> Iterator[Block]:
        """What `versions` yields, as blocks.

        Raises:
            RecordError: as `versions`.
        """
        self._read_errors()
        yield from self._inner.blocks()

    def _read_errors(self) -> None:
        if not self._count:
            self._tally.note(_NOTHING, Place(self._name, 0))
        for path in self._folder.files("error-*.ndjson"):
            try:
                with self._folder.open(path) as file:
                    for number, line in enumerate(file, start=1):
                        if line.strip():
                            self._put_aside(line.decode("utf-8", "replace"), path.name, number)
            except OSError as error:
                raise RecordError(f"cannot read {path}: {error.strerror}") from error

    def _put_aside(self, text: str, name: str, number: int) -> None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        issues = value.get("issue") if isinstance(value, dict) else None
        severities = {
            issue.get("severity") if isinstance(issue, dict) else None
            for issue in (issues if isinstance(issues, list) else [None])
        }
        if severities <= {"information"}:
            said = outcome_text(value)[:120]
            self._tally.note(f"the server says{said}", Place(name, number))
        else:
            reason = WARNED if severities <= {"information", "warning"} else LEFT_OUT
            self._tally.put_aside(reason, Place(name, number), text)
