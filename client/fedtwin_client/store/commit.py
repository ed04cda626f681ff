"""Taking an import over into the store: all of it or nothing.

1. Of several versions of a record in one import the newest counts.
2. Buckets that get new events, or hold events of a record that has a new version, are written anew
   under new names: the old events without those records, and the new ones.
3. The new manifest takes the old one's place.

Within a file events are ordered by subject, time (none first), available time, source and code.
One bucket is in memory at a time. Where the node's files are encrypted each new file gets a key of
its own, nothing is spilled to the disk, and a file that was replaced cannot be read by its
successor's key.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.at_rest.tables import open_tables, open_writer
from fedtwin_client.store.manifest import (
    EventFile,
    Manifest,
    PastImport,
    sync_folder,
    write_manifest,
)
from fedtwin_client.store.staging import SCHEMA, Staging
from fedtwin_protocol.errors import RecordError

POSITION = pa.field("file_row_number", pa.int64())
_MACROS = """
CREATE MACRO bucket_of(subject) AS subject % 64;
CREATE MACRO origin_of(source) AS split_part(source, '#', 1);
"""
_COLUMNS = ", ".join(SCHEMA.names)
_ORDER = "ORDER BY subject_id, time NULLS FIRST, available_time, source, code"


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
    folder: Path,
    staging: Staging,
    previous: Manifest,
    keyring: Keyring | None,
    *,
    origin: str,
    now: datetime,
    live_through: int | None = None,
) -> Taken:
    """Make staged events part of the store.

    Args:
        folder: the store's.
        staging: what was gathered, flushed.
        previous: the store's state.
        keyring: the node's; none: nothing is encrypted.
        origin: what was imported, in words, for the history.
        now: for the history.
        live_through: if they are of the live tail, the number of its last version.

    Raises:
        RecordError: the disk is full or another fault; the store is then what it was.
    """
    with _explained(folder), closing(_engine(staging.folder, keyring)) as db:
        _load(db, folder, staging, previous, keyring)
        files, events, subjects = _write_buckets(db, folder, staging, previous, keyring)
        (outdated,) = _one(db, "SELECT coalesce(sum(versions - 1), 0)::BIGINT FROM newest")
        (withdrawn,) = _one(
            db,
            "SELECT count(DISTINCT origin) FROM touched"
            " WHERE origin NOT IN (SELECT origin FROM renewed)",
        )
        history = PastImport(time=now, origin=origin, events=events)
        following = _next(previous, files, history if live_through is None else None)
        if live_through is not None:
            following = following.model_copy(update={"live_through": live_through})
        write_manifest(folder, following)
    return Taken(events=events, subjects=subjects, withdrawn=withdrawn, outdated=outdated)


def rewrite(
    folder: Path, previous: Manifest, keyring: Keyring | None, *, without: int | None
) -> Manifest:
    """Write files anew, under new keys: all of them, or those of one patient, without the patient.

    Args:
        folder: the store's.
        previous: the store's state, whose files the keyring opens.
        keyring: the node's, whose newest key seals.
        without: the patient's pseudonym; none: nobody is left out, and every file is written.

    Returns:
        The new state, which is the store's when this returns.

    Raises:
        RecordError: the disk is full or another fault; the store is then what it was.
    """
    kept: list[EventFile] = []
    with _explained(folder), closing(_engine(folder / "staging", keyring)) as db:
        for file in previous.files:
            if without is not None and file.bucket != without % 64:
                kept.append(file)
                continue
            db.register("old_bucket", open_tables([file.opened(folder, keyring)]))
            rows = db.sql(
                f"SELECT {_COLUMNS} FROM old_bucket"  # noqa: S608 - constants
                f" WHERE subject_id IS DISTINCT FROM $without {_ORDER}",
                params={"without": without},
            )
            path = f"events/{previous.generation + 1:06d}-{file.bucket:02d}.parquet"
            written = _write_bucket(rows, path, folder, keyring)
            if written.rows:
                kept.append(written.model_copy(update={"bucket": file.bucket}))
        sync_folder(folder / "events")
        following = _next(previous, tuple(kept), None)
        write_manifest(folder, following)
    return following


def _next(previous: Manifest, files: tuple[EventFile, ...], history: PastImport | None) -> Manifest:
    live = {file.path for file in files}
    return Manifest(
        generation=previous.generation + 1,
        files=files,
        retired=tuple(file.path for file in previous.files if file.path not in live),
        imports=previous.imports if history is None else (*previous.imports, history),
        live_through=previous.live_through,
    )


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise RecordError(
            f"cannot write the timeline store {folder}: {error}; it is what it was before, "
            "so free disk space or mend the fault and import again"
        ) from error


def _engine(staging: Path, keyring: Keyring | None) -> duckdb.DuckDBPyConnection:
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    spill = str(staging / "spill") if keyring is None else ""  # DuckDB cannot encrypt it offline
    db.execute("SET temp_directory = $folder", {"folder": spill})
    return db


def _load(
    db: duckdb.DuckDBPyConnection,
    folder: Path,
    staging: Staging,
    previous: Manifest,
    keyring: Keyring | None,
) -> None:
    """Tables: `newest` version of each record, and where records lay so far."""
    db.execute(_MACROS)
    db.register("staged_versions", staging.versions())
    db.execute(
        "CREATE TABLE newest AS SELECT origin, arg_max(version, (updated, version)) AS version,"
        " count(*) AS versions FROM staged_versions GROUP BY origin"
    )
    db.execute("CREATE TABLE renewed (origin VARCHAR)")
    db.register("old", _old_events(folder, previous.files, keyring))
    db.execute(
        "CREATE TABLE touched AS"
        " SELECT bucket_of(subject_id) AS bucket, origin_of(source) AS origin FROM old"
        " WHERE origin_of(source) IN (SELECT origin FROM newest) GROUP BY ALL"
    )


def _old_events(folder: Path, files: tuple[EventFile, ...], keyring: Keyring | None) -> Any:
    if not files:
        return SCHEMA.empty_table()
    return open_tables([file.opened(folder, keyring) for file in files], SCHEMA)


def _write_buckets(
    db: duckdb.DuckDBPyConnection,
    folder: Path,
    staging: Staging,
    previous: Manifest,
    keyring: Keyring | None,
) -> tuple[tuple[EventFile, ...], int, int]:
    """The store's files, and how many events and patients are new."""
    staged = staging.events()
    touched = db.execute("SELECT DISTINCT bucket FROM touched").fetchall()
    old_buckets = {int(bucket) for (bucket,) in touched}
    kept = {file.bucket: file for file in previous.files}
    (folder / "events").mkdir(mode=0o700, exist_ok=True)
    all_events = all_subjects = 0
    for bucket in sorted(old_buckets | staging.buckets):
        db.register("staged_bucket", staged.to_table(filter=pc.field("bucket") == bucket))
        db.execute(
            f"CREATE OR REPLACE TABLE fresh AS SELECT {_COLUMNS} FROM staged_bucket"  # noqa: S608
            " WHERE version IN (SELECT version FROM newest)"
        )
        events, subjects = _one(db, "SELECT count(*), count(DISTINCT subject_id) FROM fresh")
        if not events and bucket not in old_buckets:
            continue
        all_events, all_subjects = all_events + events, all_subjects + subjects
        db.execute("INSERT INTO renewed SELECT DISTINCT origin_of(source) FROM fresh")
        old = kept.pop(bucket, None)
        db.register("old_bucket", _old_events(folder, () if old is None else (old,), keyring))
        rows = db.sql(
            f"SELECT {_COLUMNS} FROM fresh UNION ALL SELECT {_COLUMNS} FROM old_bucket"  # noqa: S608
            f" WHERE origin_of(source) NOT IN (SELECT origin FROM newest) {_ORDER}"
        )
        path = f"events/{previous.generation + 1:06d}-{bucket:02d}.parquet"
        written = _write_bucket(rows, path, folder, keyring)
        if written.rows:
            kept[bucket] = written.model_copy(update={"bucket": bucket})
    sync_folder(folder / "events")
    return tuple(kept[bucket] for bucket in sorted(kept)), all_events, all_subjects


