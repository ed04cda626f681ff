"""What plain FHIR Observations in columns make: their versions and events, as columns.

Codes, subjects, statuses and units mean what the reader of single resources takes them to mean: its
functions are asked, once for each text however often it comes.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.records.blocks import EVENTS, VERSIONS, microseconds
from fedtwin_client.records.codes import codes_of, is_local
from fedtwin_client.records.fhir_columns import QUANTITY, Columns, numbers_of
from fedtwin_client.records.instants import Instants, read_alike, read_instants
from fedtwin_client.records.observation import PLAIN, comparator_of, unit_of
from fedtwin_client.records.reading import OLDEST_YEAR, Reading, UnusableError, unit_rule
from fedtwin_client.records.subjects import Subjects

_MOST_REMEMBERED: Final = 100_000
_NO_TEXT: Final = pa.scalar(None, pa.string())


class _Parts(NamedTuple):
    """Values of Observations: their own, or those of their components."""

    row: NDArray[np.int64]
    number: NDArray[np.int64]
    code: pa.Array
    quantity: dict[str, pa.Array]


class Kept(NamedTuple):
    """What one combination of code, unit and comparator becomes."""

    code: str
    local: bool
    factor: float
    offset: float
    unit: str | None
    src_unit: str | None
    comparator: str | None


class Meanings:
    """What texts mean under the rules of one import; none where a text is out of the ordinary."""

    def __init__(self, reading: Reading, subjects: Subjects) -> None:
        self._reading = reading
        self._subjects = subjects
        self._earliest = _exact(datetime(OLDEST_YEAR, 1, 1, tzinfo=UTC))
        self._latest = _exact(reading.now)
        self._kept: dict[tuple[str | None, ...], Kept | None] = {}
        self._statuses: dict[str, str | None] = {}
        self._subjects_of, self._patients_of = _Pseudonyms(), _Pseudonyms()

    def status(self, text: str | None) -> str | None:
        """A status as events hold it; none where the Observation is out of the ordinary."""
        if text is None:
            return ""
        if text not in self._statuses:
            value = json.loads(text)
            plain = isinstance(value, str) and value in PLAIN
            self._statuses[text] = value if plain else None
        return self._statuses[text]

    def subjects(self, texts: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
        """The pseudonyms behind JSON texts, and where there is nothing else to say about one."""
        return self._subjects_of.ask(texts, self._subject)

    def patients(self, references: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
        """The same for references alone, which hold nothing that JSON writes otherwise."""
        return self._patients_of.ask(
            references, lambda one: self._subject(f'{{"reference":"{one}"}}')
        )

    def _subject(self, text: str) -> int | None:
        try:
            return self._subjects.of(_strict(text))
        except (UnusableError, ValueError, RecursionError):
            return None

    def instants(self, texts: pa.Array) -> Instants:
        """Times, as the rules of reading have them."""
        return read_instants(texts, self._earliest, self._latest, self._instant)

    def instants_alike(self, texts: NDArray[np.uint8]) -> Instants:
        """Times, as rows of bytes without quotation marks."""
        return read_alike(texts, self._earliest, self._latest, self._instant)

    def _instant(self, text: str) -> tuple[int, int] | None:
        try:
            moment = self._reading.moment(_strict(text))
        except (UnusableError, ValueError, RecursionError):
            return None
        return _exact(moment.start), _exact(moment.known)

    def kept(
        self, code: str | None, unit: str | None, unit_code: str | None, comparator: str | None
    ) -> Kept | None:
        """What numbers with these JSON texts beside them become; none where it is an odd case."""
        asked = (code, unit, unit_code, comparator)
        if asked not in self._kept:
            self._kept[asked] = self._keep(*asked)
        return self._kept[asked]

    def _keep(
        self, code: str | None, unit: str | None, unit_code: str | None, comparator: str | None
    ) -> Kept | None:
        try:
            codes = codes_of(None if code is None else _strict(code))
            members = {"unit": unit, "code": unit_code, "comparator": comparator}
            quantity = {name: _strict(text) for name, text in members.items() if text is not None}
            bound = comparator_of(quantity)
            kept = unit_rule(codes[0], unit_of(quantity))
        except (UnusableError, IndexError, ValueError, RecursionError):
            return None
        return Kept(
            code=codes[0],
            local=is_local(codes[0]),
            factor=kept.convert.factor,
            offset=kept.convert.offset,
            unit=kept.unit,
            src_unit=kept.src_unit,
            comparator=bound,
        )

    @property
    def source(self) -> str:
        """The name of the source."""
        return self._reading.source


class _Pseudonyms:
    """What texts lead to, each asked for once as long as they are not very many."""

    def __init__(self) -> None:
        self._texts = pa.array([], type=pa.string())
        self._found = pa.array([], type=pa.int64())

    def ask(
        self, texts: pa.Array, look_up: Callable[[str], int | None]
    ) -> tuple[pa.Array, NDArray[np.bool_]]:
        """The pseudonym of each text, and where there is one."""
        known = pc.index_in(texts, self._texts)
        if known.null_count:
            unknown = pc.unique(texts.filter(pc.is_null(known)))
            if len(self._texts) > _MOST_REMEMBERED:
                self._texts, self._found = self._texts[:0], self._found[:0]
                unknown = pc.unique(texts)
            fresh = unknown.drop_null()
            found = pa.array([look_up(text) for text in fresh.to_pylist()], pa.int64())
            self._texts = pa.concat_arrays([self._texts, fresh])
            self._found = pa.concat_arrays([self._found, found])
            known = pc.index_in(texts, self._texts)
        subjects = self._found.take(known)
        return subjects, np.asarray(subjects.is_valid())


class Plain:
    """The plain Observations of some columns.

    Attributes:
        good: (rows,) which are plain.
    """

    def __init__(self, meanings: Meanings, columns: Columns) -> None:
        self._meanings = meanings
        table = columns.table
        ids = _array(table["id"])
        good = columns.proven & _plain_text(ids)
        self._ids = ids
        self._status, status_good = _looked_up(
            _array(table["status"]), meanings.status, pa.string()
        )
        self._subject, subject_good = meanings.subjects(_array(table["subject"]))
        happened = meanings.instants(_array(table["effectiveDateTime"]))
        issued = _array(table["issued"])
        known = meanings.instants(issued)
        silent = ~np.asarray(issued.is_valid()) | _is(issued, '""')
        self._time = happened.start
        self._available = np.where(silent, happened.known, known.known)
        good &= status_good & subject_good & happened.good & (silent | known.good)
        meta = _array(table["meta"]).flatten()[0]
        updated = meanings.instants(meta)
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
            self._meanings.kept,
        )
        written = np.asarray(pc.fill_null(numbers_of(quantity["value"]), np.nan))
        good = coded.good & np.isfinite(written) & ((written != 0) | ~np.signbit(written))
        with np.errstate(over="ignore"):
            numbers = written * coded.column("factor", 1.0) + coded.column("offset", 0.0)
        # Where the conversion overflows the rules of single lines say so.
        return coded, numbers, good & np.isfinite(numbers)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of the plain rows."""
        return np.flatnonzero(self.good)

    def local_rows(self) -> NDArray[np.int64]:
        """The row of every value with a code of a local vocabulary."""
        rows = self._parts.row[self._codes.column("local", False)]
        found: NDArray[np.int64] = rows[self.good[rows]]
        return found

    def versions(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The versions of the plain rows, with their numbers."""
        fast = self.rows
        columns = [pa.array(numbers), self._origins(fast), pa.array(self._updated[fast])]
        return pa.Table.from_arrays(columns, schema=VERSIONS)

    def _origins(self, fast: NDArray[np.int64]) -> pa.Array:
        ids = self._ids.take(pa.array(fast)).cast(pa.binary())
        bare = pc.binary_slice(ids, 1, -1).cast(pa.string())
        start = pa.scalar(f"{self._meanings.source}:Observation/")
        return pc.binary_join_element_wise(start, bare, "")

    def events(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The events of the plain rows, whose versions have these numbers."""
        fast = self.rows
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

    def __init__(self, columns: list[pa.Array], look_up: Callable[..., Kept | None]) -> None:
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
