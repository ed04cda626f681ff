"""FHIR NDJSON as blocks: plain Observations as columns, every other line by the reader of one.

What a plain Observation makes is decided by the same functions that read a single one: a code, a
subject, a status, a unit with its comparator is asked for once however often it comes. Only what
differs from line to line (ids, times, numbers) goes through as columns. A line about which anything
is out of the ordinary goes to `FhirReader`, so that both ways make the same events and the same
account, in the same order.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedtwin_client.records.blocks import (
    VERSIONS,
    Block,
    event_table,
    microseconds,
    rows_table,
)
from fedtwin_client.records.events import Event
from fedtwin_client.records.fhir import FhirReader
from fedtwin_client.records.fhir_columns import KNOWN, ColumnReader, Columns
from fedtwin_client.records.fhir_plain import Meanings, Plain
from fedtwin_client.records.lines import Lines
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import EXAMPLES, Place
from fedtwin_client.records.resources import Found, resources_in, resources_of_line
from fedtwin_client.records.subjects import Subjects

_SAMPLED: Final = 40
_MOST_MEMBERS: Final = 40
_FEWEST: Final = 200
_MOST_VERSIONS: Final = 20_000
_LOCAL: Final = "code of a local vocabulary"


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
        self._reader = reader
        self._columns = ColumnReader()
        self._meanings = Meanings(reading, subjects)

    def close(self) -> None:
        """Let go of the memory."""
        self._columns.close()

    def read(self, lines: Lines, file: Path) -> Iterator[Block]:
        """The blocks of some lines of a file."""
        starts, lengths, blank = _edges(lines)
        more = self._members(lines, starts, lengths)
        columns = None if more is None else self._columns.read(lines.data, starts, lengths, more)
        if columns is None:
            yield from self.one_by_one(resources_in(lines, file, self._reading.tally))
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
        plain = Plain(self._meanings, columns)
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


class _Rows(NamedTuple):
    """Lines that are not blank: where each starts, and its number."""

    starts: NDArray[np.int64]
    numbers: NDArray[np.int64]


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
