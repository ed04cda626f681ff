"""When the newest version of each record was changed, for thirty days: the tail's table `newest`.

By it a late older version is known, whichever way either came: a correction that came live is not
undone by an archive of the night before, and a result that was taken back is not revived.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

REMEMBERED: Final = timedelta(days=30)
TABLES: Final = """
CREATE TABLE IF NOT EXISTS newest (origin TEXT PRIMARY KEY, updated INTEGER, seen INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS newest_by_age ON newest (seen);
CREATE TABLE IF NOT EXISTS zones (source TEXT PRIMARY KEY, zone TEXT NOT NULL);
"""
_AT_ONCE: Final = 100_000


def of(db: sqlite3.Connection, origins: Collection[str]) -> dict[str, int | None]:
    """For those of some records that are remembered, microseconds since 1970."""
    asked = sorted(set(origins))
    # One row of numbers: fetching many rows is as slow as `add_rows` says adding them is.
    ((found,),) = db.execute(
        "SELECT json_group_array(json_array(asked.key, updated))"
        " FROM json_each(?) AS asked JOIN newest ON origin = asked.value",
        (json.dumps(asked),),
    )
    return {asked[number]: updated for number, updated in json.loads(found)}


def of_source(db: sqlite3.Connection, source: str) -> Iterator[pa.Table]:
    """Pieces with `origin` and `updated` of the records whose names start with a source's name."""
    found = db.execute(
        "SELECT origin, updated FROM newest"
        " WHERE origin >= ? AND origin < ? AND updated IS NOT NULL",
        _span(source),
    )
    while rows := found.fetchmany(_AT_ONCE):
        origins, updated = zip(*rows, strict=True)
        yield pa.table({"origin": pa.array(origins), "updated": pa.array(updated, pa.int64())})


def forget_other_zone(db: sqlite3.Connection, source: str, zone: str) -> None:
    """Forget a source's records if its times were read in another zone: they can't be compared.

    Whoever finds that the zone was wrong imports the same files again with the right one.
    """
    found = db.execute("SELECT zone FROM zones WHERE source = ?", (source,)).fetchone()
    if found is not None and found[0] != zone:
        db.execute("DELETE FROM newest WHERE origin >= ? AND origin < ?", _span(source))
    db.execute("INSERT OR REPLACE INTO zones VALUES (?, ?)", (source, zone))


def forget_some(db: sqlite3.Connection, before: int, most: int) -> int:
    """Forget records that were seen last before a time, so many at most; how many it were.

    Args:
        db: within a transaction.
        before: microseconds.
        most: at once.
    """
    old = "SELECT origin FROM newest WHERE seen < ? LIMIT ?"
    return db.execute(f"DELETE FROM newest WHERE origin IN ({old})", (before, most)).rowcount  # noqa: S608


def _span(source: str) -> tuple[str, str]:
    return f"{source}:", f"{source};"


def keep(db: sqlite3.Connection, piece: pa.Table, now: int) -> None:
    """Remember versions.

    Args:
        db: within a transaction.
        piece: with `origin` and `updated`, microseconds; 0 says nothing.
        now: microseconds.
    """
    known = piece.filter(pc.greater(piece["updated"], 0))
    columns = (known["origin"].to_pylist(), known["updated"].to_pylist())
    db.executemany(
        "INSERT INTO newest VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
        " updated = max(ifnull(updated, 0), excluded.updated), seen = excluded.seen",
        [(*row, now) for row in zip(*columns, strict=True)],
    )