def _write_bucket(
    rows: duckdb.DuckDBPyRelation, path: str, folder: Path, keyring: Keyring | None
) -> EventFile:
    """Write one file; an encrypted one also keeps each row's place, which DuckDB does not tell."""
    target = folder / path
    if keyring is None:
        rows.write_parquet(str(target), compression="zstd")
        count, key = int(pq.read_metadata(target).num_rows), None
    else:
        secret = fresh_key()
        count = _write_sealed(rows, target, secret)
        key = keyring.close(secret, path)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return EventFile(bucket=0, path=path, rows=count, key=key)


def _write_sealed(rows: duckdb.DuckDBPyRelation, target: Path, key: bytes) -> int:
    count = 0
    with open_writer(target, SCHEMA.append(POSITION), key) as writer:
        for batch in rows.to_arrow_reader(122_880):
            place = pa.array(np.arange(count, count + batch.num_rows), type=pa.int64())
            table = pa.Table.from_batches([batch]).cast(SCHEMA).append_column(POSITION, place)
            writer.write_table(table)
            count += batch.num_rows
    return count


def _one(db: duckdb.DuckDBPyConnection, sql: str) -> tuple[int, ...]:
    # All of it, although it is one row: the connection is busy until its last row was asked for.
    (row,) = db.execute(sql).fetchall()
    return tuple(int(value) for value in row)
