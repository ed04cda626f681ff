"""A CSV or Parquet table as a source, by the hospital's mapping; all of it is one record."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fedtwin_client.records.events import Event
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.source import ByNumber, Desk, Version
from fedtwin_client.records.tables.mapping import TableMapping
from fedtwin_client.records.tables.row_events import RowReader
from fedtwin_client.records.tables.rows import Row, read_rows
from fedtwin_client.records.whole import Whole
from fedtwin_protocol.errors import RecordError


class TableReader(ByNumber):
    """Reads one table by one mapping; all of it is one record.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(self, path: Path, mapping: TableMapping, desk: Desk) -> None:
        """Start a reader.

        Args:
            path: the table.
            mapping: what its columns mean.
            desk: the import's rules, account and pseudonyms.
        """
        self.title = f"{path.name} as {mapping.name}"
        self.origin = table_origin(desk.reading.source, path.name)
        self._path = path
        self._mapping = mapping
        self._reading = desk.reading
        self._whole = Whole(desk.reading.tally)
        of_rows = replace(desk, reading=desk.reading.at(desk.reading.now, self._whole))
        self._rows = RowReader(mapping, of_rows, drop_repeats=True)
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
            events = row_events(self._rows, row, self.origin, self._whole)
            self._used += len(events)
            yield from events


def table_origin(source: str, file: str) -> str:
    """The record that a table is."""
    return f"{source}/{file}".replace("#", "%23")


def row_events(rows: RowReader, row: Row, origin: str, whole: Whole) -> list[Event]:
    """The events of one row of a table; it is set aside as a whole if anything in it is wrong."""
    try:
        events = rows.events(row, f"{origin}#{row.place.line}")
    except UnusableError as error:
        events = []
        if error.wrong:
            whole.wrong(error.reason, row.place)
        else:
            whole.skip(error.reason, row.place)
    whole.end(row.place, row.cells)
    return events
