"""Many lines of FHIR Observations of few shapes: found without parsing, read as columns."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.records.blocks import CODED_EVENTS, VERSIONS
from fedtwin_client.records.fhir_plain import Kept, Meanings
from fedtwin_client.records.fhir_shapes import Shape, shape_of, words

Mask = NDArray[np.bool_]
_FEWEST: Final = 4
_WORTH_LEARNING: Final = 8
_ATTEMPTS: Final = 400
_LINES_FOR_AN_ATTEMPT: Final = 128
_MOST_SHAPES: Final = 4_096
_LONGEST: Final = 4_096
_NEVER: Final = tuple(b'"\\#')
_OPTIONAL: Final = ("issued", "updated")


class _Group(NamedTuple):
    """Lines of one shape: their numbers and bytes."""

    shape: Shape
    rows: NDArray[np.int64]
    lines: NDArray[np.uint8]


class Shapes:
    """The shapes that were met so far in one import."""

    def __init__(self, meanings: Meanings) -> None:
        self._meanings = meanings
        self._known: dict[int, list[Shape]] = {}
        self._count = 0
        self._attempts = float(_ATTEMPTS)

    def read(self, data: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> "Alike":
        """The lines of shapes that are known or can be learnt.

        Args:
            data: whole lines.
            starts: (rows,) where each line that is not blank begins.
            lengths: (rows,) of each line, without its line end.
        """
        if b'"Observation"' not in data:
            return Alike(self._meanings, [])
        order = np.argsort(lengths, kind="stable")
        edges = np.flatnonzero(np.diff(lengths[order])) + 1
        groups: list[_Group] = []
        for rows in np.split(order, edges):
            length = int(lengths[rows[0]]) if len(rows) else 0
            if len(rows) >= _FEWEST and 0 < length <= _LONGEST:
                lines = _gathered(data, starts[rows], length)
                if lines is not None:
                    groups += self._groups(rows, lines, length)
        self._attempts += sum(len(group.rows) for group in groups) / _LINES_FOR_AN_ATTEMPT
        return Alike(self._meanings, groups)

    def _groups(
        self, rows: NDArray[np.int64], lines: NDArray[np.uint8], length: int
    ) -> Iterator[_Group]:
        """Lines of one length by their shape; learning is worth its while only where many come."""
        known = self._known.setdefault(length, [])
        left = np.arange(len(rows))
        for shape in tuple(known):
            if len(left) < _FEWEST:
                return
            left, group = _parted(rows, lines, left, shape)
            if group is not None:
                yield group
        while len(left) >= _WORTH_LEARNING and self._attempts >= 1 and self._count < _MOST_SHAPES:
            self._attempts -= 1
            learnt = shape_of(lines[left[0], :length].tobytes(), self._meanings)
            group = None
            if learnt is not None:
                learnt = learnt._replace(probe=_probe(learnt, known))
                known.append(learnt)
                self._count += 1
                left, group = _parted(rows, lines, left, learnt)
            if group is None:  # this line holds something that lines of a shape may not
                left = left[1:]
            else:
                yield group


def _probe(shape: Shape, known: list[Shape]) -> int:
    """A word in which a shape differs from the one that was learnt before."""
    if not known:
        return 0
    both = shape.mask & known[-1].mask
    return int(np.argmax((shape.line & both) != (known[-1].line & both)))


def _gathered(data: bytes, starts: NDArray[np.int64], length: int) -> NDArray[np.uint8] | None:
    """(lines, bytes) of some lines of one length, with zeros at their ends."""
    width = words(length)
    content = np.frombuffer(data, dtype=np.uint8)
    if len(content) < width:
        return None
    last = len(content) - width
    view = np.ndarray((last + 1,), dtype=f"V{width}", buffer=data, strides=(1,))
    inside = starts <= last
    found = view[np.minimum(starts, last)].view(np.uint8).reshape(-1, width)
    for row in np.flatnonzero(~inside).tolist():
        rest = content[starts[row] : starts[row] + length]
        found[row, : len(rest)] = rest
    found[:, length:] = 0
    return found


def _parted(
    rows: NDArray[np.int64], lines: NDArray[np.uint8], left: NDArray[np.int64], shape: Shape
) -> tuple[NDArray[np.int64], _Group | None]:
    """Find lines of a shape.

    Args:
        rows: (lines,) their numbers.
        lines: (lines, bytes) of one length.
        left: which of them are of no shape yet.
        shape: to look for.

    Returns:
        Which are left, and those that were found.
    """
    probed = lines.view(np.uint64)[left, shape.probe] & shape.mask[shape.probe]
    chosen = left[probed == shape.line[shape.probe]]
    if not len(chosen):
        return left, None
    found = lines if len(chosen) == len(lines) else lines.take(chosen, axis=0)
    fit: Mask = ~np.any((found.view(np.uint64) & shape.mask) != shape.line, axis=1)
    if shape.texts:
        texts = [found[:, start:end] for start, end in shape.texts]
        fit &= _safe(np.concatenate(texts, axis=1))
    for value in shape.values:
        fit &= _numbers(found[:, value.span[0] : value.span[1]])
    if not fit.all():
        chosen, found = chosen[fit], found[fit]
    if not len(chosen):
        return left, None
    taken = np.zeros(len(lines), dtype=np.bool_)
    taken[chosen] = True
    return left[~taken[left]], _Group(shape, rows[chosen], found)


def _safe(text: NDArray[np.uint8]) -> Mask:
    """Which rows hold nothing but characters of ASCII that stand for themselves in a JSON text."""
    odd: Mask = np.greater(text - np.uint8(32), 94)
    for byte in _NEVER:
        odd |= text == byte
    safe: Mask = ~np.any(odd, axis=1)
    return safe


def _numbers(text: NDArray[np.uint8]) -> Mask:
    """Which rows are JSON numbers without an exponent."""
    digit = (text >= 48) & (text <= 57)
    point = text == 46
    signed = text[:, 0] == 45
    right = digit | point
    right[:, 0] = digit[:, 0] | signed
    width = text.shape[1]
    good: Mask = right.all(axis=1) & digit[:, -1] & (point.sum(axis=1) <= 1)
    after = point[:, 1] if width > 1 else np.ones(len(text), dtype=np.bool_)
    good &= signed | (text[:, 0] != 48) | after
    if width > 1:
        last = width == 2
        zero = signed & (text[:, 1] == 48)
        good &= ~signed | digit[:, 1]
        good &= ~zero | (point[:, 2] if not last else False)
    return good


class Alike:
    """What lines of known shapes make.

    Attributes:
        rows: (lines,) their numbers among the rows that were handed in.
    """

    def __init__(self, meanings: Meanings, groups: list[_Group]) -> None:
        self._source = f"{meanings.source}:Observation/".encode()
        fields = {name: _field(groups, name) for name in ("subject", "effectiveDateTime")}
        fields |= {name: _field(groups, name) for name in _OPTIONAL}
        rows = [group.rows for group in groups]
        self.rows = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
        self._subject, good = meanings.subjects(fields["subject"])
        happened = meanings.instants(fields["effectiveDateTime"])
        known = meanings.instants(fields["issued"])
        silent = ~np.asarray(fields["issued"].is_valid())
        self._time = happened.start
        self._available = np.where(silent, happened.known, known.known)
        good &= happened.good & (silent | known.good)
        updated = meanings.instants(fields["updated"])
        self._updated = np.where(updated.good, updated.start, 0)
        self._statuses = [group.shape.status for group in groups]
        self._origins = _joined([_origins(group, self._source) for group in groups])
        self._take_values(groups)
        good &= np.bincount(self._at[~self._fine], minlength=len(good)) == 0
        self._good = good
        self.rows = self.rows[good]

    def _take_values(self, groups: list[_Group]) -> None:
        """The numbers of all lines: whose, which part, what it becomes."""
        at: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
        sources: list[pa.Array] = []
        texts: list[pa.Array] = []
        first, counts = 0, []
        self._kept: list[Kept] = []
        self._group_of: list[int] = []
        for number, group in enumerate(groups):
            for value in group.shape.values:
                at.append(np.arange(first, first + len(group.rows)))
                sources.append(_origins(group, self._source, f"#{value.part}".encode()))
                texts.append(_strings(group.lines[:, value.span[0] : value.span[1]]))
                self._kept.append(value.kept)
                self._group_of.append(number)
                counts.append(len(group.rows))
            first += len(group.rows)
        self._at = np.concatenate(at)
        self._which = np.repeat(np.arange(len(counts)), np.array(counts, dtype=np.int64))
        self._sources = _joined(sources)
        written = np.asarray(pc.cast(_joined(texts), pa.float64()))
        self._fine = np.isfinite(written) & ((written != 0) | ~np.signbit(written))
        factor = np.array([kept.factor for kept in self._kept])[self._which]
        offset = np.array([kept.offset for kept in self._kept])[self._which]
        with np.errstate(over="ignore"):
            self._numbers = written * factor + offset
        # Where the conversion overflows the rules of single lines say so.
        self._fine &= np.isfinite(self._numbers)

    def local_rows(self) -> NDArray[np.int64]:
        """The row of every value with a code of a local vocabulary."""
        local = np.array([kept.local for kept in self._kept], dtype=np.bool_)[self._which]
        place = np.cumsum(self._good) - 1
        found: NDArray[np.int64] = self.rows[place[self._at[local & self._good[self._at]]]]
        return found

    def versions(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The versions of all rows, with their numbers."""
        good = pa.array(self._good)
        columns = [pa.array(numbers), self._origins.filter(good), self._updated[self._good]]
        return pa.Table.from_arrays([*columns[:2], pa.array(columns[2])], schema=VERSIONS)

    def events(self, numbers: NDArray[np.int64]) -> pa.Table:
        """The events of all rows, whose versions have these numbers."""
        number_of = np.full(len(self._good), -1, dtype=np.int64)
        number_of[self._good] = numbers
        chosen = np.flatnonzero(self._good[self._at])
        at = self._at[chosen]
        which = self._which[chosen]
        statuses = [self._statuses[group] for group in self._group_of]
        return pa.Table.from_arrays(
            [
                self._subject.take(pa.array(at)),
                pa.array(self._time[at]).cast(pa.timestamp("us")),
                self._coded("code", which),
                pa.array(self._numbers[chosen]),
                pa.nulls(len(chosen), pa.large_string()),
                pa.array(self._available[at]).cast(pa.timestamp("us")),
                self._coded("unit", which),
                self._coded("src_unit", which),
                self._coded("comparator", which),
                self._sources.take(pa.array(chosen)),
                _dictionary(statuses, which),
                pa.array(number_of[at]),
            ],
            schema=CODED_EVENTS,
        )

    def _coded(self, name: str, which: NDArray[np.int64]) -> pa.Array:
        return _dictionary([getattr(kept, name) for kept in self._kept], which)


