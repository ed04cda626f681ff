"""Where an import gathers its events before the store takes them over as a whole.

Events and versions go to Parquet files of limited size, so that memory stays flat however large
an export is. Each file has a row group for each bucket, so that the store takes them over bucket
by bucket. Nothing here is part of the store; what a killed import left is removed by the next, and
where the node's files are encrypted nobody can read it: its key was in the import's memory alone.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from fedtwin_client.at_rest.tables import open_tables, open_writer
from fedtwin_client.records.events import Event

SCHEMA = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float64()),
        ("text_value", pa.large_string()),
        ("available_time", pa.timestamp("us")),
        ("unit", pa.string()),
        ("src_unit", pa.string()),
        ("comparator", pa.string()),
        ("source", pa.string()),
        ("status", pa.string()),
    ]
)
BUCKETS = 64
_STAGED = SCHEMA.append(pa.field("version", pa.int64()))
_BUCKET = pa.field("bucket", pa.int64())
_VERSIONS = pa.schema([("version", pa.int64()), ("origin", pa.string()), ("updated", pa.int64())])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ROWS_A_FILE = 200_000


class Staging:
    """Gathers the events of one import.

    Attributes:
        folder: where the files lie.
        subjects: the pseudonyms that have events.
        refused: how many events were dropped because their patient is erased.
    """

    def __init__(
        self,
        folder: Path,
        key: bytes | None = None,
        erased: frozenset[int] = frozenset(),
        look: Callable[[pa.Table], None] | None = None,
    ) -> None:
        """Start in an empty folder.

        Args:
            folder: for the files.
            key: to encrypt them with; none: not.
            erased: pseudonyms whose events are dropped.
            look: is shown all events, in pieces, with the store's columns.
        """
        self.folder = folder
        self.subjects: set[int] = set()
        self.refused = 0
        self._key = key
        self._erased = erased
        self._look = look
        self._events: list[tuple[object, ...]] = []
        self._versions: list[tuple[int, str, int]] = []
        self._count = 0
        self._files = 0

    def version(self, origin: str, updated: datetime | None) -> int:
        """Announce a version of a record; of several the newest wins, then the last.

        Args:
            origin: the record; what the store holds of it is replaced.
            updated: when the source says it was last changed.

        Returns:
            The number to add its events under.
        """
        self._count += 1
        self._versions.append((self._count, origin, _microseconds(updated) or 0))
        if len(self._versions) >= _ROWS_A_FILE:
            self.flush()
        return self._count

    def add(self, version: int, events: Iterable[Event]) -> None:
        """Add events of a version."""
        for event in events:
            if event.subject_id in self._erased:
                self.refused += 1
                continue
            self.subjects.add(event.subject_id)
            self._events.append(
                (
                    event.subject_id,
                    _microseconds(event.time),
                    event.code,
                    event.numeric_value,
                    event.text_value,
                    _microseconds(event.available_time),
                    event.unit,
                    event.src_unit,
                    event.comparator,
                    event.source,
                    event.status,
                    version,
                )
            )
        if len(self._events) >= _ROWS_A_FILE:
            self.flush()

    def flush(self) -> None:
        """Write what is gathered; at the end also an empty file, so that there always is one."""
        self._files += 1
        name = f"{self._files:06d}.parquet"
        events = _table(self._events, _STAGED)
        if self._look is not None:
            self._look(events)
        self._write(f"events-{name}", _by_bucket(events), _STAGED.append(_BUCKET))
        self._write(f"versions-{name}", [_table(self._versions, _VERSIONS)], _VERSIONS)
        self._events, self._versions = [], []

    def events(self) -> ds.Dataset:
        """Everything that was staged, with the columns `version` and `bucket`."""
        return self._staged("events")

    def versions(self) -> ds.Dataset:
        """Every version that was announced."""
        return self._staged("versions")

    @property
    def buckets(self) -> set[int]:
        """The buckets of the patients who have events."""
        return {subject % BUCKETS for subject in self.subjects}

    def _write(self, name: str, parts: Iterable[pa.Table], schema: pa.Schema) -> None:
        with open_writer(self.folder / name, schema, self._key) as writer:
            for part in parts:
                writer.write_table(part)

    def _staged(self, kind: str) -> ds.Dataset:
        paths = sorted(self.folder.glob(f"{kind}-*.parquet"))
        return open_tables([(path, self._key) for path in paths])


def _by_bucket(events: pa.Table) -> Iterable[pa.Table]:
    """The events of each bucket; of none, one empty table."""
    subjects = events["subject_id"].to_numpy()
    whole = events.append_column(_BUCKET, pa.array(subjects % BUCKETS, type=pa.int64()))
    for bucket in sorted(set((subjects % BUCKETS).tolist())):
        yield whole.filter(pc.equal(whole["bucket"], bucket))
    if not events.num_rows:
        yield whole


def _table(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _microseconds(time: datetime | None) -> int | None:
    return None if time is None else (time - _EPOCH) // _MICROSECOND
