"""Taking an import over into the store: all of it or nothing.

1. Of several versions of a record in one import the newest counts.
2. Buckets that get new events, or hold events of a record that has a new version, are written anew
   under new names: the old events without those records, and the new ones.
3. The new manifest takes the old one's place.

Within a file events are ordered by subject, time (none first), available time, source and code.
"""

import os
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from fedtwin_client.store.manifest import (
    EventFile,
    Manifest,
    PastImport,
    sync_folder,
    write_manifest,
)
from fedtwin_protocol.errors import RecordError

_MACROS = """
CREATE MACRO bucket_of(subject) AS subject % 64;
CREATE MACRO origin_of(source) AS split_part(source, '#', 1);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What the store took over.

    Attributes:
        events: new rows.
        subjects: different patients among them.
        withdrawn: earlier records that have no events any more.
        outdated: versions of a record that a newer one in the same import replaced.
    """

    events: int
    subjects: int
    withdrawn: int
    outdated: int


def take_over(
    folder: Path, staging: Path, previous: Manifest, *, origin: str, now: datetime
) -> Taken:
    """Make staged events part of the store.

    Args:
        folder: the store's.
        staging: the folder with the staged files.
        previous: the store's state.
        origin: what was imported, in words, for the history.
        now: for the history.

    Raises:
        RecordError: the disk is full or another fault; the store is then what it was.
    """
    try:
        with closing(duckdb.connect()) as db:
            db.execute("SET TimeZone = 'UTC'")
            db.execute("SET temp_directory = $folder", {"folder": str(staging / "spill")})
            _load(db, folder, staging, previous)
            taken = _count(db)
            files = _write_buckets(db, folder, previous)
        history = PastImport(time=now, origin=origin, events=taken.events)
        live = {file.path for file in files}
        write_manifest(
            folder,
            Manifest(
                generation=previous.generation + 1,
                files=files,
                retired=tuple(file.path for file in previous.files if file.path not in live),
                imports=(*previous.imports, history),
            ),
        )
    except (duckdb.Error, OSError) as error:
        raise RecordError(
            f"cannot write the timeline store {folder}: {error}; it is what it was before, "
            "so free disk space or mend the fault and import again"
        ) from error
    return taken


def _load(db: duckdb.DuckDBPyConnection, folder: Path, staging: Path, previous: Manifest) -> None:
    """Tables: `newest` version of each record, its `fresh` events, and where records lay so far."""
    for kind in ("versions", "events"):
        paths = sorted(str(path) for path in staging.glob(f"{kind}-*.parquet"))
        db.read_parquet(paths).create_view(f"staged_{kind}")
    db.execute(_MACROS)
    db.execute(
        "CREATE TABLE newest AS SELECT origin, arg_max(version, (updated, version)) AS version,"
        " count(*) AS versions FROM staged_versions GROUP BY origin"
    )
    db.execute(
        "CREATE TABLE fresh AS SELECT * EXCLUDE (version), bucket_of(subject_id) AS bucket"
        " FROM staged_events WHERE version IN (SELECT version FROM newest)"
    )
    _view_files(db, "old", [folder / file.path for file in previous.files])
    db.execute(
        "CREATE TABLE touched AS"
        " SELECT bucket_of(subject_id) AS bucket, origin_of(source) AS origin FROM old"
        " WHERE origin_of(source) IN (SELECT origin FROM newest) GROUP BY ALL"
    )


def _view_files(db: duckdb.DuckDBPyConnection, name: str, paths: list[Path]) -> None:
    if paths:
        files = db.read_parquet([str(path) for path in paths])
    else:
        files = db.sql("SELECT * EXCLUDE (bucket) FROM fresh WHERE false")
    files.create_view(name, replace=True)


def _count(db: duckdb.DuckDBPyConnection) -> Taken:
    events, subjects = _one(db, "SELECT count(*), count(DISTINCT subject_id) FROM fresh")
    (outdated,) = _one(db, "SELECT coalesce(sum(versions - 1), 0)::BIGINT FROM newest")
    (withdrawn,) = _one(
        db,
        "SELECT count(DISTINCT origin) FROM touched"
        " WHERE origin NOT IN (SELECT split_part(source, '#', 1) FROM fresh)",
    )
    return Taken(events=events, subjects=subjects, withdrawn=withdrawn, outdated=outdated)


def _write_buckets(
    db: duckdb.DuckDBPyConnection, folder: Path, previous: Manifest
) -> tuple[EventFile, ...]:
    rows = db.execute("SELECT bucket FROM fresh UNION SELECT bucket FROM touched").fetchall()
    affected = sorted(int(bucket) for (bucket,) in rows)
    kept = {file.bucket: file for file in previous.files}
    (folder / "events").mkdir(mode=0o700, exist_ok=True)
    for bucket in affected:
        old = kept.pop(bucket, None)
        path = f"events/{previous.generation + 1:06d}-{bucket:02d}.parquet"
        _view_files(db, "old_bucket", [] if old is None else [folder / old.path])
        written = _write_bucket(db, bucket, folder / path)
        if written:
            kept[bucket] = EventFile(bucket=bucket, path=path, rows=written)
    sync_folder(folder / "events")
    return tuple(kept[bucket] for bucket in sorted(kept))


def _write_bucket(db: duckdb.DuckDBPyConnection, bucket: int, target: Path) -> int:
    rows = db.sql(
        "SELECT * EXCLUDE (bucket) FROM fresh WHERE bucket = $bucket"
        " UNION ALL SELECT * FROM old_bucket"
        " WHERE origin_of(source) NOT IN (SELECT origin FROM newest)"
        " ORDER BY subject_id, time NULLS FIRST, available_time, source, code",
        params={"bucket": bucket},
    )
    rows.write_parquet(str(target), compression="zstd")
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return int(pq.read_metadata(target).num_rows)


def _one(db: duckdb.DuckDBPyConnection, sql: str) -> tuple[int, ...]:
    row = db.execute(sql).fetchone()
    assert row is not None
    return tuple(int(value) for value in row)
