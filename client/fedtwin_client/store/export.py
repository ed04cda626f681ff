"""Timelines out as a MEDS data set (version 0.4.1), for tools of the hospital's own.

`data/<bucket>.parquet` holds each patient once, in the order of time; `numeric_value` is in single
precision, as MEDS has it, and `numeric_value_double` keeps the number itself. `metadata/` names our
further columns, every code, and a split of the patients that depends on their pseudonyms alone.
Pseudonyms stay pseudonyms: the map that leads back to patients is never part of it. But the data
set lies outside the node's encryption, and is for use within the hospital.
"""

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedtwin_client.records.meds import DOUBLE
from fedtwin_client.store.staging import BUCKETS, SCHEMA
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

MEDS_VERSION: Final = "0.4.1"
_SPLITS: Final = ((80, "train"), (90, "tuning"), (100, "held_out"))
_BUCKET: Final = """
SELECT * EXCLUDE (file_row_number) FROM events WHERE subject_id % $buckets = $bucket
ORDER BY subject_id, file_row_number
"""


def export_meds(
    timeline: Timeline, target: Path, now: datetime, told: Callable[[int], None] = lambda _: None
) -> tuple[int, int]:
    """Write a MEDS data set.

    Args:
        timeline: one state of the store.
        target: a new or empty folder.
        now: for its metadata.
        told: is told how many of the 64 buckets are written.

    Returns:
        How many events and patients it holds.

    Raises:
        RecordError: the folder is not empty, or cannot be written.
    """
    if target.exists() and any(target.iterdir()):
        raise RecordError(f"expected a new or empty folder, found files in {target}")
    try:
        for part in ("data", "metadata"):
            (target / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        return _write(timeline, target, now, told)
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        raise RecordError(
            f"cannot write a data set into {target}: {error}; what is there is incomplete, remove "
            "the folder and try again"
        ) from error


def _write(
    timeline: Timeline, target: Path, now: datetime, told: Callable[[int], None]
) -> tuple[int, int]:
    events, subjects, codes = 0, [], set[str]()
    db = timeline.connect()
    try:
        for bucket in range(BUCKETS):
            asked = {"buckets": BUCKETS, "bucket": bucket}
            found: pa.Table = db.sql(_BUCKET, params=asked).to_arrow_table()
            found = found.cast(SCHEMA)
            if found.num_rows:
                _write_file(target / "data" / f"{bucket:02d}.parquet", found)
                events += found.num_rows
                subjects += pc.unique(found["subject_id"]).to_pylist()
                codes |= set(pc.unique(found["code"]).to_pylist())
            told(bucket + 1)
    finally:
        db.close()
    _write_metadata(target / "metadata", sorted(codes), sorted(subjects), now)
    return events, len(subjects)


def _write_file(path: Path, found: pa.Table) -> None:
    number = found["numeric_value"]
    place = found.schema.get_field_index("numeric_value")
    single = number.cast(pa.float32(), safe=False)
    table = found.set_column(place, pa.field("numeric_value", pa.float32()), single)
    fields = [
        pa.field(field.name, field.type, nullable=field.name not in {"subject_id", "code"})
        for field in table.schema
    ]
    table = table.cast(pa.schema(fields)).append_column(pa.field(DOUBLE, pa.float64()), number)
    with _private(path) as file:
        pq.write_table(table, file, compression="zstd")


def _write_metadata(folder: Path, codes: list[str], subjects: list[int], now: datetime) -> None:
    described = pa.table(
        {
            "code": pa.array(codes, pa.string()),
            "description": pa.nulls(len(codes), pa.string()),
            "parent_codes": pa.nulls(len(codes), pa.list_(pa.string())),
        }
    )
    splits = pa.table(
        {
            "subject_id": pa.array(subjects, pa.int64()),
            "split": pa.array([_split(subject) for subject in subjects], pa.string()),
        }
    )
    for name, table in (("codes", described), ("subject_splits", splits)):
        fields = [field.with_nullable(field.name not in _KEYS) for field in table.schema]
        with _private(folder / f"{name}.parquet") as file:
            pq.write_table(table.cast(pa.schema(fields)), file)
    about = {
        "dataset_name": "fedtwin timelines",
        "etl_name": "fedtwin",
        "meds_version": MEDS_VERSION,
        "created_at": now.isoformat(),
        "raw_source_id_columns": ["source"],
        "code_modifier_columns": ["unit"],
        "other_extension_columns": ["available_time", "src_unit", "comparator", "status", DOUBLE],
    }
    with _private(folder / "dataset.json") as file:
        file.write(json.dumps(about, indent=1).encode())


_KEYS: Final = {"code", "subject_id", "split"}


def _split(subject: int) -> str:
    """Pseudonyms are evenly spread, so their last digits choose."""
    place = (subject // BUCKETS) % 100
    return next(name for end, name in _SPLITS if place < end)


def _private(path: Path) -> Any:
    """A new file that its owner alone can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
