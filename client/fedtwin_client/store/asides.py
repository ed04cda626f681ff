"""What doors put aside, in the live tail's file until the timelines are written next."""

import json
import sqlite3
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class Aside:
    """Something wrong that a door put aside.

    Attributes:
        file: where it came from.
        line: its number there.
        reason: what was wrong.
        raw: all of it.
        also: what else was wrong.
        patient: whose it is, where that was said beside it.
        cut: whether `raw` is only its beginning.
        recipe: how the door read it, as text; empty: it cannot be read again.
    """

    file: str
    line: int
    reason: str
    raw: str
    also: tuple[str, ...] = ()
    patient: str | None = None
    cut: bool = False
    recipe: str = ""


_TABLE: Final = """
CREATE TABLE IF NOT EXISTS aside (
    number INTEGER PRIMARY KEY, door TEXT NOT NULL, file TEXT NOT NULL, line INTEGER NOT NULL,
    reason TEXT NOT NULL, raw TEXT NOT NULL, also TEXT NOT NULL DEFAULT '[]', patient TEXT,
    cut INTEGER NOT NULL DEFAULT 0, recipe TEXT NOT NULL DEFAULT '')
"""
# What files of before lack.
_ADDED: Final = {
    "also": "TEXT NOT NULL DEFAULT '[]'",
    "patient": "TEXT",
    "cut": "INTEGER NOT NULL DEFAULT 0",
    "recipe": "TEXT NOT NULL DEFAULT ''",
}
_COLUMNS: Final = "door, file, line, reason, raw, also, patient, cut, recipe"
_READ: Final = f"SELECT number, {_COLUMNS} FROM aside ORDER BY number"  # noqa: S608
INSERT: Final = f"INSERT INTO aside ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
"""Takes what `row` gives."""


def make_table(db: sqlite3.Connection) -> None:
    """Make the table, or bring that of before up to date."""
    db.execute(_TABLE)
    if not _lacking(db):
        return
    db.execute("BEGIN IMMEDIATE")
    for name in _lacking(db):  # another process may have been faster
        db.execute(f"ALTER TABLE aside ADD COLUMN {name} {_ADDED[name]}")
    db.execute("COMMIT")


def _lacking(db: sqlite3.Connection) -> list[str]:
    there = {name for (name,) in db.execute("SELECT name FROM pragma_table_info('aside')")}
    return [name for name in _ADDED if name not in there]


def row(door: str, aside: Aside) -> tuple[object, ...]:
    """A row of the table."""
    raw = aside.raw.encode("utf-8", "surrogatepass")  # may hold bytes that were no text
    said = (aside.file, aside.line, aside.reason, raw, json.dumps(aside.also))
    return (door, *said, aside.patient, aside.cut, aside.recipe)


def read(db: sqlite3.Connection) -> list[tuple[int, str, Aside]]:
    """Everything: number, door and what it is, in order."""
    return [
        (
            number,
            door,
            Aside(
                file=file,
                line=line,
                reason=reason,
                raw=raw if isinstance(raw, str) else raw.decode("utf-8", "surrogatepass"),
                also=tuple(json.loads(also)),
                patient=patient,
                cut=bool(cut),
                recipe=recipe,
            ),
        )
        for number, door, file, line, reason, raw, also, patient, cut, recipe in db.execute(_READ)
    ]