def _strings(content: NDArray[np.uint8]) -> pa.Array:
    """Rows of bytes as texts."""
    rows, width = content.shape
    offsets = np.arange(0, (rows + 1) * width, max(width, 1), dtype=np.int32)[: rows + 1]
    return pa.StringArray.from_buffers(
        rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(content))
    )


def _dictionary(texts: list[str | None], which: NDArray[np.int64]) -> pa.Array:
    """For each number the text, as a dictionary."""
    coded = pc.dictionary_encode(pa.array(texts, type=pa.string()))
    return pa.DictionaryArray.from_arrays(coded.indices.take(pa.array(which)), coded.dictionary)


def _joined(arrays: list[pa.Array]) -> pa.Array:
    return pa.concat_arrays(arrays) if arrays else pa.array([], type=pa.string())


def _field(groups: list[_Group], name: str) -> pa.Array:
    arrays: list[Any] = []
    for group in groups:
        span = group.shape.fields.get(name)
        if span is None:
            arrays.append(pa.nulls(len(group.rows), pa.string()))
        else:
            arrays.append(_strings(group.lines[:, span[0] : span[1]]))
    return _joined(arrays)


def _origins(group: _Group, start: bytes, end: bytes = b"") -> pa.Array:
    first, last = group.shape.fields["id"]
    width = last - first - 2
    content = np.empty((len(group.rows), len(start) + width + len(end)), dtype=np.uint8)
    content[:, : len(start)] = np.frombuffer(start, dtype=np.uint8)
    content[:, len(start) : len(start) + width] = group.lines[:, first + 1 : last - 1]
    content[:, len(start) + width :] = np.frombuffer(end, dtype=np.uint8)
    return _strings(content)
