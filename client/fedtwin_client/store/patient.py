"""One patient's timeline, as a page shows it: a few milliseconds, however many others there are.

Only the patient's bucket is opened, and of it only the row groups whose statistics admit them.
"""

from bisect import bisect_left, bisect_right
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedtwin_client.at_rest.tables import open_reader
from fedtwin_client.records.blocks import REPEATED
from fedtwin_client.store.joining import Live
from fedtwin_client.store.manifest import EventFile
from fedtwin_client.store.replacing import origins_of
from fedtwin_client.store.staging import BUCKETS, SCHEMA
from fedtwin_client.store.tail import Tail
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

_ORDER = [
    ("time", "ascending", "at_start"),
    ("available_time", "ascending", "at_end"),
    ("source", "ascending", "at_end"),
    ("code", "ascending", "at_end"),
]


class PatientReader:
    """One patient after another from one state of the store, as a page asks for them.

    For one thread. What was opened stays open, so that only the patient's own rows are read.

    Args:
        timeline: the state.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._open = ExitStack()
        self._files: dict[str, _File] = {}
        self._tail: Tail | None = None

    def __enter__(self) -> "PatientReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def events(self, subject_id: int) -> pa.Table:
        """The events of one patient, in the order of the store.

        Args:
            subject_id: the pseudonym.

        Returns:
            A table with the columns of the store's schema, by time (none first), available time,
            source and code; without rows if the patient is not known.

        Raises:
            RecordError: a file cannot be read.
        """
        parts, origins = [], set[str]()
        for file in self._timeline.manifest.files:
            if file.bucket == subject_id % BUCKETS:
                parts.append(self._file(file).rows(subject_id))
                origins |= _origins(parts[-1])
        live = self._live(subject_id, origins)
        if live.origins:
            parts = [_without(part, live.origins) for part in parts]
        found = pa.concat_tables(parts or [SCHEMA.empty_table()])
        if not live.events.num_rows:
            return found  # one file alone is in order
        found = pa.concat_tables([found, live.events])
        return found.take(pc.sort_indices(found, sort_keys=_ORDER))

    def _file(self, file: EventFile) -> "_File":
        if file.path not in self._files:
            path, key = file.opened(self._timeline.folder, self._timeline.keyring)
            try:
                reader = self._open.enter_context(open_reader(path, key, repeated=REPEATED))
            except (OSError, pa.ArrowException) as error:
                raise RecordError(f"cannot read {path}: {error}") from error
            self._files[file.path] = _File(path, reader)
        return self._files[file.path]

    def _live(self, subject_id: int, origins: set[str]) -> Live:
        timeline = self._timeline
        if self._tail is None and timeline.live_through > timeline.manifest.live_through:
            self._tail = self._open.enter_context(Tail(timeline.folder, timeline.keyring))
        return timeline.live(subject_id, origins, self._tail)


class _File:
    """An open file, and which patients its row groups may hold."""

    def __init__(self, path: Path, reader: pq.ParquetFile) -> None:
        self._path, self._reader = path, reader
        groups = range(reader.metadata.num_row_groups)
        bounds = [reader.metadata.row_group(number).column(0).statistics for number in groups]
        self._known = all(one is not None and one.has_min_max for one in bounds)
        self._lowest = [one.min for one in bounds] if self._known else []
        self._highest = [one.max for one in bounds] if self._known else []

    def rows(self, subject_id: int) -> pa.Table:
        """Of one patient; the first column is the pseudonym, and ascends."""
        groups = self._groups(subject_id)
        if not groups:
            return SCHEMA.empty_table()
        try:
            found = self._reader.read_row_groups(groups, columns=SCHEMA.names, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise RecordError(f"cannot read {self._path}: {error}") from error
        subjects = found["subject_id"].to_numpy()
        first, end = np.searchsorted(subjects, (subject_id, subject_id + 1))
        return _as_stored(found.slice(first, end - first))

    def _groups(self, subject_id: int) -> list[int]:
        """Row groups whose bounds admit a patient; all of a file that does not tell them."""
        if not self._known:
            return list(range(self._reader.metadata.num_row_groups))
        first = bisect_left(self._highest, subject_id)
        return list(range(first, bisect_right(self._lowest, subject_id)))


def patient_events(timeline: Timeline, subject_id: int) -> pa.Table:
    """One patient alone; see `PatientReader.events`.

    Raises:
        RecordError: a file cannot be read.
    """
    with PatientReader(timeline) as reader:
        return reader.events(subject_id)


def _as_stored(events: pa.Table) -> pa.Table:
    """The columns of the store's schema; those that are so already cost nothing."""
    return pa.Table.from_arrays(
        [
            column if column.type.equals(field.type) else _plain(column, field.type)
            for column, field in zip(events.columns, SCHEMA, strict=True)
        ],
        schema=SCHEMA,
    )


def _plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if not pa.types.is_dictionary(column.type):
        return column.cast(kind)
    return pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind)


def _origins(events: pa.Table) -> set[str]:
    return {source.partition("#")[0] for source in events["source"].to_pylist()}


def _without(events: pa.Table, replaced: list[str]) -> pa.Table:
    out_of_date = pc.is_in(origins_of(events["source"])["origin"], pa.array(replaced, pa.string()))
    return events.filter(pc.invert(out_of_date))
