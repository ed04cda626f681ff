"""FHIR NDJSON as blocks: plain Observations as columns, every other line by the reader of one.

What a plain Observation makes is decided by the same functions that read a single one: a code, a
subject, a status, a unit with its comparator is asked for once however often it comes. Only what
differs from line to line (ids, times, numbers) goes through as columns. A line about which anything
is out of the ordinary goes to `FhirReader`, so that both ways make the same events and the same
account, in the same order.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.records.blocks import (
    EVENTS,
    VERSIONS,
    Block,
    event_table,
    microseconds,
    rows_table,
)
from fedtwin_client.records.codes import codes_of, is_local
from fedtwin_client.records.events import Event
from fedtwin_client.records.fhir import FhirReader
from fedtwin_client.records.fhir_columns import KNOWN, QUANTITY, ColumnReader, Columns, numbers_of
from fedtwin_client.records.instants import Instants, read_instants
from fedtwin_client.records.lines import Lines
from fedtwin_client.records.observation import PLAIN_NOT, comparator_of, unit_of
from fedtwin_client.records.reading import OLDEST_YEAR, Reading, UnusableError, kept_unit
from fedtwin_client.records.report import EXAMPLES, Place
from fedtwin_client.records.resources import Found, resources_of, resources_of_line
from fedtwin_client.records.subjects import Subjects

_SAMPLED: Final = 40
_MOST_MEMBERS: Final = 40
_FEWEST: Final = 200
_MOST_VERSIONS: Final = 20_000
_MOST_REMEMBERED: Final = 100_000
_LOCAL: Final = "code of a local vocabulary"
_NO_TEXT: Final = pa.scalar(None, pa.string())


class _Parts(NamedTuple):
    """Values of Observations: their own, or those of their components."""

    row: NDArray[np.int64]
    number: NDArray[np.int64]
    code: pa.Array
    quantity: dict[str, pa.Array]


class _Kept(NamedTuple):
    """What one combination of code, unit and comparator becomes."""

    code: str
    local: bool
    factor: float
    offset: float
    converted: bool
    unit: str | None
    src_unit: str | None
    comparator: str | None


class FhirBlocks:
    """Reads files of lines into blocks."""

    def __init__(self, reading: Reading, subjects: Subjects, reader: FhirReader) -> None:
        """Start.

        Args:
            reading: the import's rules and account.
            subjects: leads from references to pseudonyms.
            reader: reads what is not plain.
        """
        self._reading = reading
        self._subjects = subjects
        self._reader = reader
        self._columns = ColumnReader()
        self._earliest = _exact(datetime(OLDEST_YEAR, 1, 1, tzinfo=UTC))
        self._latest = _exact(reading.now)
        self._kept: dict[tuple[str | None, ...], _Kept | None] = {}
        self._statuses: dict[str, str | None] = {}
        self._found: dict[str, int | None] = {}

    def close(self) -> None:
        """Let go of the memory."""
        self._columns.close()

    def read(self, lines: Lines, file: Path) -> Iterator[Block]:
        """The blocks of some lines of a file."""
        starts, lengths, blank = _edges(lines)
        more = self._members(lines, starts, lengths)
        columns = None if more is None else self._columns.read(lines.data, starts, lengths, more)
        if columns is None:
            yield from self.one_by_one(resources_of(lines, file, self._reading.tally))
            return
        numbers = lines.first + np.flatnonzero(~blank)
        yield self._mixed(lines, file, columns, _Rows(starts, numbers))

    def _members(
        self, lines: Lines, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> list[str] | None:
        """Members beyond the usual of some lines; none where they are few or no Observations."""
        if lines.too_long or len(starts) < _FEWEST:
            return None
        found: dict[str, None] = {}
        observations = 0
        for row in np.linspace(0, len(starts) - 1, _SAMPLED).astype(int).tolist():
            start = int(starts[row])
            try:
                value = json.loads(lines.data[start : start + int(lengths[row])])
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict) and value.get("resourceType") == "Observation":
                observations += 1
                found |= {name: None for name in value if name.isidentifier() and name.isascii()}
        if not observations:
            return None
        return [name for name in found if name not in KNOWN][:_MOST_MEMBERS]

    def one_by_one(self, resources: Iterable[Found]) -> Iterator[Block]:
        """Blocks of resources that the reader of one reads."""
        versions: list[tuple[int, str, int]] = []
        events: list[tuple[int, Event]] = []
        for found in resources:
            for version in self._reader.read(found):
                events += [(len(versions), event) for event in version.events]
                updated = microseconds(version.updated) or 0
                versions.append((len(versions), version.origin, updated))
            if len(versions) >= _MOST_VERSIONS:
                yield _block(versions, events)
                versions, events = [], []
        yield _block(versions, events)

    def _mixed(self, lines: Lines, file: Path, columns: Columns, rows: "_Rows") -> Block:
        plain = _Plain(self, columns)
        fast = np.flatnonzero(plain.good)
        notes = plain.local_notes(fast)
        versions, events, before = self._odd(lines, file, rows, plain.good, notes)
        self._reading.tally.read["Observation"] += len(fast)
        numbers = np.arange(len(fast)) + before
        made = plain.events(fast, numbers)
        return Block(
            versions=pa.concat_tables(
                [plain.versions(fast, numbers), rows_table(versions, VERSIONS)]
            ),
            events=pa.concat_tables([made, event_table(events)]),
        )

    def _odd(
        self,
        lines: Lines,
        file: Path,
        rows: "_Rows",
        good: NDArray[np.bool_],
        notes: NDArray[np.int64],
    ) -> tuple[list[tuple[int, str, int]], list[tuple[int, Event]], NDArray[np.int64]]:
        """Read what is not plain, among the notes on what is, in the order of the lines.

        Returns:
            Versions and events of the odd lines, numbered among all, and for each plain line how
            many versions of odd lines come before it.
        """
        tally = self._reading.tally
        odd = np.flatnonzero(~good)
        plain_before = np.cumsum(good)[odd] if len(odd) else odd
        made_by = np.zeros(len(good), dtype=np.int64)
        versions: list[tuple[int, str, int]] = []
        events: list[tuple[int, Event]] = []
        shown = [Place(file.name, int(rows.numbers[row])) for row in notes[:EXAMPLES].tolist()]
        for row, before in zip(odd.tolist(), plain_before.tolist(), strict=True):
            while shown and shown[0].line < rows.numbers[row]:
                tally.note(_LOCAL, shown.pop(0))
            start = int(rows.starts[row])
            end = lines.data.find(b"\n", start) + 1 or len(lines.data)
            place = Place(file.name, int(rows.numbers[row]))
            for found in resources_of_line(lines.data[start:end], place, tally):
                for version in self._reader.read(found):
                    number = before + len(versions)
                    events += [(number, event) for event in version.events]
                    versions.append((number, version.origin, microseconds(version.updated) or 0))
                    made_by[row] += 1
        for place in shown:
            tally.note(_LOCAL, place)
        if len(notes) > EXAMPLES:
            tally.notes[_LOCAL] += len(notes) - EXAMPLES
        return versions, events, np.cumsum(made_by)[good]

    def status(self, text: str | None) -> str | None:
        """A status as events hold it; none where the Observation is out of the ordinary."""
        if text is None:
            return ""
        if text not in self._statuses:
            value = json.loads(text)
            plain = isinstance(value, str) and value not in PLAIN_NOT
            self._statuses[text] = value if plain else None
        return self._statuses[text]

    def subject(self, text: str | None) -> int | None:
        """The pseudonym behind a reference; none where there is anything to say about it."""
        if text is None:
            return None
        if text not in self._found:
            if len(self._found) >= _MOST_REMEMBERED:
                self._found.clear()
            try:
                self._found[text] = self._subjects.of(_strict(text))
            except (UnusableError, ValueError, RecursionError):
                self._found[text] = None
        return self._found[text]

    def instants(self, texts: pa.Array) -> Instants:
        """Times, as the rules of reading have them."""
        return read_instants(texts, self._earliest, self._latest, self._instant)

    def _instant(self, text: str) -> tuple[int, int] | None:
        try:
            moment = self._reading.moment(_strict(text))
        except (UnusableError, ValueError, RecursionError):
            return None
        return _exact(moment.start), _exact(moment.known)

    def kept(
        self, code: str | None, unit: str | None, unit_code: str | None, comparator: str | None
    ) -> _Kept | None:
        """What numbers with these JSON texts beside them become; none where it is an odd case."""
        asked = (code, unit, unit_code, comparator)
        if asked not in self._kept:
            self._kept[asked] = self._keep(*asked)
        return self._kept[asked]

    def _keep(
        self, code: str | None, unit: str | None, unit_code: str | None, comparator: str | None
    ) -> _Kept | None:
        try:
            codes = codes_of(None if code is None else _strict(code))
            members = {"unit": unit, "code": unit_code, "comparator": comparator}
            quantity = {name: _strict(text) for name, text in members.items() if text is not None}
            bound = comparator_of(quantity)
            kept = kept_unit(codes[0], unit_of(quantity))
        except (UnusableError, IndexError, ValueError, RecursionError):
            return None
        convert = kept.convert
        return _Kept(
            code=codes[0],
            local=is_local(codes[0]),
            factor=1.0 if convert is None else convert.factor,
            offset=0.0 if convert is None else convert.offset,
            converted=convert is not None,
            unit=kept.unit,
            src_unit=kept.src_unit,
            comparator=bound,
        )

    @property
    def source(self) -> str:
        """The name of the source."""
        return self._reading.source


class _Rows(NamedTuple):
    """Lines that are not blank: where each starts, and its number."""

    starts: NDArray[np.int64]
    numbers: NDArray[np.int64]


class _Plain:
    """The plain Observations of some columns.

    Attributes:
        good: (rows,) which are plain.
    """

    def __init__(self, blocks: FhirBlocks, columns: Columns) -> None:
        self._blocks = blocks
        table = columns.table
        ids = _array(table["id"])
        good = columns.proven & _plain_text(ids)
        self._ids = ids
        self._status, status_good = _looked_up(_array(table["status"]), blocks.status, pa.string())
        self._subject, subject_good = _looked_up(
            _array(table["subject"]), blocks.subject, pa.int64()
        )
        happened = blocks.instants(_array(table["effectiveDateTime"]))
        issued = _array(table["issued"])
        known = blocks.instants(issued)
        silent = ~np.asarray(issued.is_valid()) | _is(issued, '""')
        self._time = happened.start
        self._available = np.where(silent, happened.known, known.known)
        good &= status_good & subject_good & happened.good & (silent | known.good)
        meta = _array(table["meta"]).flatten()[0]
        updated = blocks.instants(meta)
        self._updated = np.where(updated.good, updated.start, 0)
        self._parts, valued = _parts(table)
        good &= valued | columns.only_quantities
        self._codes, self._numbers, part_good = self._values()
        bad = np.bincount(self._parts.row[~part_good], minlength=len(good)) > 0
        any_part = np.bincount(self._parts.row, minlength=len(good)) > 0
        self.good = good & any_part & ~bad

    def _values(self) -> tuple["_Coded", NDArray[np.float64], NDArray[np.bool_]]:
        parts = self._parts
        quantity = parts.quantity
        coded = _Coded(
            [parts.code, quantity["unit"], quantity["code"], quantity["comparator"]],
            self._blocks.kept,
        )
        written = np.asarray(pc.fill_null(numbers_of(quantity["value"]), np.nan))
        good = coded.good & np.isfinite(written) & ((written != 0) | ~np.signbit(written))
        converted = written * coded.column("factor", 1.0) + coded.column("offset", 0.0)
        numbers = np.where(coded.column("converted", False), converted, written)
        return coded, numbers, good

    def local_notes(self, fast: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of every value with a code of a local vocabulary, in order."""
        local = self._codes.column("local", False)
        rows = self._parts.row[local]
        kept = np.zeros(len(self.good), dtype=np.bool_)
        kept[fast] = True
        return np.sort(rows[kept[rows]])

    def versions(self, fast: NDArray[np.int64], numbers: NDArray[np.int64]) -> pa.Table:
        """The versions of some rows, with their numbers."""
        columns = [pa.array(numbers), self._origins(fast), pa.array(self._updated[fast])]
        return pa.Table.from_arrays(columns, schema=VERSIONS)

    def _origins(self, fast: NDArray[np.int64]) -> pa.Array:
        ids = self._ids.take(pa.array(fast)).cast(pa.binary())
        bare = pc.binary_slice(ids, 1, -1).cast(pa.string())
        start = pa.scalar(f"{self._blocks.source}:Observation/")
        return pc.binary_join_element_wise(start, bare, "")

    def events(self, fast: NDArray[np.int64], numbers: NDArray[np.int64]) -> pa.Table:
        """The events of some rows, whose versions have these numbers."""
        place = np.full(len(self.good), -1, dtype=np.int64)
        place[fast] = np.arange(len(fast))
        at = place[self._parts.row]
        chosen = np.flatnonzero(at >= 0)
        at = at[chosen]
        row = fast[at]
        codes = self._codes
        part = pa.array(self._parts.number[chosen]).cast(pa.string())
        source = pc.binary_join_element_wise(self._origins(fast).take(pa.array(at)), part, "#")
        status = pc.if_else(pc.equal(self._status, ""), _NO_TEXT, self._status)
        return pa.Table.from_arrays(
            [
                self._subject.take(pa.array(row)),
                pa.array(self._time[row]).cast(pa.timestamp("us")),
                codes.texts("code", chosen),
                pa.array(self._numbers[chosen]),
                pa.nulls(len(chosen), pa.large_string()),
                pa.array(self._available[row]).cast(pa.timestamp("us")),
                codes.texts("unit", chosen),
                codes.texts("src_unit", chosen),
                codes.texts("comparator", chosen),
                source,
                status.take(pa.array(row)),
                pa.array(numbers[at]),
            ],
            schema=EVENTS,
        )


