"""What plain FHIR Observations in columns make: their versions and events, as columns."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.records.blocks import CODED_EVENTS, VERSIONS
from fedtwin_client.records.fhir.columns import numbers_of
from fedtwin_client.records.fhir.meanings import Kept, Meanings
from fedtwin_client.records.fhir.members import Members, Quantities

_KINDS: Final = {"number": pa.float64(), "text": pa.large_string()}


class Plain:
    """The plain Observations of some lines.

    Attributes:
        good: (rows,) which are plain.
    """

    def __init__(self, meanings: Meanings, members: Members) -> None:
        self._meanings = meanings
        self._ids = members.id
        good = members.proven & _plain_text(members.id)
        self._status, status_good = _looked_up(members.status, meanings.status)
        self._subject, subject_good = meanings.subjects(members.subject)
        happened = meanings.instants(members.happened)
        known = meanings.instants(members.issued)
        silent = ~np.asarray(members.issued.is_valid()) | _is(members.issued, '""')
        self._time = happened.start
        self._available = np.where(silent, happened.known, known.known)
        good &= status_good & subject_good & happened.good & (silent | known.good)
        updated = meanings.instants(members.updated)
        self._updated = np.where(updated.good, updated.start, 0)
        quantities, answers = members.quantities, members.answers
        self._values = (
            _numbers(quantities, meanings),
            _Values(
                answers.row,
                answers.number,
                _Coded([answers.code, answers.answer], meanings.answered),
                None,
            ),
        )
        any_value = np.zeros(len(good), dtype=np.bool_)
        for values in self._values:
            any_value[values.row] = True
            good[values.row[~values.coded.good]] = False
        self.good = good & any_value

    @property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of the plain rows."""
        return np.flatnonzero(self.good)

    def local_rows(self) -> NDArray[np.int64]:
        """The row of every value with a code of a local vocabulary."""
        rows = np.concatenate([one.row[one.coded.column("local", False)] for one in self._values])
        found: NDArray[np.int64] = rows[self.good[rows]]
        return found

    def versions(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The versions of the plain rows, with their numbers."""
        fast = self.rows
        columns = [pa.array(numbers), self._origins, pa.array(self._updated[fast])]
        return pa.Table.from_arrays(columns, schema=VERSIONS)

    @cached_property
    def _origins(self) -> pa.Array:
        """Of the plain rows."""
        ids = self._ids.take(pa.array(self.rows)).cast(pa.binary())
        bare = pc.binary_slice(ids, 1, -1).cast(pa.string())
        start = pa.scalar(f"{self._meanings.source}:Observation/")
        return pc.binary_join_element_wise(start, bare, "")

    def events(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The events of the plain rows, whose versions have these numbers."""
        return pa.concat_tables(self._events(values, numbers) for values in self._values)

    def _events(self, values: "_Values", numbers: NDArray[np.int64]) -> pa.Table:
        fast = self.rows
        place = np.full(len(self.good), -1, dtype=np.int64)
        place[fast] = np.arange(len(fast))
        at = place[values.row]
        chosen = np.flatnonzero(at >= 0)
        at = at[chosen]
        row = fast[at]
        coded = values.coded
        part = pa.array(values.part[chosen]).cast(pa.string())
        source = pc.binary_join_element_wise(self._origins.take(pa.array(at)), part, "#")
        if values.number is None:
            number, text = (coded.take(name, chosen) for name in ("number", "text"))
        else:
            number = pa.array(values.number[chosen])
            text = pa.nulls(len(chosen), pa.large_string())
        return pa.Table.from_arrays(
            [
                self._subject.take(pa.array(row)),
                pa.array(self._time[row]).cast(pa.timestamp("us")),
                coded.texts("code", chosen),
                number,
                text,
                pa.array(self._available[row]).cast(pa.timestamp("us")),
                coded.texts("unit", chosen),
                coded.texts("src_unit", chosen),
                coded.texts("comparator", chosen),
                source,
                self._status.take(pa.array(row)),
                pa.array(numbers[at]),
            ],
            schema=CODED_EVENTS,
        )


class _Values(NamedTuple):
    """Values of one kind.

    Attributes:
        row: (values,) of which line.
        part: (values,) which part of the Observation it is.
        coded: what it becomes.
        number: (values,) in the unit that its code is kept in; none where `coded` says it.
    """

    row: NDArray[np.int64]
    part: NDArray[np.int64]
    coded: "_Coded"
    number: NDArray[np.float64] | None


def _numbers(quantities: Quantities, meanings: Meanings) -> _Values:
    columns = [quantities.code, quantities.unit, quantities.unit_code, quantities.comparator]
    coded = _Coded(columns, meanings.kept)
    written = np.asarray(pc.fill_null(numbers_of(quantities.value), np.nan))
    coded.good &= np.isfinite(written) & ((written != 0) | ~np.signbit(written))
    with np.errstate(over="ignore"):
        numbers = written * coded.column("factor", 1.0) + coded.column("offset", 0.0)
    # Where the conversion overflows the rules of single lines say so.
    coded.good &= np.isfinite(numbers)
    return _Values(quantities.row, quantities.number, coded, numbers)


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
        """One of the attributes that are text, for some rows, as a dictionary."""
        values = [None if kept is None else getattr(kept, name) for kept in self._found]
        return _coded(values, pa.array(self._which[rows]))

    def take(self, name: str, rows: NDArray[np.int64]) -> pa.Array:
        """One of the attributes of an event's value, for some rows."""
        values = [None if kept is None else getattr(kept, name) for kept in self._found]
        return pa.array(values, type=_KINDS[name]).take(pa.array(self._which[rows]))


def _texts(key: int, dictionaries: list[list[str | None]]) -> list[str | None]:
    texts: list[str | None] = []
    for dictionary in reversed(dictionaries):
        key, place = divmod(key, max(1, len(dictionary)))
        texts.append(dictionary[place])
    return texts[::-1]


def _looked_up(
    texts: pa.Array, look_up: Callable[[str | None], str | None]
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """What each text means, asked once for each, and where it means something; "" is nothing."""
    coded = pc.dictionary_encode(texts, null_encoding="encode")
    meanings = [look_up(text) for text in coded.dictionary.to_pylist()]
    good = np.array([meaning is not None for meaning in meanings], dtype=np.bool_)
    return _coded(meanings, coded.indices), good[coded.indices.to_numpy()]


def _coded(meanings: Sequence[str | None], which: pa.Array) -> pa.Array:
    """The meaning at each place, as a dictionary; "" is none."""
    texts = pc.dictionary_encode(pa.array([text or None for text in meanings], pa.string()))
    return pa.DictionaryArray.from_arrays(texts.indices.take(which), texts.dictionary)


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
