"""What lines of FHIR Observations of few shapes make: their versions and events, as columns."""

from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.records.blocks import CODED_EVENTS, VERSIONS
from fedtwin_client.records.fhir.meanings import Kept, Meanings
from fedtwin_client.records.fhir.shapes import FIELDS, Shape
from fedtwin_client.records.instants import Instants

Mask = NDArray[np.bool_]
_PART: Final = ord("#")


class Group(NamedTuple):
    """Lines of one shape.

    Attributes:
        shape: of all.
        rows: (lines,) their numbers.
        fields: (lines, bytes) the texts of `FIELDS`, one beside the other, without quotation marks.
        values: of each of the shape's numbers, (lines, bytes) as written.
    """

    shape: Shape
    rows: NDArray[np.int64]
    fields: NDArray[np.uint8]
    values: tuple[NDArray[np.uint8], ...]


class _Texts(NamedTuple):
    """Texts of one length: of which lines, and (lines, bytes)."""

    lines: NDArray[np.int64]
    content: NDArray[np.uint8]


class _Numbers(NamedTuple):
    """The first numbers of all lines, or the second ones, and so on.

    Attributes:
        which: (lines,) the place of what it becomes among `Alike._kept`; -1: there is none.
        number: (lines,) in the unit that its code is kept in.
        good: (lines,) whether it is a number, or there is none.
    """

    which: NDArray[np.int64]
    number: NDArray[np.float64]
    good: Mask


