"""The live tail: what came in since the timelines were last written, in one SQLite file.

Rows are only ever added, under numbers that rise; the newest version of a record is the one with
the highest number. What the timelines have taken over (`Manifest.live_through`) is removed one step
later, so that a reader who holds the list of files of before still finds it here. One process adds
rows; others read beside it (write-ahead log).

A version that the source says is older than one that came before, live or by an import, is dropped,
and counted. One that comes while an import brings a newer one is dropped when the timelines are
written next.
"""

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa

from fedtwin_client.at_rest.database import (
    ERRORS,
    add_rows,
    connect,
    is_held,
    patiently,
    prepare,
)
from fedtwin_client.at_rest.keyring import Keyring, keyring_of
from fedtwin_client.at_rest.room import how_to_mend
from fedtwin_client.records.blocks import microseconds, rows_table
from fedtwin_client.records.source import Version
from fedtwin_client.store import asides, newest
from fedtwin_client.store.asides import Aside
from fedtwin_client.store.held_live import HeldLive
from fedtwin_client.store.staging import SCHEMA
from fedtwin_client.store.tail_rows import ERASED, OUTDATED, Rows, Said, counted
from fedtwin_protocol.errors import RecordError

__all__ = ["ERASED", "FILE", "OUTDATED", "Batch", "Change", "Tail"]
FILE: Final = "live.sqlite"
_SCHEMA: Final = """
PRAGMA secure_delete=ON;
CREATE TABLE IF NOT EXISTS versions (seq INTEGER PRIMARY KEY, origin TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS versions_by_origin ON versions (origin, seq);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER NOT NULL, subject_id INTEGER NOT NULL, time INTEGER, code TEXT NOT NULL,
    numeric_value REAL, text_value TEXT, available_time INTEGER, unit TEXT, src_unit TEXT,
    comparator TEXT, source TEXT NOT NULL, status TEXT);
CREATE INDEX IF NOT EXISTS events_by_subject ON events (subject_id);
CREATE INDEX IF NOT EXISTS events_by_seq ON events (seq);
CREATE TABLE IF NOT EXISTS account (
    door TEXT NOT NULL, kind TEXT NOT NULL, what TEXT NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (door, kind, what));
"""
_AT_ONCE: Final = 5_000
"""Rows that a long work takes in one step: while it does, what comes in has to wait."""
_EVENTS: Final = f"SELECT {', '.join(SCHEMA.names)} FROM events JOIN versions USING (seq)"  # noqa: S608
_ORIGINS: Final = "SELECT DISTINCT origin FROM versions WHERE seq > ? AND seq <= ? ORDER BY origin"
_THESE_ORIGINS: Final = (
    "SELECT value FROM json_each(?) WHERE EXISTS"
    " (SELECT 1 FROM versions WHERE origin = value AND seq > ? AND seq <= ?)"
)
_SAID: Final = """
SELECT source, code, available_time, numeric_value, comparator, unit, text_value
    FROM (SELECT origin, max(seq) AS seq FROM versions
        WHERE origin IN (SELECT value FROM json_each(?)) GROUP BY origin)
    JOIN events USING (seq) WHERE status IS NOT NULL AND available_time IS NOT NULL
"""
_NEWEST: Final = (
    "seq > ? AND seq <= ? AND NOT EXISTS (SELECT 1 FROM versions AS later"
    " WHERE later.origin = versions.origin AND later.seq > versions.seq AND later.seq <= ?)"
)