class _Coded:
    """Combinations of texts, each looked up once.

    Attributes:
        good: (rows,) where the combination means something.
    """

    def __init__(self, columns: list[pa.Array], look_up: Callable[..., _Kept | None]) -> None:
        key = np.zeros(len(columns[0]), dtype=np.int64)
        dictionaries: list[list[str | None]] = []
        for column in columns:
            coded = pc.dictionary_encode(column, null_encoding="encode")
            dictionaries.append(coded.dictionary.to_pylist())
            size = max(1, len(dictionaries[-1]))
            key = key * size + coded.indices.to_numpy(zero_copy_only=False)
        keys, self._which = np.unique(key, return_inverse=True)
        self._found = [look_up(*_texts(int(one), dictionaries)) for one in keys]
        self.good = np.array([kept is not None for kept in self._found], dtype=np.bool_)[
            self._which
        ]

    def column(self, name: str, absent: Any) -> NDArray[Any]:
        """One of the attributes, by row."""
        values = [absent if kept is None else getattr(kept, name) for kept in self._found]
        return np.array(values, dtype=type(absent))[self._which]

    def texts(self, name: str, rows: NDArray[np.int64]) -> pa.Array:
        """One of the attributes that are text, for some rows."""
        values = [None if kept is None else getattr(kept, name) for kept in self._found]
        return pa.array(values, type=pa.string()).take(pa.array(self._which[rows]))


