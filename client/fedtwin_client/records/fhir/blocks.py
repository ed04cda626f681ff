"""FHIR NDJSON as blocks: plain Observations as columns, every other line by the reader of one.

What a plain Observation makes is decided by the same functions that read a single one: a code, a
subject, a status, a unit with its comparator is asked for once however often it comes. Only what
differs from line to line (ids, times, numbers) goes through as columns. A line about which anything
is out of the ordinary goes to `FhirReader`, so that both ways make the same events and the same
account, in the same order.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedtwin_client.records.blocks import (
    VERSIONS,
    Block,
    coded,
    event_table,
    microseconds,
    rows_table,
)
from fedtwin_client.records.events import Event
from fedtwin_client.records.fhir.alike import Shapes
from fedtwin_client.records.fhir.alike_columns import Alike
from fedtwin_client.records.fhir.columns import KNOWN, ColumnReader
from fedtwin_client.records.fhir.framed import Frames
from fedtwin_client.records.fhir.meanings import Meanings
from fedtwin_client.records.fhir.members import members_of
from fedtwin_client.records.fhir.plain import Plain
from fedtwin_client.records.lines import Lines
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import EXAMPLES, Place
from fedtwin_client.records.resources import Found, resources_in, resources_of_line
from fedtwin_client.records.source import Version
from fedtwin_client.records.subjects import Subjects

_SAMPLED: Final = 40
_MOST_MEMBERS: Final = 40
_FEWEST: Final = 200
_FEWEST_OF_MANY_SHAPES: Final = 200  # for fewer the reader of one is quicker
_MOSTLY: Final = 0.9  # where fewer agree, all are found quicker by their members
_MOST_VERSIONS: Final = 20_000
_LOCAL: Final = "code of a local vocabulary"


class FhirBlocks:
    """Reads files of lines into blocks."""

    def __init__(
        self, reading: Reading, subjects: Subjects, read: Callable[[Found], Iterator[Version]]
    ) -> None:
        """Start.

        Args:
            reading: the import's rules and account.
            subjects: leads from references to pseudonyms.
            read: reads what is not plain.
        """
        self._reading = reading
        self._read_one = read
        self._reader = ColumnReader()
        self._meanings = Meanings(reading, subjects)
        self._shapes = Shapes(self._meanings)
        self._frames = Frames()
        self._file: Path | None = None
        self._many_alike = True

    def close(self) -> None:
        """Let go of the memory."""
        self._reader.close()

    def read(self, lines: Lines, file: Path) -> Iterator[Block]:
        """The blocks of some lines of a file."""
        starts, lengths, blank = _edges(lines)
        if lines.too_long or len(starts) < _FEWEST:
            yield from self.one_by_one(resources_in(lines, file, self._reading.tally))
            return
        if file != self._file:
            self._file, self._many_alike = file, True
        good = np.zeros(len(starts), dtype=np.bool_)
        makers: list[tuple[NDArray[np.int64], Alike | Plain]] = []
        rest, some = np.arange(len(starts)), _Some(lines.data, starts, lengths)
        for look in (self._alike, self._framed, self._columns):
            made = look(some)
            if made is None:
                continue
            maker, rows, left = made
            good[rest[rows][maker.rows]] = True
            makers.append((rest[rows], maker))
            rest = rest[left]
            if len(rest) < _FEWEST_OF_MANY_SHAPES:
                break
            some = some.only(left)
        numbers = lines.first + np.flatnonzero(~blank)
        yield self._mixed(lines, file, _Rows(starts, numbers, good), makers)

    def _alike(self, some: "_Some") -> "_Made | None":
        """Lines of one length that agree byte for byte; none where few do."""
        if not self._many_alike:
            return None
        alike = self._shapes.read(*some)
        left = np.ones(len(some.starts), dtype=np.bool_)
        left[alike.rows] = False
        self._many_alike = len(alike.rows) >= _MOSTLY * len(left)
        return _Made(alike, np.arange(len(left)), np.flatnonzero(left))

    def _framed(self, some: "_Some") -> "_Made":
        """Lines with the same members, of any length."""
        framed = self._frames.read(*some)
        return _Made(Plain(self._meanings, framed.members), framed.rows, framed.left)

    def _columns(self, some: "_Some") -> "_Made | None":
        """Lines of any shape; none if no Observations are among them."""
        data, starts, lengths = some
        ends = starts + lengths
        more = _members([data[start:end] for start, end in zip(starts, ends, strict=True)])
        columns = None if more is None else self._reader.read(data, starts, lengths, more)
        if columns is None:
            return None
        every = np.arange(len(starts))
        return _Made(Plain(self._meanings, members_of(columns)), every, every[:0])

    def one_by_one(self, resources: Iterable[Found]) -> Iterator[Block]:
        """Blocks of resources that the reader of one reads."""
        versions: list[tuple[int, str, int]] = []
        events: list[tuple[int, Event]] = []
        for found in resources:
            for version in self._read_one(found):
                events += [(len(versions), event) for event in version.events]
                updated = microseconds(version.updated) or 0
                versions.append((len(versions), version.origin, updated))
            if len(versions) >= _MOST_VERSIONS:
                yield _block(versions, events)
                versions, events = [], []
        yield _block(versions, events)

    def _mixed(
        self,
        lines: Lines,
        file: Path,
        rows: "_Rows",
        makers: list[tuple[NDArray[np.int64], Alike | Plain]],
    ) -> Block:
        """What makes columns, and the reader of one, make of some lines.

        Args:
            lines: all.
            file: where they stand.
            rows: the lines, and which are plain.
            makers: each with the rows that it makes, and what makes them.
        """
        notes = [rows_of[maker.local_rows()] for rows_of, maker in makers]
        versions, events, before = self._odd(lines, file, rows, np.sort(np.concatenate(notes)))
        self._reading.tally.read["Observation"] += len(before)
        number = np.zeros(len(rows.plain), dtype=np.int64)
        number[rows.plain] = np.arange(len(before)) + before
        asked = [(maker, number[rows_of[maker.rows]]) for rows_of, maker in makers]
        return Block(
            versions=pa.concat_tables(
                [*(maker.versions(own) for maker, own in asked), rows_table(versions, VERSIONS)]
            ),
            events=pa.concat_tables(
                coded(made)
                for made in [*(maker.events(own) for maker, own in asked), event_table(events)]
            ),
        )

    def _odd(
        self,
        lines: Lines,
        file: Path,
        rows: "_Rows",
        notes: NDArray[np.int64],
    ) -> tuple[list[tuple[int, str, int]], list[tuple[int, Event]], NDArray[np.int64]]:
        """Read what is not plain, among the notes on what is, in the order of the lines.

        Returns:
            Versions and events of the odd lines, numbered among all, and for each plain line how
            many versions of odd lines come before it.
        """
        tally = self._reading.tally
        name = tally.name_of(file)
        odd = np.flatnonzero(~rows.plain)
        plain_before = np.cumsum(rows.plain)[odd] if len(odd) else odd
        made_by = np.zeros(len(rows.plain), dtype=np.int64)
        versions: list[tuple[int, str, int]] = []
        events: list[tuple[int, Event]] = []
        shown = [Place(name, int(rows.numbers[row])) for row in notes[:EXAMPLES].tolist()]
        for row, before in zip(odd.tolist(), plain_before.tolist(), strict=True):
            while shown and shown[0].line < rows.numbers[row]:
                tally.note(_LOCAL, shown.pop(0))
            start = int(rows.starts[row])
            end = lines.data.find(b"\n", start) + 1 or len(lines.data)
            place = Place(name, int(rows.numbers[row]))
            for found in resources_of_line(lines.data[start:end], place, tally):
                for version in self._read_one(found):
                    number = before + len(versions)
                    events += [(number, event) for event in version.events]
                    versions.append((number, version.origin, microseconds(version.updated) or 0))
                    made_by[row] += 1
        for place in shown:
            tally.note(_LOCAL, place)
        if len(notes) > EXAMPLES:
            tally.notes[_LOCAL] += len(notes) - EXAMPLES
        return versions, events, np.cumsum(made_by)[rows.plain]


class _Some(NamedTuple):
    """Lines that follow one another: all of the data, where each starts, and how long it is."""

    data: bytes
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def only(self, rows: NDArray[np.int64]) -> "_Some":
        """These lines and no others."""
        if len(rows) == len(self.starts):
            return self
        starts, lengths = self.starts[rows], self.lengths[rows]
        ends = starts + lengths
        lines = [self.data[start:end] for start, end in zip(starts, ends, strict=True)]
        after = np.cumsum(lengths + 1)
        return _Some(b"\n".join([*lines, b""]), np.concatenate([[0], after[:-1]]), lengths)


class _Made(NamedTuple):
    """What was found among some lines.

    Attributes:
        maker: of columns.
        rows: the numbers of its lines.
        left: the numbers of lines that may be looked at in another way.
    """

    maker: Alike | Plain
    rows: NDArray[np.int64]
    left: NDArray[np.int64]


class _Rows(NamedTuple):
    """Lines that are not blank: where each starts, its number, and whether it is plain."""

    starts: NDArray[np.int64]
    numbers: NDArray[np.int64]
    plain: NDArray[np.bool_]


def _members(lines: list[bytes]) -> list[str] | None:
    """Members beyond the usual of some lines; none where no Observations are among them."""
    found: dict[str, None] = {}
    observations = 0
    for row in np.linspace(0, len(lines) - 1, _SAMPLED).astype(int).tolist():
        try:
            value = json.loads(lines[row])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("resourceType") == "Observation":
            observations += 1
            found |= {name: None for name in value if name.isidentifier() and name.isascii()}
    if not observations:
        return None
    return [name for name in found if name not in KNOWN][:_MOST_MEMBERS]


def _block(versions: list[tuple[int, str, int]], events: list[tuple[int, Event]]) -> Block:
    return Block(versions=rows_table(versions, VERSIONS), events=event_table(events))


def _edges(
    lines: Lines,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Start and length of each line that is not blank, and of all lines which are blank."""
    data = np.frombuffer(lines.data, dtype=np.uint8)
    ends = lines.feeds
    if not lines.data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    blank = ends == starts
    for row in np.flatnonzero(~blank & (data[np.minimum(starts, len(data) - 1)] <= 32)).tolist():
        blank[row] = not lines.data[starts[row] : ends[row]].strip()
    kept = ~blank
    return starts[kept], (ends - starts)[kept], blank
