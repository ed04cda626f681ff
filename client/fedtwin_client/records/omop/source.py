"""An OMOP database (CDM 5.3 or 5.4) as a source of records.

An OMOP database is made anew by its hospital as a whole, and says of no row when it changed. So a
table is one record here: what is read of it now replaces all that was read of it before, rows that
have been changed, and rows that are gone. Its rows are told apart by their own keys.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtwin_client.records.blocks import (
    EVENTS,
    LAST,
    VERSION,
    VERSIONS,
    Block,
    event_table,
    rows_table,
)
from fedtwin_client.records.events import Event
from fedtwin_client.records.omop.batches import NO_END, TableReading
from fedtwin_client.records.omop.codes import Concept, Concepts
from fedtwin_client.records.omop.database import Database, OpenDatabase
from fedtwin_client.records.omop.people import People, whole_number
from fedtwin_client.records.omop.rows import PERSON_NOT_USED, Mapped, RowMapper
from fedtwin_client.records.omop.tables import (
    CLINICAL,
    CONCEPT,
    CONCEPT_COLUMNS,
    CONCEPT_MEANINGS,
    DEATH,
    DEATH_COLUMNS,
    NOT_READ,
    PERSON,
    READ,
    Meaning,
    Table,
)
from fedtwin_client.records.omop.times import NO_TIME
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_protocol.errors import RecordError

_VERSION = re.compile(r"\D*(\d+)\.(\d+)")
_WHOLE = re.compile(r"\d{1,18}")
_VERSIONS = {("5", "3"), ("5", "4")}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What a hospital says of its database.

    Attributes:
        identifier_system: whose number `person_source_value` is; none: person_id makes the
            pseudonym.
        without: tables that are not there; what an earlier import read of them stays.
        delays: by table, how long after it happened something became known.
        progress: is told what is being read, in words.
    """

    identifier_system: str | None = None
    without: frozenset[str] = frozenset()
    delays: Mapping[str, timedelta] = field(default_factory=dict)
    progress: Callable[[str], None] = lambda words: None


def omop_source(opening: OpenDatabase, wishes: Wishes) -> OpenSource:
    """An OMOP database as a source.

    Args:
        opening: opens the database.
        wishes: what the hospital says of it.

    Raises:
        RecordError: the wishes name a table that is not read.
    """
    for table in (*wishes.without, *wishes.delays):
        if table not in READ or table == PERSON:
            raise RecordError(
                f"expected one of the tables {', '.join(sorted(set(READ) - {PERSON}))}, "
                f"found '{table}'"
            )
    return lambda desk: OmopReader(opening, wishes, desk)


