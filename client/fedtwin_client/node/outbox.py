"""What leaves the hospital: kept before it is sent, sent again byte for byte, and written down.

Guarantee: when `store` has returned, the answer's bytes are on disk, so that a task is answered
with the same bytes however often it is sent. (Where no noise was drawn they survive the end of the
process, and not the loss of power.) A task is remembered for ever: its bytes may be
removed once they were acknowledged, and then `get` refuses rather than let noise be drawn again.

The list of messages that left is written by `sent`, before each leaves. It survives the end of the
process at any moment; of the rows since the last `store`, those of the last moments can be lost
with the power. Heartbeats and their like are summed by the hour.
"""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from fedtwin_client.node.database import Database, Trace
from fedtwin_client.node.departures import (
    DEPARTURES,
    Departure,
    Left,
    read_departures,
    write_departure,
)
from fedtwin_client.node.ledger_chain import spell_time
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.errors import LedgerError
from fedtwin_protocol.sum_steps import MASKED, step_of

LARGEST_HEAD: Final = 1024 * 1024
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answers (
    task TEXT PRIMARY KEY, study TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL,
    head BLOB, blob TEXT NOT NULL, size INTEGER NOT NULL, stored TEXT NOT NULL,
    acknowledged TEXT);
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
            schema=_SCHEMA + DEPARTURES,
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

    def store(self, outgoing: Outgoing, now: datetime, *, flushed: bool = True) -> Outgoing:
        """Keep an answer, on disk before this returns; only then may it be sent.

        The blob's file is taken over: it is moved into the outbox's folder under its hash.

        Args:
            outgoing: the answer.
            now: the time.
            flushed: whether it must survive the loss of power. It must wherever noise was drawn,
                for noise must not be drawn again; to flush a large model takes long.

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
        kept = self._take_over(outgoing, flushed) if outgoing.blob is not None else outgoing
        with self._database.transaction(flushed=flushed) as connection:
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
        """Every task whose answer was stored and is made of patients; the ledger must cover them.

        Of a secure sum that is the step in which the masked part is made; the others hold keys,
        shares and signatures.
        """
        with self._database.explained():
            rows = self._database.connection.execute(
                "SELECT task, kind FROM answers ORDER BY task"
            ).fetchall()
        return tuple(task for task, kind in rows if step_of(kind)[1] in {"", MASKED})

    def waiting(self) -> tuple[str, ...]:
        """Tasks whose answers were stored and not yet acknowledged, oldest first."""
        with self._database.explained():
            rows = self._database.connection.execute(
                "SELECT task FROM answers WHERE acknowledged IS NULL ORDER BY stored, task"
            )
            return tuple(task for (task,) in rows)

    def acknowledge(self, task: str, now: datetime) -> bool:
        """Note that the coordinator has an answer; to repeat it changes nothing.

        The note is not flushed by itself: without it the answer is only sent once more.

        Returns:
            Whether an answer was stored for the task; refusals are not.

        Raises:
            LedgerError: it could not be written.
        """
        with self._database.transaction(flushed=False) as connection:
            known = connection.execute(
                "UPDATE answers SET acknowledged = COALESCE(acknowledged, ?) WHERE task = ?",
                (spell_time(now), task),
            ).rowcount
        return bool(known)

    def prune(self, contents: BlobStore | None = None) -> int:
        """Remove the bytes of acknowledged answers; the tasks themselves stay known.

        Args:
            contents: takes their files, to write the next model into; none: they are removed.

        Returns:
            How many answers' bytes were removed.
        """
        done = "acknowledged IS NOT NULL AND head IS NOT NULL"
        with self._database.explained():
            blobs = self._database.connection.execute(
                f"SELECT blob FROM answers WHERE blob <> '' AND {done}"  # noqa: S608 - constant
            ).fetchall()
        # A file may go only when it is on disk that nobody refers to it any more.
        with self._database.transaction(flushed=bool(blobs)) as connection:
            removed = connection.execute(
                f"UPDATE answers SET head = NULL WHERE {done}"  # noqa: S608 - constant
            ).rowcount
        for name in {blob for (blob,) in blobs} - (self._needed_blobs() if blobs else set()):
            if contents is None:
                (self.blobs / name).unlink(missing_ok=True)
            else:
                contents.adopt(self.blobs / name)
        return removed

    def sweep(self) -> int:
        """Remove files beside the outbox that no kept answer refers to, left over from a crash.

        Only for the node's start, before any answer is made.

        Returns:
            How many files were removed.
        """
        needed = self._needed_blobs()
        orphans = [path for path in self.blobs.iterdir() if path.name not in needed]
        for path in orphans:
            path.unlink(missing_ok=True)
        return len(orphans)

    def sent(self, departure: Departure) -> None:
        """Write down a message that is about to leave.

        Raises:
            LedgerError: it could not be written; then the message must not be sent.
        """
        with self._database.explained():
            write_departure(self._database.connection, departure)

    def left(self, since: datetime | None = None) -> Left:
        """What left the hospital, oldest first.

        Args:
            since: only what left then or later (an hour is shown whole if it ends later); none:
                everything.
        """
        with self._database.explained():
            return read_departures(self._database.connection, since)

    def _needed_blobs(self) -> set[str]:
        with self._database.explained():
            rows = self._database.connection.execute(
                "SELECT blob FROM answers WHERE blob <> '' AND head IS NOT NULL"
            )
            return {blob for (blob,) in rows}

    def _take_over(self, outgoing: Outgoing, flushed: bool) -> Outgoing:
        source, target = outgoing.blob, self.blobs / outgoing.blob_sha256
        if source is None or not re.fullmatch("[0-9a-f]{64}", outgoing.blob_sha256):
            raise LedgerError(
                f"the answer to task {outgoing.task} names its blob '{outgoing.blob_sha256}'; "
                "expected a SHA-256 in hexadecimal. Nothing was sent"
            )
        try:
            size = source.stat().st_size
            if size == outgoing.blob_size:
                _move(source, target, flushed)
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
        return replace(outgoing, blob=target)

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


def _move(source: Path, target: Path, flushed: bool) -> None:
    if source.resolve() != target.resolve():
        shutil.move(source, target)
    if flushed:
        _flush(target)
        _flush(target.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
