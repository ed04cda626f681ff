"""What leaves the hospital: kept before it is sent, sent again byte for byte, and written down.

Guarantee: when `store` has returned, the answer's bytes are on disk, so that a task is answered
with the same bytes however often it is sent. A task is remembered for ever: its bytes may be
removed once they were acknowledged, and then `get` refuses rather than let noise be drawn again.

The list of messages that left is written by `sent`. A row of it can be lost with the power, never
with the process; answers themselves are in the list from `store` on. Heartbeats and their like
are summed by the hour.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fedtwin_client.node.database import Database, Trace
from fedtwin_client.node.ledger_chain import spell_time
from fedtwin_protocol.errors import LedgerError

LARGEST_HEAD: Final = 1024 * 1024
SUMMED: Final = frozenset({"heartbeat", "catalogue request"})
"""Kinds of message of which a row is kept for an hour, not for each."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answers (
    task TEXT PRIMARY KEY, study TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL,
    head BLOB, blob TEXT NOT NULL, size INTEGER NOT NULL, stored TEXT NOT NULL,
    acknowledged TEXT);
CREATE TABLE IF NOT EXISTS messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, kind TEXT NOT NULL,
    study TEXT NOT NULL, round INTEGER, bytes INTEGER NOT NULL, held TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS hours (
    hour TEXT NOT NULL, kind TEXT NOT NULL, messages INTEGER NOT NULL, bytes INTEGER NOT NULL,
    held TEXT NOT NULL, PRIMARY KEY (hour, kind));
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """An answer ready to be sent.

    Attributes:
        task: the coordinator's task.
        study: the study's name.
        round: the study's round; 0 outside rounds.
        kind: the task's kind.
        head: the message as it is sent.
        blob: a file with the large arrays that the head refers to, if any.
        blob_sha256: its hash, in hexadecimal.
        blob_size: its length in bytes.
    """

    task: str
    study: str
    round: int
    kind: str
    head: bytes
    blob: Path | None = None
    blob_sha256: str = ""
    blob_size: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Departure:
    """One message that left, or one hour of a summed kind.

    Attributes:
        time: when it was sent; the hour's start for a summed kind.
        kind: `answer`, `decision`, `hello`, `blob`, `heartbeat` and the like.
        study: the study's name; empty outside studies.
        round: of the study; none outside rounds.
        bytes: on the wire, of our messages, before encryption.
        held: what it held, in words: `gradient_sum, 14 numbers, noised`.
        messages: how many; 1 unless summed.
    """

    time: datetime
    kind: str
    study: str = ""
    round: int | None = None
    bytes: int
    held: str
    messages: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """Everything that left since some time, oldest first, and its totals."""

    departures: tuple[Departure, ...]

    @property
    def messages(self) -> int:
        """How many messages."""
        return sum(departure.messages for departure in self.departures)

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return sum(departure.bytes for departure in self.departures)

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Messages and bytes of each kind."""
        totals: dict[str, tuple[int, int]] = {}
        for departure in self.departures:
            messages, size = totals.get(departure.kind, (0, 0))
            totals[departure.kind] = (messages + departure.messages, size + departure.bytes)
        return totals


class Outbox:
    """One site's outbox.

    Args:
        path: the file; made if absent, readable by its owner only. Blobs lie in a folder beside.
        patience_s: how long to wait for another process that holds it.
        trace: is handed each SQL statement before it runs.

    Raises:
        LedgerError: the file cannot be used.
    """

    def __init__(self, path: Path, *, patience_s: float = 10.0, trace: Trace | None = None) -> None:
        self._database = Database(
            path,
            schema=_SCHEMA,
            what="the outbox",
            consequence="Nothing was sent that is not in it",
            patience_s=patience_s,
            trace=trace,
        )
        self.blobs = path.with_name(path.name + ".blobs")
        self.blobs.mkdir(mode=0o700, exist_ok=True)

    def __enter__(self) -> "Outbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def shut(self) -> None:
        """Close the file."""
        self._database.close()

    def store(self, outgoing: Outgoing, now: datetime) -> Outgoing:
        """Keep an answer, on disk before this returns; only then may it be sent.

        The blob's file is taken over: it is moved into the outbox's folder under its hash.

        Returns:
            What must be sent: for a task stored before, the answer of then.

        Raises:
            LedgerError: it could not be written, the blob is not what was said, or the task's
                bytes were removed after their acknowledgement.
        """
        before = self.get(outgoing.task)
        if before is not None:
            return before
        if len(outgoing.head) > LARGEST_HEAD:
            raise LedgerError(
                f"the answer to task {outgoing.task} has a message of {len(outgoing.head)} bytes; "
                f"expected at most {LARGEST_HEAD}, with larger arrays in a blob"
            )
        kept = self._take_over(outgoing) if outgoing.blob is not None else outgoing
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO answers (task, study, round, kind, head, blob, size, stored)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    kept.task,
                    kept.study,
                    kept.round,
                    kept.kind,
                    kept.head,
                    kept.blob_sha256,
                    kept.blob_size,
                    spell_time(now),
                ),
            )
        return kept

    def get(self, task: str) -> Outgoing | None:
        """The answer to a task exactly as it was stored; none if nothing was ever stored for it.

        Raises:
            LedgerError: the bytes were removed after their acknowledgement, or the blob's file is
                gone or changed.
        """
        with self._database.explained():
            row = self._database.connection.execute(
                "SELECT study, round, kind, head, blob, size FROM answers WHERE task = ?", (task,)
            ).fetchone()
        if row is None:
            return None
        study, round_number, kind, head, sha256, size = row
        if head is None:
            raise LedgerError(
                f"task {task} was answered and acknowledged before and its bytes were removed "
                "since: it is not answered again, because new noise would be a second release"
            )
        return Outgoing(
            task=task,
            study=study,
            round=round_number,
            kind=kind,
            head=head,
            blob=self._checked_blob(task, sha256) if sha256 else None,
            blob_sha256=sha256,
            blob_size=size,
        )

    def tasks(self) -> tuple[str, ...]:
        """Every task an answer was ever stored for; the ledger must cover them all."""
        with self._database.explained():
            rows = self._database.connection.execute("SELECT task FROM answers ORDER BY task")
            return tuple(task for (task,) in rows)

    def waiting(self) -> tuple[str, ...]:
        """Tasks whose answers were stored and not yet acknowledged, oldest first."""
        with self._database.explained():
            rows = self._database.connection.execute(
                "SELECT task FROM answers WHERE acknowledged IS NULL ORDER BY stored, task"
            )
            return tuple(task for (task,) in rows)

    def acknowledge(self, task: str, now: datetime) -> None:
        """Note that the coordinator has an answer; to repeat it changes nothing.

        Raises:
            LedgerError: it could not be written, or nothing was stored for the task.
        """
        with self._database.transaction() as connection:
            known = connection.execute(
                "UPDATE answers SET acknowledged = COALESCE(acknowledged, ?) WHERE task = ?",
                (spell_time(now), task),
            ).rowcount
        if not known:
            raise LedgerError(
                f"the coordinator acknowledged task {task}, to which nothing was ever answered"
            )

    def prune(self) -> int:
        """Remove the bytes of acknowledged answers and blobs that no answer needs.

        The tasks themselves stay known.

        Returns:
            How many answers' bytes were removed.
        """
        with self._database.transaction() as connection:
            removed = connection.execute(
                "UPDATE answers SET head = NULL WHERE acknowledged IS NOT NULL"
                " AND head IS NOT NULL"
            ).rowcount
            rows = connection.execute(
                "SELECT blob FROM answers WHERE blob <> '' EXCEPT"
                " SELECT blob FROM answers WHERE head IS NOT NULL"
            ).fetchall()
        for (sha256,) in rows:
            (self.blobs / sha256).unlink(missing_ok=True)
        return removed

    def sent(self, departure: Departure) -> None:
        """Write down a message that is about to leave.

        Raises:
            LedgerError: it could not be written; then the message must not be sent.
        """
        with self._database.explained():
            self._database.connection.execute("PRAGMA synchronous=NORMAL")
            try:
                self._write_departure(departure)
            finally:
                self._database.connection.execute("PRAGMA synchronous=FULL")

    def left(self, since: datetime | None = None) -> Left:
        """What left the hospital, oldest first.

        Args:
            since: only what left then or later (an hour is shown whole if it ends later); none:
                everything.
        """
        start = spell_time(since) if since else ""
        hour = _hour(since) if since else ""
        with self._database.explained():
            rows = self._database.connection.execute(
                "SELECT time, kind, study, round, bytes, held, 1 FROM messages WHERE time >= ?"
                " UNION ALL SELECT hour, kind, '', NULL, bytes, held, messages FROM hours"
                " WHERE hour >= ? ORDER BY 1, 2",
                (start, hour),
            ).fetchall()
        return Left(departures=tuple(_departure(row) for row in rows))

    def _write_departure(self, departure: Departure) -> None:
        execute = self._database.connection.execute
        if departure.kind in SUMMED:
            execute(
                "INSERT INTO hours (hour, kind, messages, bytes, held) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (hour, kind) DO UPDATE SET messages = messages + excluded.messages,"
                " bytes = bytes + excluded.bytes, held = excluded.held",
                (
                    _hour(departure.time),
                    departure.kind,
                    departure.messages,
                    departure.bytes,
                    departure.held,
                ),
            )
            return
        execute(
            "INSERT INTO messages (time, kind, study, round, bytes, held)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                spell_time(departure.time),
                departure.kind,
                departure.study,
                departure.round,
                departure.bytes,
                departure.held,
            ),
        )

    def _take_over(self, outgoing: Outgoing) -> Outgoing:
        source, target = outgoing.blob, self.blobs / outgoing.blob_sha256
        assert source is not None
        try:
            if source.resolve() != target.resolve():
                shutil.move(source, target)
            size = target.stat().st_size
            _flush(target)
            _flush(self.blobs)
        except OSError as error:
            raise LedgerError(
                f"the answer to task {outgoing.task} cannot be kept in {self.blobs}: "
                f"{error.strerror}. Nothing was sent"
            ) from error
        if size != outgoing.blob_size:
            raise LedgerError(
                f"the answer to task {outgoing.task} has a blob of {size} bytes where "
                f"{outgoing.blob_size} were written: the disk may be full. Nothing was sent"
            )
        return Outgoing(
            task=outgoing.task,
            study=outgoing.study,
            round=outgoing.round,
            kind=outgoing.kind,
            head=outgoing.head,
            blob=target,
            blob_sha256=outgoing.blob_sha256,
            blob_size=size,
        )

    def _checked_blob(self, task: str, sha256: str) -> Path:
        path = self.blobs / sha256
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise LedgerError(
                f"the stored answer to task {task} cannot be read from {path}: {error.strerror}. "
                "It is not drawn again, because new noise would be a second release"
            ) from error
        if found != sha256:
            raise LedgerError(
                f"the stored answer to task {task} in {path} was changed after it was stored, so "
                "it is not sent again"
            )
        return path


def _departure(row: tuple[str, str, str, int | None, int, str, int]) -> Departure:
    time, kind, study, round_number, size, held, messages = row
    return Departure(
        time=datetime.fromisoformat(time),
        kind=kind,
        study=study,
        round=round_number,
        bytes=size,
        held=held,
        messages=messages,
    )


def _hour(time: datetime) -> str:
    return spell_time(time.astimezone(UTC).replace(minute=0, second=0, microsecond=0))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
