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
from fedtwin_client.records.fhir_alike import Shapes
from fedtwin_client.records.fhir_alike_columns import Alike
from fedtwin_client.records.fhir_columns import KNOWN, ColumnReader
from fedtwin_client.records.fhir_plain import Meanings, Plain
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
        self._columns = ColumnReader()
        self._meanings = Meanings(reading, subjects)
        self._shapes = Shapes(self._meanings)

    def close(self) -> None:
        """Let go of the memory."""
        self._columns.close()

    def read(self, lines: Lines, file: Path) -> Iterator[Block]:
        """The blocks of some lines of a file."""
        starts, lengths, blank = _edges(lines)
        if lines.too_long or len(starts) < _FEWEST:
            yield from self.one_by_one(resources_in(lines, file, self._reading.tally))
            return
        alike = self._shapes.read(lines.data, starts, lengths)
        good = np.zeros(len(starts), dtype=np.bool_)
        good[alike.rows] = True
        every = np.arange(len(starts))
        makers: list[tuple[NDArray[np.int64], Alike | Plain]] = [(every, alike)]
        rest = np.flatnonzero(~good)
        plain = self._plain(lines.data, starts[rest], lengths[rest])
        if plain is not None:
            good[rest[plain.rows]] = True
            makers.append((rest, plain))
        numbers = lines.first + np.flatnonzero(~blank)
        yield self._mixed(lines, file, _Rows(starts, numbers, good), makers)

    def _plain(
        self, data: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Plain | None:
        """Plain Observations among some lines of any shape; none where they are few or none."""
        if len(starts) < _FEWEST_OF_MANY_SHAPES:
            return None
        ends = starts + lengths
        lines = [data[start:end] for start, end in zip(starts, ends, strict=True)]
        more = _members(lines)
        if more is None:
            return None
        after = np.cumsum(lengths + 1)
        starts = np.concatenate([[0], after[:-1]])
        columns = self._columns.read(b"\n".join([*lines, b""]), starts, lengths, more)
        return None if columns is None else Plain(self._meanings, columns)

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
        makers: "list[tuple[NDArray[np.int64], Alike | Plain]]",
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