def _texts(key: int, dictionaries: list[list[str | None]]) -> list[str | None]:
    texts: list[str | None] = []
    for dictionary in reversed(dictionaries):
        key, place = divmod(key, max(1, len(dictionary)))
        texts.append(dictionary[place])
    return texts[::-1]


def _block(versions: list[tuple[int, str, int]], events: list[tuple[int, Event]]) -> Block:
    return Block(versions=rows_table(versions, VERSIONS), events=event_table(events))


def _edges(
    lines: Lines,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Start and length of each line that is not blank, and of all lines which are blank."""
    data = np.frombuffer(lines.data, dtype=np.uint8)
    ends = _line_feeds(data)
    if not lines.data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    blank = ends == starts
    for row in np.flatnonzero(~blank & (data[np.minimum(starts, len(data) - 1)] <= 32)).tolist():
        blank[row] = not lines.data[starts[row] : ends[row]].strip()
    kept = ~blank
    return starts[kept], (ends - starts)[kept], blank


def _line_feeds(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    step = 1 << 18
    found = [
        np.flatnonzero(data[start : start + step] == 10) + start
        for start in range(0, len(data), step)
    ]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _parts(table: pa.Table) -> tuple[_Parts, NDArray[np.bool_]]:
    """All values, and which rows have one of their own."""
    quantity = _array(table["valueQuantity"])
    valued = np.asarray(quantity.is_valid())
    own = np.flatnonzero(valued)
    component = _array(table["component"])
    counts = pc.fill_null(pc.list_value_length(component), 0).to_numpy()
    rows = np.repeat(np.arange(len(component)), counts)
    first = np.cumsum(counts) - counts
    numbers = np.arange(len(rows)) - np.repeat(first, counts) + valued[rows]
    code, inner = component.flatten().flatten()
    codes = _array(table["code"]).take(pa.array(own))
    mine = dict(zip(QUANTITY, quantity.take(pa.array(own)).flatten(), strict=True))
    theirs = dict(zip(QUANTITY, inner.flatten(), strict=True))
    return (
        _Parts(
            row=np.concatenate([own, rows]),
            number=np.concatenate([np.zeros(len(own), dtype=np.int64), numbers]),
            code=pa.concat_arrays([codes, code]),
            quantity={name: pa.concat_arrays([mine[name], theirs[name]]) for name in QUANTITY},
        ),
        valued,
    )


def _looked_up(
    texts: pa.Array, look_up: Callable[[str | None], Any], kind: pa.DataType
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """What each text means, asked once for each, and where it means something."""
    coded = pc.dictionary_encode(texts, null_encoding="encode")
    meanings = pa.array([look_up(text) for text in coded.dictionary.to_pylist()], type=kind)
    found = meanings.take(coded.indices)
    return found, np.asarray(found.is_valid())


def _plain_text(texts: pa.Array) -> NDArray[np.bool_]:
    """Rows of JSON texts that are strings, not empty, without escapes and '#'."""
    lengths = np.asarray(pc.fill_null(pc.binary_length(texts), 0))
    plain = np.asarray(pc.fill_null(pc.starts_with(texts, '"'), False)) & (lengths > 2)
    content = texts.buffers()[2]
    data = b"" if content is None else content.to_pybytes()
    for mark in ("\\", "#"):
        if mark.encode() in data:
            plain &= ~np.asarray(pc.fill_null(pc.match_substring(texts, mark), False))
    return plain


def _is(texts: pa.Array, text: str) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(pc.equal(texts, text), False))


def _array(column: Any) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], type=column.type)


def _exact(time: datetime) -> int:
    found = microseconds(time)
    assert found is not None
    return found


def _refuse(constant: str) -> float:
    raise ValueError(constant)


_strict: Final = json.JSONDecoder(parse_constant=_refuse).decode
