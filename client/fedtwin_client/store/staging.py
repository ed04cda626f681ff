"""Where an import gathers its events before the store takes them over as a whole.

Memory stays flat however large an export is: what is gathered goes to files in pieces, one file for
each bucket, so that the store takes them over bucket by bucket. A piece is an Arrow stream. Nothing
here is part of the store; what a killed import left is removed by the next, and where the node's
files are encrypted each piece lies in a box whose key was in the import's memory alone.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.at_rest.boxes import close_box, open_box
from fedtwin_client.records.blocks import (
    EVENTS,
    SCHEMA,
    VERSION,
    VERSIONS,
    Block,
    coded,
    event_table,
    microseconds,
    rows_table,
)
from fedtwin_client.records.events import Event
from fedtwin_client.store.origins import Origins

__all__ = ["BUCKETS", "SCHEMA", "Staging"]
BUCKETS: Final = 64
_ROWS_AT_ONCE: Final = 100_000
_LENGTH: Final = struct.Struct("<Q")
_ANNOUNCED: Final = pa.schema(
    [
        VERSION,
        ("one", pa.uint64()),
        ("two", pa.uint32()),
        VERSIONS.field("updated"),
    ]
)
"""Versions, each with the numbers of its origin (`origins.hashes`) in its name's place."""


