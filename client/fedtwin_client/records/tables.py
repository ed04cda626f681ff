"""A table's rows into events, by the hospital's mapping.

Each row gives its patient's birth and sex, the events that every row makes, and one event for each
cell with a meaning. A cell that cannot be used is accounted for under its column's name, and the
rest of the row is used.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.events import BIRTH, SEX, Event
from fedtwin_client.records.mapping import ColumnMeaning, MarkTable, TableMapping, read_mapping
from fedtwin_client.records.moments import Moment, read_with_format, whole_day, years_before
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import UnusableError, checked_number, finite
from fedtwin_client.records.rows import Row, read_rows
from fedtwin_client.records.source import Desk, OpenSource, Version
from fedtwin_protocol.errors import RecordError

_NUMBER = re.compile(r"(<=|>=|<|>)?\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\Z")
_YES = {"1", "1.0", "true", "yes", "y", "t"}
_NO = {"0", "0.0", "false", "no", "n", "f"}
_OLDEST_AGE = 130


@dataclass(frozen=True, kw_only=True, slots=True)
class _Column:
    name: str
    meaning: ColumnMeaning
    missing: MarkTable
    values: MarkTable | None
    number: int


def table_file(path: Path, mapping: Path) -> tuple[OpenSource, TableMapping]:
    """A table as a source, and what its columns mean.

    Args:
        path: CSV or Parquet.
        mapping: the YAML file that says what its columns mean.

    Raises:
        RecordError: the mapping is wrong, or there is no such file.
    """
    meaning = read_mapping(mapping)
    if not path.is_file():
        raise RecordError(f"expected a table, found no file {path}")
    return lambda desk: TableReader(path, meaning, desk), meaning


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
        self._pseudonyms = desk.pseudonyms
        self._columns = _columns(mapping)
        self._missing = MarkTable((mark, None) for mark in mapping.missing)
        self._sex = _sex_marks(mapping)
        self._seen: set[bytes] = set()
        self._births: dict[int, datetime] = {}
        self._sexes: dict[int, str] = {}
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
                events = self._row(row)
            except UnusableError as error:
                self._reading.unusable(error, row.place, row.cells)
                continue
            self._used += len(events)
            yield from events

    def _row(self, row: Row) -> list[Event]:
        subject = self._subject(row)
        moment = self._time(row)
        start = Event(
            subject_id=subject,
            time=moment.start,
            code="",
            source=f"{self.origin}#{row.place.line}",
            available_time=moment.known,
        )
        events = self._traits(row, start)
        for number, event in enumerate(self._mapping.events):
            made = replace(start, code=event.code, source=f"{start.source}/event{number}")
            self._keep(events, made, event.offset_days, row, "event")
        for column in self._columns:
            try:
                made = _cell_event(row, column, start, self._missing, self._mapping.decimal)
            except UnusableError as error:
                self._account(error, column.name, row)
                continue
            self._keep(events, made, column.meaning.offset_days, row, column.name)
        return events

    def _keep(self, events: list[Event], event: Event, days: float, row: Row, name: str) -> None:
        try:
            events.append(self._later(event, days))
        except UnusableError as error:
            self._account(error, name, row)

    def _later(self, event: Event, days: float) -> Event:
        if not days or event.time is None or event.available_time is None:
            return event
        shift = timedelta(days=days)
        time = event.time + shift
        self._reading.check(time)
        return replace(event, time=time, available_time=event.available_time + shift)

    def _subject(self, row: Row) -> int:
        column = self._mapping.subject.column
        system = self._mapping.subject.system or self._reading.source
        if column is None:
            return self._pseudonyms.of(Identity(system, f"{self._path.name}:{row.place.line}"))
        if self._absent(row.cells[column]):
            raise UnusableError("no patient")
        digest = hashlib.blake2b(repr(list(row.cells.items())).encode(), digest_size=16).digest()
        if digest in self._seen:
            raise UnusableError("line repeats an earlier line", wrong=False)
        self._seen.add(digest)
        return self._pseudonyms.of(Identity(system, row.cells[column]))

    def _time(self, row: Row) -> Moment:
        block = self._mapping.time
        if isinstance(block.date, datetime):
            zoned = block.date if block.date.tzinfo else block.date.replace(tzinfo=self._zone)
            start = zoned.astimezone(UTC)
            moment = Moment(start=start, end=start, precision="time")
        elif block.date is not None:
            day = datetime(block.date.year, block.date.month, block.date.day)
            moment = whole_day(day, self._zone)
        else:
            assert block.column is not None
            return self._moment(row.cells[block.column], block.format)
        self._reading.check(moment.start)
        return moment

    @property
    def _zone(self) -> Any:
        return self._reading.zone

    def _moment(self, text: str, form: str | None) -> Moment:
        if self._absent(text):
            raise UnusableError("no time")
        if form is None:
            return self._reading.moment(text)
        moment = read_with_format(text, form, self._reading.zone)
        if moment is None:
            raise UnusableError(f"a time that does not fit the format {form}")
        self._reading.check(moment.start)
        return moment

    def _traits(self, row: Row, start: Event) -> list[Event]:
        """Birth and sex, once for each patient."""
        events: list[Event] = []
        for name, made in (("birth", self._birth), ("sex", self._sex_of)):
            try:
                event = made(row, start)
            except UnusableError as error:
                self._account(error, name, row)
                continue
            if event is not None:
                events.append(event)
        return events

    def _birth(self, row: Row, start: Event) -> Event | None:
        block = self._mapping.birth
        if block is None:
            return None
        if block.column is not None:
            if self._absent(row.cells[block.column]):
                raise UnusableError("not recorded", wrong=False)
            born = self._moment(row.cells[block.column], block.format).start
        else:
            assert block.age_column is not None
            assert start.time is not None
            born = years_before(start.time, self._age(row.cells[block.age_column]))
        first = self._births.setdefault(start.subject_id, born)
        if abs(first - born) > timedelta(days=367):
            self._reading.tally.note("birth differs from an earlier line's", row.place)
        if first is not born:
            return None
        return replace(
            start, time=born, available_time=born, code=BIRTH, source=f"{start.source}/birth"
        )

    def _age(self, cell: str) -> float:
        if self._absent(cell):
            raise UnusableError("not recorded", wrong=False)
        years, _ = _number(cell, self._mapping.decimal)
        if not 0 <= years <= _OLDEST_AGE:
            raise UnusableError(f"expected an age from 0 to {_OLDEST_AGE} years")
        return years

    def _sex_of(self, row: Row, start: Event) -> Event | None:
        block = self._mapping.sex
        if block is None:
            return None
        cell = row.cells[block.column]
        known, sex = self._sex.find(cell)
        if not known:
            absent = self._absent(cell)
            raise UnusableError("not recorded" if absent else "unknown mark", wrong=not absent)
        first = self._sexes.get(start.subject_id)
        if first is not None:
            if first != sex:
                self._reading.tally.note("sex differs from an earlier line's", row.place)
            return None
        self._sexes[start.subject_id] = sex
        return replace(
            start,
            time=None,
            available_time=None,
            code=SEX,
            text_value=sex,
            source=f"{start.source}/sex",
        )

    def _absent(self, cell: str) -> bool:
        return not cell or self._missing.find(cell)[0]

    def _account(self, error: UnusableError, name: str, row: Row) -> None:
        named = UnusableError(f"{name}: {error.reason}", wrong=error.wrong)
        self._reading.unusable(named, row.place, row.cells)


def _columns(mapping: TableMapping) -> list[_Column]:
    return [
        _Column(
            name=name,
            meaning=meaning,
            missing=MarkTable((mark, None) for mark in meaning.missing),
            values=None if meaning.values is None else MarkTable(meaning.values.items()),
            number=number,
        )
        for name, meanings in mapping.columns.items()
        for number, meaning in enumerate(meanings)
    ]


def _sex_marks(mapping: TableMapping) -> MarkTable:
    if mapping.sex is None:
        return MarkTable(())
    males = [(mark, "male") for mark in mapping.sex.male]
    return MarkTable(males + [(mark, "female") for mark in mapping.sex.female])


def _cell_event(row: Row, column: _Column, start: Event, missing: MarkTable, decimal: str) -> Event:
    """The event of one cell, at the row's time."""
    cell, meaning = row.cells[column.name], column.meaning
    if not cell or missing.find(cell)[0] or column.missing.find(cell)[0]:
        raise UnusableError("not recorded", wrong=False)
    if column.values is not None:
        listed, stands_for = column.values.find(cell)
        if not listed:
            raise UnusableError("not among the values of the mapping")
        cell = str(stands_for).lower() if isinstance(stands_for, bool) else str(stands_for)
    event = replace(
        start, code=meaning.code, source=f"{start.source}/{column.name}/{column.number}"
    )
    if meaning.kind == "text":
        return replace(event, text_value=cell)
    if meaning.kind == "number":
        value, comparator = _number(cell, decimal)
        number = checked_number(meaning.code, value, meaning.unit)
        return replace(
            event,
            numeric_value=number.value,
            unit=number.unit,
            src_unit=number.src_unit,
            comparator=comparator,
        )
    yes = _yes_or_no(cell)
    if meaning.kind == "presence":
        if not yes:
            raise UnusableError("no, which makes no event", wrong=False)
        return event
    return replace(event, numeric_value=float(yes))


def _yes_or_no(cell: str) -> bool:
    word = cell.lower()
    if word not in _YES | _NO:
        raise UnusableError("expected yes or no")
    return word in _YES


def _number(cell: str, decimal: str) -> tuple[float, str | None]:
    match = _NUMBER.match(cell.replace(",", ".") if decimal == "," and "." not in cell else cell)
    if match is None:
        raise UnusableError("expected a number, found text")
    return finite(float(match[2])), match[1]
