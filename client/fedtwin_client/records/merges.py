"""Which patients are one person: kept beside the way back to them, so that it can be undone.

A merge leads from one identity to another. All that comes in for the first is then the second's;
what the timelines held of the first is moved by the store, which notes here what it moved. Two
identities that a person keeps apart are never merged again.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from fedtwin_client.at_rest.database import ERRORS, connect
from fedtwin_client.records.pseudonyms import Identity, IdentityMap, all_or_nothing, pseudonym
from fedtwin_protocol.errors import RecordError

FILE: Final = "identities.sqlite"
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS merged (subject_id INTEGER PRIMARY KEY, into_subject INTEGER,"
    " system TEXT, value TEXT, into_system TEXT, into_value TEXT, since TEXT, moved INTEGER)",
    "CREATE TABLE IF NOT EXISTS apart (system TEXT, value TEXT, other_system TEXT, other_value"
    " TEXT, PRIMARY KEY (system, value, other_system, other_value))",
    "CREATE TABLE IF NOT EXISTS moved (subject_id INTEGER, source TEXT,"
    " PRIMARY KEY (subject_id, source))",
)


class Merge(NamedTuple):
    """One merge: the pseudonym that is no longer used, the one in its place, and since when."""

    subject_id: int
    into: int
    since: str


class Merges:
    """The merges of one site, in its identity map's file.

    Args:
        store: the timeline store's folder.

    Raises:
        RecordError: the file cannot be opened.
    """

    def __init__(self, store: Path) -> None:
        self._path = store / FILE
        IdentityMap(self._path)
        self._run(*[(statement, [()]) for statement in _SCHEMA])

    def record(self, merges: Mapping[Identity, Identity], secret: bytes, now: datetime) -> None:
        """Add merges; durable on return. What the timelines hold is still to be moved.

        Raises:
            RecordError: the file cannot be written.
        """
        rows = [
            (
                pseudonym(secret, one),
                pseudonym(secret, into),
                *one,
                *into,
                now.astimezone(UTC).isoformat(),
            )
            for one, into in merges.items()
        ]
        people = [(pseudonym(secret, one), *one) for pair in merges.items() for one in pair]
        self._run(
            ("INSERT OR IGNORE INTO patients VALUES (?, ?, ?)", people),
            ("INSERT OR REPLACE INTO merged VALUES (?, ?, ?, ?, ?, ?, ?, 0)", rows),
        )

    def identities(self) -> dict[Identity, Identity]:
        """Which identity stands for another one."""
        rows = self._rows("SELECT system, value, into_system, into_value FROM merged")
        return {Identity(s, v): Identity(into, value) for s, v, into, value in rows}

    def apart(self) -> frozenset[frozenset[Identity]]:
        """Pairs that a person keeps apart."""
        rows = self._rows("SELECT * FROM apart")
        return frozenset(frozenset({Identity(a, b), Identity(c, d)}) for a, b, c, d in rows)

    def all(self) -> list[Merge]:
        """Every merge, oldest first."""
        rows = self._rows("SELECT subject_id, into_subject, since FROM merged ORDER BY since, 1")
        return [Merge(*row) for row in rows]

    def wholes(self) -> dict[int, int]:
        """For each pseudonym that is no longer used, the one that holds its patient's events."""
        into = {merge.subject_id: merge.into for merge in self.all()}
        return {subject: _end(into, subject) for subject in into}

    def pending(self) -> dict[int, int]:
        """Pseudonyms whose events are still to be moved, and where to."""
        waiting = {one for (one,) in self._rows("SELECT subject_id FROM merged WHERE moved = 0")}
        return {one: into for one, into in self.wholes().items() if one in waiting}

    def note_moved(self, rows: Iterable[tuple[int, str]]) -> None:
        """Keep which events are about to be moved: pseudonym and source."""
        self._run(("INSERT OR IGNORE INTO moved VALUES (?, ?)", list(rows)))

    def done(self, subjects: Iterable[int]) -> None:
        """The timelines hold nothing of these pseudonyms any more."""
        rows = [(subject,) for subject in subjects]
        self._run(("UPDATE merged SET moved = 1 WHERE subject_id = ?", rows))

    def moved(self, subject: int) -> list[str]:
        """Sources of the events that were moved away from a pseudonym."""
        rows = self._rows("SELECT source FROM moved WHERE subject_id = ?", (subject,))
        return [str(source) for (source,) in rows]

    def group(self, subject: int) -> frozenset[int]:
        """All pseudonyms of the person behind one of them."""
        wholes = self.wholes()
        root = wholes.get(subject, subject)
        return frozenset({root, *(one for one, into in wholes.items() if into == root)})

    def undo(self, subject: int) -> None:
        """Take a merge back, and never make it again.

        Raises:
            RecordError: there is none, or the file cannot be written.
        """
        rows = self._rows(
            "SELECT system, value, into_system, into_value FROM merged WHERE subject_id = ?",
            (subject,),
        )
        if not rows:
            raise RecordError("this patient was not merged into another one")
        self._run(
            ("INSERT OR IGNORE INTO apart VALUES (?, ?, ?, ?)", rows),
            ("DELETE FROM merged WHERE subject_id = ?", [(subject,)]),
            ("DELETE FROM moved WHERE subject_id = ?", [(subject,)]),
        )

    def forget(self, subject: int) -> None:
        """Keep nothing of an erased patient."""
        identities = self._rows(
            "SELECT system, value FROM patients WHERE subject_id = ?", (subject,)
        )
        self._run(
            ("DELETE FROM merged WHERE subject_id = ? OR into_subject = ?", [(subject, subject)]),
            ("DELETE FROM moved WHERE subject_id = ?", [(subject,)]),
            ("DELETE FROM apart WHERE system = ? AND value = ?", identities),
            ("DELETE FROM apart WHERE other_system = ? AND other_value = ?", identities),
        )

    def _run(self, *statements: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        try:
            with closing(connect(self._path)) as db:
                db.execute("PRAGMA synchronous=FULL")
                db.execute("PRAGMA secure_delete=ON")
                with all_or_nothing(db):
                    for sql, rows in statements:
                        db.executemany(sql, rows)
        except ERRORS as error:
            raise RecordError(f"cannot write the identity map {self._path}: {error}") from error

    def _rows(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            with closing(connect(self._path)) as db:
                return db.execute(sql, values).fetchall()
        except ERRORS as error:
            raise RecordError(f"cannot read the identity map {self._path}: {error}") from error


def _end(into: Mapping[int, int], subject: int) -> int:
    while subject in into:
        subject = into[subject]
    return subject