class Staging:
    """Gathers the events of one import.

    Attributes:
        folder: where the files lie.
        subjects: the pseudonyms that have events among what was flushed.
        refused: how many events were dropped because their patient is erased.
        count: how many versions were announced; they are numbered from 0.
        renews_parts: whether there is a version of a part of a record.
        dated: whether a source says of one when it was changed.
        origins: hashes the records' names.
    """

    def __init__(
        self,
        folder: Path,
        origins: Origins,
        key: bytes | None = None,
        erased: frozenset[int] = frozenset(),
        look: Callable[[pa.Table], None] | None = None,
    ) -> None:
        """Start in an empty folder.

        Args:
            folder: for the files.
            origins: hashes the records' names as the store does that takes them over.
            key: to encrypt them with; none: not.
            erased: pseudonyms whose events are dropped.
            look: is shown all events, in pieces, with the store's columns.
        """
        self.folder = folder
        self.origins = origins
        self.subjects: set[int] = set()
        self.refused = 0
        self.count = 0
        self.renews_parts = self.dated = False
        self._key = key
        self._erased = pa.array(sorted(erased), pa.int64())
        self._look = look
        self._rows: list[tuple[int, Event]] = []
        self._versions: list[tuple[int, str, int]] = []
        self._tables: list[pa.Table] = []
        self._waiting = 0
        self._pieces: dict[str, int] = {}
        self._of_erased: list[NDArray[np.int64]] = []

    def version(self, origin: str, updated: datetime | None) -> int:
        """Announce a version of a record; of several the newest wins, then the last.

        Args:
            origin: the record; what the store holds of it is replaced.
            updated: when the source says it was last changed.

        Returns:
            The number to add its events under.
        """
        number = self.count
        self.count += 1
        self._versions.append((number, origin, microseconds(updated) or 0))
        if len(self._versions) >= _ROWS_AT_ONCE:
            self.flush()
        return number

    def add(self, version: int, events: Iterable[Event]) -> None:
        """Add events of a version, however many it has."""
        for event in events:
            self._rows.append((version, event))
            if len(self._rows) >= _ROWS_AT_ONCE:
                self.flush()

    def add_block(self, block: Block) -> None:
        """Add many versions with their events."""
        self._gather()
        first = self.count
        self.count += block.versions.num_rows
        self._announce(_numbered(block.versions, first))
        self._take(_numbered(block.events, first))
        if self._waiting >= _ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
        self._gather()
        if self._waiting:
            events = pa.concat_tables(self._tables).unify_dictionaries().combine_chunks()
            self._tables, self._waiting = [], 0
            self.subjects.update(pc.unique(events["subject_id"]).to_pylist())
            if self._look is not None:
                self._look(events)
            self._write_buckets(events)

    def versions(self) -> Iterator[pa.Table]:
        """Every version that was announced, in pieces: `_ANNOUNCED`."""
        yield from self._read("versions", _ANNOUNCED)

    def of_erased(self) -> NDArray[np.int64]:
        """The versions that had events of patients who are erased."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *self._of_erased]))

    def bucket(self, bucket: int) -> pa.Table:
        """The staged events of a bucket, with the column `version`; texts that repeat are coded."""
        pieces = list(self._read(_name(bucket), EVENTS))
        return pa.concat_tables(pieces) if pieces else coded(EVENTS.empty_table())

    @property
    def buckets(self) -> set[int]:
        """The buckets of the patients who have events."""
        return {bucket for bucket in range(BUCKETS) if _name(bucket) in self._pieces}

    def _gather(self) -> None:
        """Single versions and events into tables."""
        if self._versions:
            self._announce(rows_table(self._versions, VERSIONS))
            self._versions = []
        if self._rows:
            self._take(event_table(self._rows))
            self._rows = []

    def _announce(self, versions: pa.Table) -> None:
        names = versions["origin"].combine_chunks()
        content = names.buffers()[2]
        self.renews_parts |= content is not None and b"#" in content.to_pybytes()
        one, two = self.origins.hashes(names)
        columns = [versions["version"], one, two, versions["updated"]]
        self.dated |= bool(pc.any(pc.greater(versions["updated"], 0)).as_py())
        self._write("versions", pa.table(columns, schema=_ANNOUNCED))

    def _take(self, events: pa.Table) -> None:
        if len(self._erased):
            gone = pc.is_in(events["subject_id"], self._erased)
            kept = events.filter(pc.invert(gone))
            self.refused += events.num_rows - kept.num_rows
            if kept.num_rows < events.num_rows:
                self._of_erased.append(pc.unique(events.filter(gone)["version"]).to_numpy())
            events = kept
        if events.num_rows:
            self._tables.append(coded(events))
            self._waiting += events.num_rows

    def _write_buckets(self, events: pa.Table) -> None:
        buckets = events["subject_id"].to_numpy() % BUCKETS
        buckets = buckets.astype(np.uint8)  # sorted several times as fast
        order = np.argsort(buckets, kind="stable")
        events = events.take(pa.array(order))
        edges = np.searchsorted(buckets[order], np.arange(BUCKETS + 1)).tolist()
        for bucket, (start, end) in enumerate(pairwise(edges)):
            if end > start:
                self._write(_name(bucket), events.slice(start, end - start))

    def _write(self, name: str, table: pa.Table) -> None:
        if not table.num_rows:
            return
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        piece = memoryview(sink.getvalue()).cast("B")
        number = self._pieces[name] = self._pieces.get(name, 0) + 1
        data = piece if self._key is None else close_box(self._key, piece, f"{name} {number}")
        with (self.folder / name).open("ab") as file:
            file.write(_LENGTH.pack(len(data)))
            file.write(data)

    def _read(self, name: str, schema: pa.Schema) -> Iterator[pa.Table]:
        if name not in self._pieces:
            return
        with (self.folder / name).open("rb") as file:
            for number in range(1, self._pieces[name] + 1):
                (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
                data = file.read(length)
                if self._key is not None:
                    data = open_box(self._key, data, f"{name} {number}")
                with pa.ipc.open_stream(data) as reader:
                    yield reader.read_all().select(schema.names)


def _name(bucket: int) -> str:
    return f"events-{bucket:02d}"


def _numbered(table: pa.Table, first: int) -> pa.Table:
    """The table with its versions numbered from `first`."""
    place = table.schema.get_field_index("version")
    return table.set_column(place, table.schema.field(place), pc.add(table["version"], first))
