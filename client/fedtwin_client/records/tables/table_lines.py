"""Mended rows of a table as a source: read by the mapping of the import that put them aside.

A table is one record, and a row of it a part: what the other rows made stays. A later import of the
table replaces all of it, mended rows too.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from fedtwin_client.records.mended import MendedLine
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place, Recipe, Tally
from fedtwin_client.records.resources import parse_json
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_client.records.tables.files import row_events, table_origin
from fedtwin_client.records.tables.mapping import TableMapping, parse_mapping
from fedtwin_client.records.tables.row_events import RowReader
from fedtwin_client.records.tables.rows import Row, other_number, spell_cell
from fedtwin_client.records.whole import Whole
from fedtwin_protocol.errors import RecordError

KIND = "table"


class Trait(NamedTuple):
    """What a row has said of a patient: when they were born, or of which sex they are."""

    source: str
    subject: int
    born: datetime | None
    sex: str | None


Traits = Callable[[str], Iterable[Trait]]
"""What the rows of a table have said of patients, by the name of the source."""


def table_recipe(mapping: Path, meaning: TableMapping) -> Recipe:
    """How the rows of a table are read.

    Args:
        mapping: the mapping's file.
        meaning: what stands in it.

    Raises:
        RecordError: it cannot be read any more.
    """
    try:
        text = mapping.read_text(encoding="utf-8")
    except OSError as error:
        raise RecordError(f"cannot read the mapping {mapping}: {error.strerror}") from error
    return Recipe(
        kind=KIND,
        source=f"table:{meaning.name}",
        zone=meaning.timezone,
        settings=MappingProxyType({"mapping": text, "file": mapping.name}),
    )


def table_lines(lines: Sequence[MendedLine], recipe: Recipe, traits: Traits) -> OpenSource:
    """Mended rows.

    Args:
        lines: CSV below a line of the columns' names, or the cells of one row as JSON.
        recipe: of `table_recipe`.
        traits: what the table has said of patients by now.

    Raises:
        RecordError: the recipe's mapping is none.
    """
    name = Path(str(recipe.settings.get("file")))
    mapping = parse_mapping(str(recipe.settings.get("mapping")), name)
    return lambda desk: TableLines(lines, mapping, traits(recipe.source), desk)


class TableLines(ByNumber):
    """Reads mended rows.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(
        self,
        lines: Sequence[MendedLine],
        mapping: TableMapping,
        traits: Iterable[Trait],
        desk: Desk,
    ) -> None:
        self.title = f"{len(lines)} mended lines of {mapping.name}"
        self._lines = lines
        self._mapping = mapping
        self._source = desk.reading.source
        self._whole = Whole(desk.reading.tally)
        of_rows = replace(desk, reading=desk.reading.at(desk.reading.now, self._whole))
        self._rows = RowReader(mapping, of_rows, drop_repeats=True)
        tables = {table_origin(self._source, line.place.file) for line in lines}
        renewed = {self._part(line.place) for line in lines}
        for trait in traits:
            row = trait.source.rpartition("/")[0]
            if row.partition("#")[0] in tables and row not in renewed:
                self._rows.hear(trait.subject, trait.born, trait.sex)

    def versions(self) -> Iterator[Version]:
        """What every row makes, each as a part of its table."""
        for line in self._lines:
            rows = rows_of_line(line, self._mapping, self._whole)
            if not rows:
                self._whole.read["rows"] += 1
                self._whole.end(line.place, line.text)
            for row in rows:
                self._whole.read["rows"] += 1
                origin = table_origin(self._source, row.place.file)
                events = row_events(self._rows, row, origin, self._whole)
                yield Version(origin=self._part(row.place), updated=None, events=events)

    def _part(self, place: Place) -> str:
        return f"{table_origin(self._source, place.file)}#{place.line}"


def rows_of_line(line: MendedLine, mapping: TableMapping, tally: Tally) -> list[Row]:
    """The rows of what was put aside: one, or as many as a quotation mark has swallowed.

    Args:
        line: its text is CSV below a line of names, or the cells of one row by column, as JSON.
        mapping: what the columns mean.
        tally: gets what is still wrong.

    Returns:
        None of them if one is wrong, because they are mended together.
    """
    place = line.place
    cells = parse_json(line.text.encode("utf-8", "surrogatepass"))
    if isinstance(cells, dict):
        found = [Row(place, {str(name): spell_cell(cell) for name, cell in cells.items()})]
    else:
        try:
            found = list(_csv_rows(line, mapping.delimiter))
        except UnusableError as error:
            tally.wrong(error.reason, place)
            return []
    absent = [name for name in mapping.needed() if name not in found[0].cells]
    if absent:
        tally.wrong(f"no column {', '.join(absent)}", place)
        return []
    return found


def _csv_rows(line: MendedLine, delimiter: str) -> Iterator[Row]:
    """Rows under the numbers of the lines that were there; more would take those of others."""
    try:
        written = list(csv.reader(StringIO(line.text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UnusableError(f"not CSV: {error}") from error
    names, *rows = [[cell.strip() for cell in cells] for cells in written if cells] or [[]]
    if not rows:
        raise UnusableError("no row below the line of names")
    if len(rows) > max(1, len(line.before.splitlines()) - 1):
        raise UnusableError("more rows than lines that were put aside")
    for number, cells in enumerate(rows):
        if len(cells) != len(names):
            raise UnusableError(other_number(names, cells))
        place = Place(line.place.file, line.place.line + number)
        yield Row(place, dict(zip(names, cells, strict=True)))
