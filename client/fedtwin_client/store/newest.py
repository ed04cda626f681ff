"""When the newest version of each live record was changed: the tail's table `newest`.

What the timelines have taken over they know themselves (`versions`), and it is removed here.
"""

import json
import sqlite3
from collections.abc import Collection
from datetime import timedelta
from typing import Final

_REMEMBERED: Final = timedelta(days=30)
TABLES: Final = """
CREATE TABLE IF NOT EXISTS newest (origin TEXT PRIMARY KEY, updated INTEGER, seen INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS newest_by_age ON newest (seen);
"""


def of(db: sqlite3.Connection, origins: Collection[str]) -> dict[str, int | None]:
    """For those of some records that are known here, microseconds since 1970."""
    asked = sorted(set(origins))
    # One row of numbers: fetching many rows is as slow as `add_rows` says adding them is.
    ((found,),) = db.execute(
        "SELECT json_group_array(json_array(asked.key, updated))"
        " FROM json_each(?) AS asked JOIN newest ON origin = asked.value",
        (json.dumps(asked),),
    )
    return {asked[number]: updated for number, updated in json.loads(found)}


def forget_span(db: sqlite3.Connection, span: tuple[int, int], written: int) -> None:
    """Forget records that the timelines have, and of which nothing newer came.

    Args:
        db: within a transaction.
        span: the numbers of the first and the last of some versions.
        written: the number of the last one that the timelines have.
    """
    db.execute(
        "DELETE FROM newest WHERE origin IN (SELECT origin FROM versions WHERE seq BETWEEN ? AND ?)"
        " AND NOT EXISTS"
        " (SELECT 1 FROM versions WHERE versions.origin = newest.origin AND seq > ?)",
        (*span, written),
    )


def forget_old(db: sqlite3.Connection, now: int, most: int) -> int:
    """Forget what an older program has left here for thirty days; how many it were.

    Args:
        db: within a transaction.
        now: microseconds.
        most: at once.
    """
    old = "SELECT origin FROM newest WHERE seen < ? LIMIT ?"
    before = now - _REMEMBERED // timedelta(microseconds=1)
    return db.execute(f"DELETE FROM newest WHERE origin IN ({old})", (before, most)).rowcount  # noqa: S608


def erase(db: sqlite3.Connection, subject_id: int) -> None:
    """Remove the records of a patient, whose events are still there."""
    db.execute(
        "DELETE FROM newest WHERE origin IN"
        " (SELECT origin FROM versions JOIN events USING (seq) WHERE subject_id = ?)",
        (subject_id,),
    )