@dataclass(kw_only=True, slots=True)
class Batch:
    """What is added in one step.

    Attributes:
        door: the source that it came by.
        versions: of records.
        asides: what was put aside.
        account: how often what happened: (kind, what) -> times; kinds `read`, `reason`, `note`.
    """

    door: str
    versions: Sequence[Version] = ()
    asides: Sequence[Aside] = ()
    account: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A record that came in, was corrected or withdrawn.

    Attributes:
        seq: its number; later changes have higher ones.
        origin: the record.
        subjects: pseudonyms of whose it is, or was as long as the tail remembers.
    """

    seq: int
    origin: str
    subjects: frozenset[int]


class Tail:
    """The file; one connection, for one thread.

    Args:
        store: the timeline store's folder; made where there is none.
        keyring: the node's; none: the one of its folder, if it has one.

    Raises:
        RecordError: the file cannot be used.
        ConfigurationError: the keys are not at hand.
    """

    def __init__(self, store: Path, keyring: Keyring | None = None) -> None:
        self.path = store / FILE
        try:
            store.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = connect(self.path, keyring=keyring)
            self._held = HeldLive(store, keyring or keyring_of(store))
            prepare(self._db, newest.TABLES + _SCHEMA)
            patiently(lambda: asides.make_table(self._db))
        except (OSError, *ERRORS) as error:
            raise self._fault(error) from error

    def __enter__(self) -> "Tail":
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def shut(self) -> None:
        """Close the file."""
        self._held.shut()
        self._db.close()

    def add(self, batches: Iterable[Batch], erased: frozenset[int], now: datetime) -> None:
        """Add batches, all of them or none; on disk when this returns.

        Args:
            batches: what came in, in order.
            erased: pseudonyms whose events are dropped.
            now: when.

        Raises:
            RecordError: the disk is full or another fault; nothing was added.
        """
        batches = list(batches)
        with self._written() as db:
            known = self._newest(db, batches)
            said = self._said(db, known)
            rows = Rows(self._last(db), known, said, erased, microseconds(now) or 0)
            for batch in batches:
                account = Counter(batch.account)
                for version in batch.versions:
                    rows.take(version, account)
                rows.asides += [asides.row(batch.door, aside) for aside in batch.asides]
                rows.account.update({(batch.door, *key): times for key, times in account.items()})
            for into, values, otherwise in rows.written():
                add_rows(db, into, values, otherwise)
            db.executemany(asides.INSERT, rows.asides)

    def last(self) -> int:
        """The highest number given out."""
        with self._read() as db:
            return self._last(db)

    def origins(self, after: int, through: int, among: Collection[str] | None = None) -> list[str]:
        """Records with a version in a range of numbers.

        Args:
            after: exclusive.
            through: inclusive.
            among: of these only, which is quick if they are few; none: of all.
        """
        sql = _ORIGINS
        asked: tuple[object, ...] = (after, through)
        if among is not None:
            sql, asked = _THESE_ORIGINS, (json.dumps(sorted(set(among))), *asked)
        with self._read() as db:
            return [str(origin) for (origin,) in db.execute(sql, asked)]

    def events(self, after: int, through: int, subject: int | None = None) -> pa.Table:
        """Events of the newest version of each record in a range of numbers.

        Args:
            after: exclusive.
            through: inclusive.
            subject: of this pseudonym only; none: of everybody.

        Returns:
            A table with the columns of the store's schema, in no order.
        """
        sql, asked = f"{_EVENTS} WHERE {_NEWEST}", [after, through, through]
        if subject is not None:
            sql, asked = f"{sql} AND subject_id = ?", [*asked, subject]
        pieces = [SCHEMA.empty_table()]
        with self._read() as db:
            found = db.execute(sql, asked)
            # Few at a time: whoever makes a table of many holds up every other thread.
            while rows := found.fetchmany(_AT_ONCE):
                pieces.append(rows_table(rows, SCHEMA))
        return pa.concat_tables(pieces).combine_chunks()

    def updated(self, origins: Collection[str]) -> dict[str, int | None]:
        """When live records were changed, as their sources say, if they do, in microseconds."""
        with self._read() as db:
            return newest.of(db, origins)

    def rows(self, after: int) -> int:
        """How many events came after a number, of older versions too."""
        with self._read() as db:
            (number,) = db.execute("SELECT count(*) FROM events WHERE seq > ?", (after,)).fetchone()
            return int(number)

    def changes(self, after: int, most: int = 1000) -> list[Change]:
        """What came in after a number, in order, at most so many."""
        with self._read() as db:
            found = db.execute(
                "SELECT seq, origin FROM versions WHERE seq > ? ORDER BY seq LIMIT ?", (after, most)
            ).fetchall()
            return [
                Change(seq=seq, origin=origin, subjects=self._subjects(db, origin, seq))
                for seq, origin in found
            ]

    def asides(self) -> list[tuple[int, str, Aside]]:
        """What was put aside: number, door and what it is."""
        with self._read() as db:
            return asides.read(db)

    def account(self) -> dict[tuple[str, str, str], int]:
        """How often what happened since the node was set up: (door, kind, what) -> times."""
        with self._read() as db:
            found = db.execute("SELECT door, kind, what, number FROM account ORDER BY 1, 2, 3")
            return {(door, kind, what): number for door, kind, what, number in found.fetchall()}

    def count_late(self, door: str, times: int) -> None:
        """Count versions that turned out to be older than what the timelines have.

        Raises:
            RecordError: the file cannot be written.
        """
        with self._written() as db:
            add_rows(db, *counted({(door, "reason", OUTDATED): times}))

    def forget(self, through: int, written: int, asides: Iterable[int], now: datetime) -> None:
        """Remove what the timelines have, and what was put aside and lies elsewhere now.

        A kill on the way leaves some of it for the next time.

        Args:
            through: the number of the last version that they had a step before.
            written: the number of the last one that they have now.
            asides: what lies elsewhere.
            now: when.

        Raises:
            RecordError: the file cannot be written.
        """
        with self._read() as db:
            (first,) = db.execute("SELECT coalesce(min(seq), 0) FROM versions").fetchone()
        for start in range(first, written + 1, _AT_ONCE):
            with self._turn() as db:
                end = min(start + _AT_ONCE - 1, written)
                newest.forget_span(db, (start, end), written)
                span = (start, min(end, through))
                db.execute("DELETE FROM events WHERE seq BETWEEN ? AND ?", span)
                # The last one stays, so that its number is not given out again.
                last = "(SELECT max(seq) FROM versions)"
                db.execute(f"DELETE FROM versions WHERE seq BETWEEN ? AND ? AND seq < {last}", span)  # noqa: S608
        gone = _AT_ONCE
        while gone == _AT_ONCE:
            with self._turn() as db:
                gone = newest.forget_old(db, microseconds(now) or 0, _AT_ONCE)
        with self._written() as db:
            db.executemany("DELETE FROM aside WHERE number = ?", [(one,) for one in asides])

    def erase(self, subject_id: int, after: int) -> int:
        """Remove a patient's events, and all that was put aside, which may speak of them.

        Returns:
            How many events had come after a number; the others are the files'.

        Raises:
            RecordError: the file cannot be written.
        """
        with self._written() as db:
            (gone,) = db.execute(
                "SELECT count(*) FROM events WHERE subject_id = ? AND seq > ?", (subject_id, after)
            ).fetchone()
            newest.erase(db, subject_id)
            db.execute("DELETE FROM events WHERE subject_id = ?", (subject_id,))
            db.execute("DELETE FROM aside")
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except ERRORS as error:
            raise self._fault(error) from error
        return int(gone)

    def _subjects(self, db: sqlite3.Connection, origin: str, seq: int) -> frozenset[int]:
        found = db.execute(
            "SELECT DISTINCT subject_id FROM events JOIN versions USING (seq)"
            " WHERE origin = ? AND seq <= ?",
            (origin, seq),
        )
        return frozenset(int(subject) for (subject,) in found)

    def _newest(self, db: sqlite3.Connection, batches: Sequence[Batch]) -> dict[str, int | None]:
        """When what there is of the records of batches was changed, live or in the files."""
        found = newest.of(db, _origins(batches))
        dated = {
            version.origin for batch in batches for version in batch.versions if version.updated
        }
        for origin, updated in self._held.updated(dated).items():
            found[origin] = max(updated, found.get(origin) or 0)
        return found

    def _said(
        self, db: sqlite3.Connection, origins: Collection[str]
    ) -> dict[tuple[str, str], Said]:
        if not origins:
            return {}
        found = db.execute(_SAID, (json.dumps(sorted(origins)),))
        return {(source, code): Said(tuple(value), known) for source, code, known, *value in found}

    def _last(self, db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT coalesce(max(seq), 0) FROM versions").fetchone()[0])

    @contextmanager
    def _written(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except ERRORS as error:
            raise self._fault(error) from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextmanager
    def _turn(self) -> Iterator[sqlite3.Connection]:
        """A step of a long work, and then as long a pause as it took, for doors that wait."""
        began = time.monotonic()
        with self._written() as db:
            yield db
        time.sleep(time.monotonic() - began)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except ERRORS as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> RecordError:
        if is_held(error):
            return RecordError(
                f"the live records {self.path} are held by another process ({error}): wait until "
                "an import or a backup that works on them is done, and try again; nothing that was "
                "acknowledged is lost"
            )
        mend = how_to_mend(error, self.path, "check the disk, the file's owner and its rights")
        return RecordError(
            f"the live records {self.path} cannot be used ({error}): {mend}; nothing that was "
            "acknowledged is lost"
        )


def _origins(batches: Iterable[Batch]) -> set[str]:
    return {version.origin for batch in batches for version in batch.versions}
