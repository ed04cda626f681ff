"""One patient's timeline, as a page shows it: a few milliseconds, however many others there are.

Only the patient's bucket is opened, and of it only the row groups whose statistics admit them.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedtwin_client.at_rest.tables import open_reader
from fedtwin_client.records.blocks import REPEATED
from fedtwin_client.store.replacing import origins_of
from fedtwin_client.store.staging import BUCKETS, SCHEMA
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

_ORDER = [
    ("time", "ascending", "at_start"),
    ("available_time", "ascending", "at_end"),
    ("source", "ascending", "at_end"),
    ("code", "ascending", "at_end"),
]


def patient_events(timeline: Timeline, subject_id: int) -> pa.Table:
    """The events of one patient, in the order of the store.

    Args:
        timeline: one state of the store.
        subject_id: the pseudonym.

    Returns:
        A table with the columns of the store's schema, by time (none first), available time, source
        and code; without rows if the patient is not known.

    Raises:
        RecordError: a file cannot be read.
    """
    parts, origins = [], set[str]()
    for file in timeline.manifest.files:
        if file.bucket == subject_id % BUCKETS:
            path, key = file.opened(timeline.folder, timeline.keyring)
            parts.append(_written(path, key, subject_id))
            origins.update(_origins(parts[-1]).to_pylist())
    live = timeline.live(subject_id, origins)
    if live.origins:
        parts = [_without(part, live.origins) for part in parts]
    found = pa.concat_tables(parts or [SCHEMA.empty_table()])
    if not live.events.num_rows:
        return found  # one file alone is in order
    found = pa.concat_tables([found, live.events])
    return found.take(pc.sort_indices(found, sort_keys=_ORDER))


def _written(path: Path, key: bytes | None, subject_id: int) -> pa.Table:
    try:
        with open_reader(path, key, repeated=REPEATED) as reader:
            groups = _groups(reader.metadata, subject_id)
            found = reader.read_row_groups(groups, columns=SCHEMA.names, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    subjects = found["subject_id"].to_numpy()
    first, end = np.searchsorted(subjects, (subject_id, subject_id + 1))
    return found.slice(first, end - first).cast(SCHEMA)


def _origins(events: pa.Table) -> pa.ChunkedArray:
    return origins_of(events["source"])["origin"]


def _without(events: pa.Table, replaced: list[str]) -> pa.Table:
    out_of_date = pc.is_in(_origins(events), pa.array(replaced, pa.string()))
    return events.filter(pc.invert(out_of_date))


def _groups(metadata: pq.FileMetaData, subject_id: int) -> list[int]:
    """The row groups that may hold the patient; the first column is the pseudonym."""
    found = []
    for number in range(metadata.num_row_groups):
        bounds = metadata.row_group(number).column(0).statistics
        if bounds is None or not bounds.has_min_max or bounds.min <= subject_id <= bounds.max:
            found.append(number)
    return found
