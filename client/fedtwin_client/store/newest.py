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


def forget(db: sqlite3.Connection, through: int, now: int) -> None:
    """Remove what the timelines have, and what an older program has left here for thirty days.

    Args:
        db: within a transaction.
        through: the number of the last version that the timelines have.
        now: microseconds.
    """
    db.execute(
        "DELETE FROM newest WHERE origin IN (SELECT origin FROM versions WHERE seq <= ?)"
        " AND origin NOT IN (SELECT origin FROM versions WHERE seq > ?)",
        (through, through),
    )
    microsecond = timedelta(microseconds=1)
    db.execute("DELETE FROM newest WHERE seen < ?", (now - _REMEMBERED // microsecond,))


def erase(db: sqlite3.Connection, subject_id: int) -> None:
    """Remove the records of a patient, whose events are still there."""
    db.execute(
        "DELETE FROM newest WHERE origin IN"
        " (SELECT origin FROM versions JOIN events USING (seq) WHERE subject_id = ?)",
        (subject_id,),
    )