class Alike:
    """What lines of known shapes make.

    Attributes:
        rows: (lines,) their numbers among the rows that were handed in.
    """

    def __init__(self, meanings: Meanings, groups: list[Group]) -> None:
        self._meanings = meanings
        self._source = f"{meanings.source}:Observation/".encode()
        self._groups = groups
        self._firsts = [0, *accumulate(len(group.rows) for group in groups)]
        self._ids = self._texts("id")
        self._subject, good = self._subjects()
        happened, known = self._instants("effectiveDateTime"), self._instants("issued")
        issued = FIELDS.index("issued")
        silent = self._each(group.shape.widths[issued] for group in groups) < 0
        self._time = happened.start
        self._available = np.where(silent, happened.known, known.known)
        good &= happened.good & (silent | known.good)
        updated = self._instants("updated")
        self._updated = np.where(updated.good, updated.start, 0)
        for ids in self._ids:
            odd = (ids.content == _PART).any(axis=1)
            good[ids.lines[odd]] = False
        self._numbers = self._read_numbers()
        for numbers in self._numbers:
            good &= numbers.good
        self._good = good
        rows = [group.rows for group in groups]
        self.rows = np.concatenate([np.zeros(0, dtype=np.int64), *rows])[good]

    def local_rows(self) -> NDArray[np.int64]:
        """The row of every value with a code of a local vocabulary."""
        local = np.array([*(kept.local for kept in self._kept), False], dtype=np.bool_)
        found = [local[numbers.which][self._good] for numbers in self._numbers]
        return np.concatenate([self.rows[:0], *(self.rows[where] for where in found)])

    def versions(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The versions of all rows, with their numbers."""
        number_of = self._for_all(numbers)
        tables = [VERSIONS.empty_table()]
        for ids in self._ids:
            lines, origins = self._origins(ids, self._good[ids.lines])
            columns = [pa.array(number_of[lines]), origins, pa.array(self._updated[lines])]
            tables.append(pa.Table.from_arrays(columns, schema=VERSIONS))
        return pa.concat_tables(tables)

    def events(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The events of all rows, whose versions have these numbers."""
        number_of = self._for_all(numbers)
        status_of = self._each(range(len(self._groups)))
        statuses = _coded(group.shape.status for group in self._groups)
        kept = {
            name: _coded(getattr(one, name) for one in self._kept)
            for name in ("code", "unit", "src_unit", "comparator")
        }
        tables = [CODED_EVENTS.empty_table()]
        for part, written in enumerate(self._numbers):
            for ids in self._ids:
                chosen = self._good[ids.lines] & (written.which[ids.lines] >= 0)
                lines, sources = self._origins(ids, chosen, f"#{part}")
                which = written.which[lines]
                columns = {name: _taken(texts, which) for name, texts in kept.items()} | {
                    "subject_id": self._subject.take(pa.array(lines)),
                    "time": pa.array(self._time[lines]).cast(pa.timestamp("us")),
                    "numeric_value": pa.array(written.number[lines]),
                    "text_value": pa.nulls(len(lines), pa.large_string()),
                    "available_time": pa.array(self._available[lines]).cast(pa.timestamp("us")),
                    "source": sources,
                    "status": _taken(statuses, status_of[lines]),
                    "version": pa.array(number_of[lines]),
                }
                tables.append(pa.table(columns, schema=CODED_EVENTS))
        return pa.concat_tables(tables)

    def _each(self, values: Iterable[Any]) -> NDArray[Any]:
        """What is said of each group, for its lines."""
        return np.repeat(np.array(list(values), dtype=np.int64), np.diff(self._firsts))

    def _for_all(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """For all lines what is said of those that are good."""
        whole = np.full(len(self._good), -1, dtype=np.int64)
        whole[self._good] = numbers
        return whole

    def _texts(self, name: str) -> list[_Texts]:
        """A field of all groups that have it."""
        place = FIELDS.index(name)
        parts = []
        for group, first in zip(self._groups, self._firsts, strict=False):
            start = sum(max(width, 0) for width in group.shape.widths[:place])
            width = group.shape.widths[place]
            if width >= 0:
                parts.append((first, group.fields[:, start : start + width]))
        return _by_length(parts)

    def _subjects(self) -> tuple[pa.Array, Mask]:
        """The pseudonym of each line, and where there is nothing else to say about one."""
        texts = self._texts("subject")
        named, good = self._meanings.patients(_joined(_strings(text.content) for text in texts))
        others = pa.array([group.shape.subject for group in self._groups], pa.string())
        same, same_good = self._meanings.subjects(others)
        place = self._each(range(len(named), len(named) + len(others)))
        lines = np.concatenate([np.zeros(0, dtype=np.int64), *(text.lines for text in texts)])
        place[lines] = np.arange(len(named))
        subjects = pa.concat_arrays([named, same]).take(pa.array(place))
        return subjects, np.concatenate([good, same_good])[place]

    def _instants(self, name: str) -> Instants:
        """The times of a field; where there is none they are no good."""
        rows = self._firsts[-1]
        start, known = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        good = np.zeros(rows, dtype=np.bool_)
        for texts in self._texts(name):
            found = self._meanings.instants_alike(texts.content)
            start[texts.lines], known[texts.lines] = found.start, found.known
            good[texts.lines] = found.good
        return Instants(start, known, good)

    def _read_numbers(self) -> list[_Numbers]:
        places: dict[Kept, int] = {}
        found: list[_Numbers] = []
        for part in range(max((len(group.values) for group in self._groups), default=0)):
            which = np.full(self._firsts[-1], -1, dtype=np.int64)
            number = np.zeros(len(which))
            good = np.ones(len(which), dtype=np.bool_)
            parts = []
            for group, first in zip(self._groups, self._firsts, strict=False):
                if part < len(group.values):
                    kept = group.shape.values[part].kept
                    which[first : first + len(group.rows)] = places.setdefault(kept, len(places))
                    parts.append((first, group.values[part]))
            for texts in _by_length(parts):
                number[texts.lines], good[texts.lines] = _read_numbers(texts.content)
            found.append(_Numbers(which, number, good))
        self._kept = list(places)
        factors = np.array([*(kept.factor for kept in self._kept), 1.0])
        offsets = np.array([*(kept.offset for kept in self._kept), 0.0])
        converted = []
        for one in found:
            with np.errstate(over="ignore"):
                number = one.number * factors[one.which] + offsets[one.which]
            # Where the conversion overflows the rules of single lines say so.
            converted.append(one._replace(number=number, good=one.good & np.isfinite(number)))
        return converted

    def _origins(
        self, ids: _Texts, chosen: Mask, ending: str = ""
    ) -> tuple[NDArray[np.int64], pa.Array]:
        """Chosen lines of these, and their origins with an ending."""
        every = bool(chosen.all())
        content = ids.content if every else ids.content[chosen]
        end = ending.encode()
        first, last = len(self._source), len(self._source) + content.shape[1]
        whole = np.empty((len(content), last + len(end)), dtype=np.uint8)
        whole[:, :first] = np.frombuffer(self._source, dtype=np.uint8)
        whole[:, first:last] = content
        whole[:, last:] = np.frombuffer(end, dtype=np.uint8)
        return ids.lines if every else ids.lines[chosen], _strings(whole)


def _by_length(parts: Iterable[tuple[int, NDArray[np.uint8]]]) -> list[_Texts]:
    """Texts together with others of the same length.

    Args:
        parts: the number of the first line, and (lines, bytes) from there on.
    """
    found: dict[int, list[tuple[int, NDArray[np.uint8]]]] = {}
    for first, content in parts:
        found.setdefault(content.shape[1], []).append((first, content))
    return [
        _Texts(
            np.concatenate([np.arange(first, first + len(content)) for first, content in same]),
            np.concatenate([content for _, content in same]),
        )
        for same in found.values()
    ]


def _read_numbers(texts: NDArray[np.uint8]) -> tuple[NDArray[np.float64], Mask]:
    """The number in each row, and where there is one; a negative zero is none here."""
    good = are_numbers(texts)
    number = np.zeros(len(texts))
    number[good] = pc.cast(_strings(texts[good]), pa.float64())
    return number, good & np.isfinite(number) & ((number != 0) | ~np.signbit(number))


def are_numbers(texts: NDArray[np.uint8]) -> Mask:
    """Which rows of bytes are JSON numbers without an exponent."""
    columns = np.ascontiguousarray(texts.T)
    digit = columns - np.uint8(48) <= 9
    point = columns == 46
    signed, zero = columns[0] == 45, columns[0] == 48
    good: Mask = (digit[0] | signed) & digit[-1]
    if len(columns) == 1:
        return good
    good &= (digit[1:] | point[1:]).all(axis=0)
    good &= np.add.reduce(point, axis=0, dtype=np.uint8) <= 1
    good &= ~zero | point[1]
    if signed.any():
        after = point[2] if len(columns) > 2 else np.zeros(len(good), dtype=np.bool_)
        good &= ~signed | (digit[1] & ((columns[1] != 48) | after))
    return good


def _strings(content: NDArray[np.uint8]) -> pa.Array:
    """Rows of bytes, side by side in memory, as texts."""
    rows, width = content.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(width)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(content))


def _joined(arrays: Iterable[pa.Array]) -> pa.Array:
    return pa.concat_arrays([pa.array([], type=pa.string()), *arrays])


def _coded(texts: Iterable[str | None]) -> pa.DictionaryArray:
    return pc.dictionary_encode(pa.array(list(texts), type=pa.string()))


def _taken(texts: pa.DictionaryArray, which: NDArray[np.int64]) -> pa.Array:
    """For each number the text, as a dictionary."""
    return pa.DictionaryArray.from_arrays(texts.indices.take(pa.array(which)), texts.dictionary)