class OmopReader(ByNumber):
    """Reads one database.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(self, opening: OpenDatabase, wishes: Wishes, desk: Desk) -> None:
        self.title = "an OMOP database"
        self._opening = opening
        self._wishes = wishes
        self._desk = desk
        self._reading = desk.reading
        self._tally = desk.reading.tally
        self._used = 0

    def versions(self) -> Iterator[Version]:
        """Every table that is read, as one record each.

        Raises:
            RecordError: it is no OMOP database of a version that is read, a table or a column is
                missing, it cannot be read to its end, or nothing of it can be used.
        """
        for table, made in self._tables():
            origin = self._origin(table)
            events = made if isinstance(made, list) else _all_events(made, origin)
            yield Version(origin=origin, updated=None, events=events)

    def blocks(self) -> Iterator[Block]:
        """What `versions` yields, each table in as many blocks as it has batches.

        Raises:
            RecordError: as `versions`.
        """
        for table, made in self._tables():
            origin = self._origin(table)
            people = made if isinstance(made, list) else []
            yield Block(
                versions=rows_table([(0, origin, 0)], VERSIONS),
                events=event_table((0, event) for event in people),
            )
            for mapped, ending in () if isinstance(made, list) else made:
                yield Block(
                    versions=VERSIONS.empty_table(), events=_columns(mapped.events, origin, ending)
                )

    def _tables(self) -> Iterator[tuple[str, list[Event] | Iterator[tuple[Mapped, str]]]]:
        """Every table with what it makes, which is gone through before the next is asked for."""
        with closing(self._opening()) as database:
            self.title = database.title
            self._check_version(database)
            self._check_tables(database)
            tables = [table for table in CLINICAL if table.name not in self._wishes.without]
            chosen = {table.name: table.found(database.tables[table.name]) for table in tables}
            concepts = self._concepts(database, tables, chosen)
            self._wishes.progress("person")
            people = People(database, self._desk, self._wishes.identifier_system)
            self._used += len(people.births) + len(people.deaths)
            yield PERSON, people.births
            if DEATH not in self._wishes.without:
                yield DEATH, people.deaths
            with closing(RowMapper(self._reading, concepts, people.table())) as mapper:
                for table in tables:
                    reading = TableReading(table, chosen[table.name], concepts.ids)
                    yield table.name, self.mapped(database, reading, mapper)
            self._count_what_is_not_read(database)
        if not self._used:
            raise RecordError(
                f"found no row in {self.title} that can be used{self._tally.commonest()}; "
                "nothing was imported, and what came from it before is still there"
            )

    def _origin(self, table: str) -> str:
        return f"{self._reading.source}:{table}"

    def mapped(
        self, database: Database, reading: TableReading, mapper: RowMapper
    ) -> Iterator[tuple[Mapped, str]]:
        """The events of a table as columns, and what their source ends with; accounted for.

        Raises:
            RecordError: the table cannot be read to its end.
        """
        table = reading.table
        delay = self._wishes.delays.get(table.name, timedelta(0))
        done = 0
        for batch in database.rows(table.name, list(reading.columns.values()), self._tally):
            self._tally.read[table.name] += batch.num_rows
            done += batch.num_rows
            self._wishes.progress(f"{table.name}: {done:,} rows")
            rows, unused = reading.prepare(batch)
            self._account(reading, batch, unused)
            for part, prefix, ending in reading.parts(rows):
                mapped = mapper.map(part, prefix, delay)
                unused = _named(mapped.unused, NO_TIME, NO_END) if ending else mapped.unused
                self._account(reading, batch, unused)
                for note, (count, key) in mapped.notes.items():
                    self._tally.note(note, Place(table.name, key), count)
                self._used += mapped.events.num_rows
                yield mapped, ending

    def _account(self, reading: TableReading, batch: pa.Table, unused: pa.Table) -> None:
        """Put rows aside; those of persons who were put aside themselves are only counted."""
        if not unused.num_rows:
            return
        plain = pc.is_in(unused["reason"], value_set=pa.array([PERSON_NOT_USED, NO_END]))
        for counted in (
            unused.filter(plain)
            .group_by("reason")
            .aggregate([("key", "count"), ("key", "min")])
            .to_pylist()
        ):
            place = Place(reading.table.name, counted["key_min"] or 0)
            self._tally.skip(counted["reason"], place, counted["key_count"])
        wrong = unused.filter(pc.invert(plain))
        raws = batch.take(wrong["row"]).to_pylist()
        keys, reasons = wrong["key"].to_pylist(), wrong["reason"].to_pylist()
        for key, reason, raw in zip(keys, reasons, raws, strict=True):
            said = {name: cell for name, cell in raw.items() if cell is not None}
            self._tally.put_aside(reason, Place(reading.table.name, key or 0), said)

    def _check_version(self, database: Database) -> None:
        stated: set[str] = set()
        if "cdm_version" in database.tables.get("cdm_source", frozenset()):
            stated = database.distinct("cdm_source", ["cdm_version"])
        for version in stated:
            found = _VERSION.match(version)
            if found is None or (found[1], found[2]) not in _VERSIONS:
                raise RecordError(
                    f"expected an OMOP CDM of version 5.3 or 5.4, found '{version[:40]}' in "
                    f"cdm_source of {database.title}"
                )
        if not stated:
            self._tally.note("cdm_source does not state the version", Place("cdm_source", 0))

    def _check_tables(self, database: Database) -> None:
        there = set(database.tables)
        if CONCEPT not in there:
            raise RecordError(
                f"found no table {CONCEPT} in {database.title}: without it no code can be told; "
                "export it with the others, or name its schema with --vocabulary-schema"
            )
        missing = [name for name in READ if name not in there | self._wishes.without]
        if missing:
            options = " ".join(f"--without {name}" for name in missing if name != PERSON)
            raise RecordError(
                f"found no table {', '.join(missing)} in {database.title}; export every table, "
                f"also those without rows{', or import with ' + options if options else ''}"
            )
        both = self._wishes.without & there
        if both:
            raise RecordError(
                f"the table {min(both)} is there, although --without names it; leave that out"
            )
        needed = {PERSON: ("person_id",), CONCEPT: CONCEPT_COLUMNS, DEATH: DEATH_COLUMNS[:2]}
        for name, columns in needed.items():
            lacking = set(columns) - database.tables.get(name, frozenset(columns))
            if lacking:
                raise RecordError(
                    f"expected the columns {', '.join(columns)} in the table {name} of "
                    f"{database.title}, found no {', '.join(sorted(lacking))}"
                )

    def _concepts(
        self,
        database: Database,
        tables: list[Table],
        chosen: Mapping[str, Mapping[Meaning, str]],
    ) -> "_KnownConcepts":
        """Only the concepts that the tables use: the whole vocabulary has millions."""
        used: set[str] = set()
        for table in tables:
            columns = chosen[table.name]
            names = [columns[meaning] for meaning in CONCEPT_MEANINGS if meaning in columns]
            self._wishes.progress(f"concepts of {table.name}")
            for text in database.distinct(table.name, names):
                whole = text.strip().partition(".")[0]
                if _WHOLE.fullmatch(whole):
                    used.add(whole)
        self._wishes.progress("concepts")
        found: dict[str, Concept] = {}
        for batch in database.chosen(CONCEPT, CONCEPT_COLUMNS, "concept_id", used - {"0"}):
            rows = (batch[name].to_pylist() for name in CONCEPT_COLUMNS)
            for written, vocabulary, code, standard in zip(*rows, strict=True):
                number = whole_number(written)
                if number and vocabulary and code and code.strip():
                    found[number] = Concept(vocabulary, code, standard == "S")
        return _KnownConcepts(found)

    def _count_what_is_not_read(self, database: Database) -> None:
        for table in NOT_READ:
            rows = database.count(table) if table in database.tables else 0
            if rows:
                self._tally.read[table] += rows
                self._tally.skip(f"the table {table} is not read", Place(table, 0), rows)


class _KnownConcepts(Concepts):
    """Concepts, and their ids as a column."""

    def __init__(self, concepts: Mapping[str, Concept]) -> None:
        super().__init__(concepts)
        self.ids = pa.array(list(concepts), type=pa.string())


def _named(unused: pa.Table, reason: str, better: str) -> pa.Table:
    """The same rows, with one reason in better words."""
    column = pc.if_else(pc.equal(unused["reason"], reason), better, unused["reason"])
    return unused.set_column(unused.column_names.index("reason"), "reason", column)


def _all_events(made: Iterator[tuple[Mapped, str]], origin: str) -> Iterator[Event]:
    for mapped, ending in made:
        yield from _events(mapped.events, origin, ending)


def _columns(table: pa.Table, origin: str, ending: str) -> pa.Table:
    """What `_events` makes, of the version that was announced last, as columns."""
    key = pc.cast(table["key"], pa.string())
    made = {
        "source": pc.binary_join_element_wise(f"{origin}#", key, ending, ""),
        "status": pa.nulls(table.num_rows, pa.string()),
        VERSION.name: pa.array(np.full(table.num_rows, LAST)),
    }
    return pa.Table.from_arrays(
        [
            pc.cast(made[field.name] if field.name in made else table[field.name], field.type)
            for field in EVENTS
        ],
        schema=EVENTS,
    )


def _events(table: pa.Table, origin: str, ending: str) -> Iterator[Event]:
    names = (
        "subject_id", "time", "available_time", "code", "numeric_value", "text_value", "unit",
        "src_unit", "comparator", "key",
    )  # fmt: skip
    times: dict[int, datetime] = {}

    def aware(microseconds: int) -> datetime:
        found = times.get(microseconds)
        if found is None:
            found = times[microseconds] = _EPOCH + timedelta(microseconds=microseconds)
        return found

    whole = {"time", "available_time"}
    columns = [
        (pc.cast(table[name], pa.int64()) if name in whole else table[name]).to_pylist()
        for name in names
    ]
    for subject, time, known, code, number, text, unit, src_unit, comparator, key in zip(
        *columns, strict=True
    ):
        yield Event(
            subject_id=subject,
            time=aware(time),
            code=code,
            source=f"{origin}#{key}{ending}",
            numeric_value=number,
            text_value=text,
            available_time=aware(known),
            unit=unit,
            src_unit=src_unit,
            comparator=comparator,
        )
