"""OMOP's tables `person` and `death` into events, and who is behind each person_id."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeAlias

import pyarrow as pa

from fedtwin_client.records.events import BIRTH, DEATH, SEX, Event
from fedtwin_client.records.moments import Moment
from fedtwin_client.records.omop.database import ABSENT, Database
from fedtwin_client.records.omop.rows import PEOPLE
from fedtwin_client.records.omop.tables import DEATH as DEATH_TABLE
from fedtwin_client.records.omop.tables import DEATH_COLUMNS, PERSON, PERSON_COLUMNS
from fedtwin_client.records.omop.times import as_day, time_or_day
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Desk

_SEXES = {"8507": "male", "8532": "female", "8521": "other", "8551": "unknown"}
_ABSENT = frozenset(("NA", *ABSENT))
_Cells: TypeAlias = Mapping[str, str | None]


@dataclass(kw_only=True, slots=True)
class _Person:
    subject_id: int | None
    birth: datetime | None = None
    death: datetime | None = None


class People:
    """The persons of one database.

    Attributes:
        births: events of the table `person`.
        deaths: events of the table `death`.
    """

    def __init__(self, database: Database, desk: Desk, system: str | None) -> None:
        """Read both tables.

        Args:
            database: open.
            desk: the import's rules, account and pseudonyms.
            system: whose number `person_source_value` is; none: the person_id makes the pseudonym.

        Raises:
            RecordError: a table cannot be read to its end.
        """
        self._desk = desk
        self._reading = desk.reading
        self._system = system
        self._people: dict[str, _Person] = {}
        self.births: list[Event] = []
        self.deaths: list[Event] = []
        rows = list(self._rows(database, PERSON, PERSON_COLUMNS))
        shared = _shared(rows) if system is not None else frozenset()
        for row in rows:
            self._attempt(PERSON, row, partial(self._person, shared=shared))
        for row in self._rows(database, DEATH_TABLE, DEATH_COLUMNS):
            self._attempt(DEATH_TABLE, row, self._death)

    def table(self) -> pa.Table:
        """All persons, as the mapper takes them."""
        rows = [
            {
                "person": person,
                "subject_id": known.subject_id,
                "birth": _naive(known.birth),
                "death": _naive(known.death),
            }
            for person, known in self._people.items()
        ]
        return pa.Table.from_pylist(rows, schema=PEOPLE)

    def _rows(
        self, database: Database, table: str, columns: tuple[str, ...]
    ) -> Iterator[dict[str, str | None]]:
        there = database.tables.get(table, frozenset())
        names = [name for name in columns if name in there]
        if not names:
            return
        for batch in database.rows(table, names, self._reading.tally):
            self._reading.tally.read[table] += batch.num_rows
            for row in batch.to_pylist():
                cells = {
                    name: None if row.get(name) in _ABSENT else row.get(name) for name in columns
                }
                yield {**cells, "person_id": whole_number(cells["person_id"])}

    def _attempt(self, table: str, row: _Cells, action: Callable[[_Cells], None]) -> None:
        try:
            action(row)
        except UnusableError as error:
            place = Place(table, place_number(row["person_id"]))
            self._reading.unusable(error, place, row)

    def _person(self, row: _Cells, shared: frozenset[str]) -> None:
        number = row["person_id"]
        if number is None:
            raise UnusableError("no person_id")
        if number in self._people:
            raise UnusableError("a person_id that stood before")
        person = self._people[number] = _Person(subject_id=None)
        subject = self._desk.pseudonyms.of(self._identity(row, number, shared))
        person.subject_id = subject
        place = Place(PERSON, place_number(number))
        origin = f"{self._reading.source}:{PERSON}#{number}"
        self._birth(row, person, origin, place)
        sex = _SEXES.get(whole_number(row["gender_concept_id"]) or "")
        if sex is None:
            self._reading.tally.note("a person without a sex that is known", place)
            return
        self.births.append(
            Event(subject_id=subject, time=None, code=SEX, source=f"{origin}/sex", text_value=sex)
        )

    def _identity(self, row: _Cells, number: str, shared: frozenset[str]) -> Identity:
        if self._system is None:
            return Identity(self._reading.source, number)
        value = (row["person_source_value"] or "").strip()
        if not value:
            raise UnusableError("a person without a person_source_value")
        if value in shared:
            raise UnusableError("a person_source_value that several persons have")
        return Identity(self._system, value)

    def _birth(self, row: _Cells, person: _Person, origin: str, place: Place) -> None:
        try:
            born = self._born(row)
        except UnusableError as error:
            named = UnusableError(f"birth: {error.reason}", wrong=error.wrong)
            self._reading.unusable(named, place, row)
            return
        if born.precision in {"year", "month"}:
            self._reading.tally.note(f"birth known only to the {born.precision}", place)
        assert person.subject_id is not None
        person.birth = born.start
        self.births.append(
            Event(
                subject_id=person.subject_id,
                time=born.start,
                code=BIRTH,
                source=f"{origin}/birth",
                available_time=born.start,
            )
        )

    def _born(self, row: _Cells) -> Moment:
        """From the birth's datetime, or else from the parts that are there."""
        if row["birth_datetime"]:
            return as_day(self._reading, row["birth_datetime"])
        year, month, day = (
            whole_number(row[f"{part}_of_birth"]) for part in ("year", "month", "day")
        )
        if not year:
            raise UnusableError("not recorded", wrong=False)
        written = year.zfill(4)
        for part in (month, day):
            if part is None:
                break
            written += f"-{part.zfill(2)}"
        return self._reading.moment(written)

    def _death(self, row: _Cells) -> None:
        number = row["person_id"]
        if number is None:
            raise UnusableError("no person_id")
        person = self._people.get(number)
        if person is None:
            raise UnusableError("refers to a person that is not known")
        if person.subject_id is None:
            raise UnusableError("of a person who is not used", wrong=False)
        if person.death is not None:
            raise UnusableError("a second death of a person")
        died = self._died(row)
        person.death = min(died, self._reading.now)
        self.deaths.append(
            Event(
                subject_id=person.subject_id,
                time=person.death,
                code=DEATH,
                source=f"{self._reading.source}:{DEATH_TABLE}#{number}",
                available_time=person.death,
            )
        )

    def _died(self, row: _Cells) -> datetime:
        """The time, or the end of the day: midnight stands for a time that is not known."""
        day = as_day(self._reading, row["death_date"]) if row["death_date"] else None
        return time_or_day(self._reading, day, row["death_datetime"]).end


def whole_number(text: str | None) -> str | None:
    """A whole number as it is compared, also if it was written `12.0`; other text as it is."""
    plain = (text or "").strip()
    whole, point, rest = plain.partition(".")
    return (whole if point and not rest.strip("0") else plain) or None


def place_number(text: str | None) -> int:
    """A row's number in the report; 0 where it has none."""
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _shared(rows: list[dict[str, str | None]]) -> frozenset[str]:
    seen: set[str] = set()
    twice: set[str] = set()
    for row in {row["person_id"]: row for row in rows}.values():
        value = (row["person_source_value"] or "").strip()
        (twice if value in seen else seen).add(value)
    return frozenset(twice)


def _naive(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=None)
