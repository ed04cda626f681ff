"""A row of a table, whatever it comes from, into events by the hospital's mapping.

Each row gives its patient's birth and sex, the events that every row makes, and one event for each
cell with a meaning. A cell that cannot be used is accounted for under its column's name, and the
rest of the row is used.
"""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

from fedtwin_client.records.codes.concepts import standard_code
from fedtwin_client.records.events import BIRTH, SEX, Event
from fedtwin_client.records.moments import Moment, read_with_format, whole_day, years_before
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.source import Desk
from fedtwin_client.records.subjects import Subjects
from fedtwin_client.records.tables.cells import cell_event, columns_of
from fedtwin_client.records.tables.figures import Figures, number_of
from fedtwin_client.records.tables.mapping import MarkTable, TableMapping
from fedtwin_client.records.tables.rows import Row

_OLDEST_AGE = 130


class RowReader:
    """Reads the rows of one table by one mapping.

    Attributes:
        subjects: the patients of the FHIR server that the mapping names; none if it names none.
    """

    def __init__(self, mapping: TableMapping, desk: Desk, *, drop_repeats: bool) -> None:
        """Start a reader.

        Args:
            mapping: what the columns mean.
            desk: the import's rules, account and pseudonyms.
            drop_repeats: leave out a row that equals an earlier one in all its cells.
        """
        self._mapping = mapping
        self._reading = desk.reading
        self._pseudonyms = desk.pseudonyms
        self._drop_repeats = drop_repeats
        self._figures = Figures(mapping.decimal, mapping.thousands)
        self._columns = columns_of(mapping, self._figures)
        self._missing = MarkTable(((mark, None) for mark in mapping.missing), self._figures)
        self._sex = _sex_marks(mapping)
        self._seen: set[bytes] = set()
        self._births: dict[int, datetime] = {}
        self._sexes: dict[int, str] = {}
        self.subjects: Subjects | None = None
        if mapping.subject.server is not None:
            self.subjects = Subjects(
                desk.pseudonyms,
                server=mapping.subject.server,
                identifier_system=mapping.subject.system,
                known=desk.known,
            )

    def hear(self, subject: int, born: datetime | None, sex: str | None) -> None:
        """Note what earlier rows have said of a patient, which is then not said again."""
        if born is not None:
            self._births.setdefault(subject, born)
        if sex is not None:
            self._sexes.setdefault(subject, sex)

    def events(self, row: Row, source: str) -> list[Event]:
        """The events of one row; what of it cannot be used is accounted for.

        Args:
            row: its cells, by column.
            source: `<origin>#<part>`, the start of each event's own.

        Raises:
            UnusableError: its patient or its time is not there, or it repeats an earlier row.
        """
        subject = self._subject(row)
        moment = self._time(row)
        start = Event(
            subject_id=subject,
            time=moment.start,
            code="",
            source=source,
            available_time=self._known(row, moment),
        )
        events = self._traits(row, start)
        for number, event in enumerate(self._mapping.events):
            code = standard_code(event.code)
            made = replace(start, code=code, source=f"{start.source}/event{number}")
            self._keep(events, made, event.offset_days, row, "event")
        for column in self._columns:
            try:
                made = cell_event(row, column, start, self._missing, self._figures)
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
        block = self._mapping.subject
        system = block.system or self._reading.source
        if block.column is None:
            return self._pseudonyms.of(Identity(system, f"{row.place.file}:{row.place.line}"))
        cell = row.cells[block.column]
        if self._absent(cell):
            raise UnusableError("no patient")
        if self._drop_repeats:
            self._refuse_repeat(row)
        if self.subjects is None:
            return self._pseudonyms.of(Identity(system, cell))
        plain = "/" not in cell and not cell.startswith("urn:")
        return self.subjects.of({"reference": f"Patient/{cell}" if plain else cell})

    def _refuse_repeat(self, row: Row) -> None:
        digest = hashlib.blake2b(repr(list(row.cells.items())).encode(), digest_size=16).digest()
        if digest in self._seen:
            raise UnusableError("line repeats an earlier line", wrong=False)
        self._seen.add(digest)

    def _known(self, row: Row, moment: Moment) -> datetime:
        """What stands in one line belongs together: a day's line is known as the day begins.

        A FHIR resource that a view reads stands by itself, as it does without one. Midnight stands
        for a time of day that is not known: databases write dates so.
        """
        block = self._mapping.known
        known = moment
        if block is not None and not self._absent(row.cells[block.column]):
            known = self._moment(row.cells[block.column], block.format)
        if self._mapping.view is not None:
            return known.known
        local = known.start.astimezone(self._zone).replace(tzinfo=None)
        if known.precision == "time" and local.time() == time.min:
            known = self._reading.past(whole_day(local, self._zone))
        same_day = known.precision == "day" and known.start <= moment.start
        return known.start if same_day else known.known

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
        return self._reading.past(moment)

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
        return self._reading.past(moment)

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
        if start.time is not None and start.time < born > self._time(row).end:
            raise UnusableError("lies after the line's time")
        first = self._births.get(start.subject_id)
        if first is not None:
            if abs(first - born) > timedelta(days=367):
                self._reading.tally.note("birth differs from an earlier line's", row.place)
            return None
        self._births[start.subject_id] = born
        return replace(
            start, time=born, available_time=born, code=BIRTH, source=f"{start.source}/birth"
        )

    def _age(self, cell: str) -> float:
        if self._absent(cell):
            raise UnusableError("not recorded", wrong=False)
        years, _ = number_of(cell, self._figures)
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


def _sex_marks(mapping: TableMapping) -> MarkTable:
    if mapping.sex is None:
        return MarkTable(())
    males = [(mark, "male") for mark in mapping.sex.male]
    return MarkTable(males + [(mark, "female") for mark in mapping.sex.female])
