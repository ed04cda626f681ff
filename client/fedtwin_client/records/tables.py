"""A CSV or Parquet table as a source, by the hospital's mapping; all of it is one record."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.events import Event
from fedtwin_client.records.mapping import TableMapping
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.row_events import RowReader
from fedtwin_client.records.rows import read_rows
from fedtwin_client.records.source import Desk, Version
from fedtwin_protocol.errors import RecordError


class TableReader:
    """Reads one table by one mapping; all of it is one record.

    Attributes:
        title: what is imported, in words.
        learned: nothing: tables name patients by their own number.
        consents: none.
    """

    learned: Mapping[str, Identity] = MappingProxyType({})
    consents: Mapping[str, Consent] = MappingProxyType({})

    def __init__(self, path: Path, mapping: TableMapping, desk: Desk) -> None:
        """Start a reader.

        Args:
            path: the table.
            mapping: what its columns mean.
            desk: the import's rules, account and pseudonyms.
        """
        self.title = f"{path.name} as {mapping.name}"
        self.origin = f"{desk.reading.source}/{path.name}".replace("#", "%23")
        self._path = path
        self._mapping = mapping
        self._reading = desk.reading
        self._rows = RowReader(mapping, desk, drop_repeats=True)
        self._used = 0

    def versions(self) -> Iterator[Version]:
        """The table's one version.

        Raises:
            RecordError: the file cannot be read, lacks a column that the mapping names, or has no
                row that can be used.
        """
        yield Version(origin=self.origin, updated=None, events=self._events())
        if not self._used:
            raise RecordError(
                f"found no row in {self._path} that can be used{self._reading.tally.commonest()}; "
                "nothing was imported, and what came from this file before is still there"
            )

    def _events(self) -> Iterator[Event]:
        for row in read_rows(self._path, self._mapping, self._reading.tally):
            try:
                events = self._rows.events(row, f"{self.origin}#{row.place.line}")
            except UnusableError as error:
                self._reading.unusable(error, row.place, row.cells)
                continue
            self._used += len(events)
            yield from events
