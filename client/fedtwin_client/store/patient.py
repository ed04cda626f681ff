"""One patient's timeline, as a page shows it: a few milliseconds, however many others there are.

Only the patient's bucket is opened, and of it only the row groups whose statistics admit them.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedtwin_client.at_rest.tables import open_reader
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
    live = timeline.live(subject_id)
    parts = [live.events]
    for file in timeline.manifest.files:
        if file.bucket == subject_id % BUCKETS:
            path, key = file.opened(timeline.folder, timeline.keyring)
            parts.append(_written(path, key, subject_id, live.origins))
    found = pa.concat_tables([part for part in parts if part.num_rows] or [live.events])
    if not live.events.num_rows:
        return found  # one file alone is in order
    return found.take(pc.sort_indices(found, sort_keys=_ORDER))


def _written(path: Path, key: bytes | None, subject_id: int, replaced: list[str]) -> pa.Table:
    try:
        with open_reader(path, key) as reader:
            groups = _groups(reader.metadata, subject_id)
            found = reader.read_row_groups(groups, columns=SCHEMA.names, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    found = found.filter(pc.equal(found["subject_id"], subject_id))
    if replaced and found.num_rows:
        origins = pc.list_element(pc.split_pattern(found["source"], "#", max_splits=1), 0)
        found = found.filter(pc.invert(pc.is_in(origins, pa.array(replaced, origins.type))))
    return found.cast(SCHEMA)


def _groups(metadata: pq.FileMetaData, subject_id: int) -> list[int]:
    """The row groups that may hold the patient; the first column is the pseudonym."""
    found = []
    for number in range(metadata.num_row_groups):
        bounds = metadata.row_group(number).column(0).statistics
        if bounds is None or not bounds.has_min_max or bounds.min <= subject_id <= bounds.max:
            found.append(number)
    return found
