"""The node's own SQLite files: private to their owner, on disk when a call returns, all or nothing.

Write-ahead log with synchronous=FULL: a committed transaction has been flushed to the disk and
survives the loss of power. What goes wrong becomes a sentence for the hospital's IT. Where the
node's folder has a keyring the files are encrypted.
"""

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedtwin_client.at_rest.database import ERRORS, connect, prepare
from fedtwin_protocol.errors import LedgerError

Trace = Callable[[str], None]

_REASONS: Final = {
    "SQLITE_FULL": "the disk is full: make room, then start the node again",
    "SQLITE_IOERR": "the disk refuses to write or read: check its space, quota and health",
    "SQLITE_READONLY": "the file or its folder may not be written: check owner, rights and mount",
    "SQLITE_PERM": "the file or its folder may not be written: check owner, rights and mount",
    "SQLITE_CANTOPEN": "the file cannot be opened: check that its folder exists and is yours",
    "SQLITE_BUSY": "another process holds the file: is a second node running on this folder?",
    "SQLITE_LOCKED": "another process holds the file: is a second node running on this folder?",
    "SQLITE_CORRUPT": "the file is damaged: keep it for the data protection officer",
    "SQLITE_NOTADB": "the file is no database or is damaged: keep it for the data protection "
    "officer",
    "SQLITE_CONSTRAINT": "the database refused the change",
}


class Database:
    """One file.

    Args:
        path: made if absent, with rights 0600, in an existing folder.
        schema: statements that make the tables where they are absent.
        what: the file in words, for errors: `the privacy ledger`.
        consequence: what did not happen when a change fails, for errors.
        patience_s: how long to wait for another process.
        trace: is handed each SQL statement before it runs.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: str,
        what: str,
        consequence: str,
        patience_s: float = 10.0,
        trace: Trace | None = None,
    ) -> None:
        self._path, self._what, self._consequence = path, what, consequence
        _make_private(path, what)
        with self.explained():
            self.connection = connect(path, patience_s=patience_s)
        try:
            with self.explained():
                self.connection.set_trace_callback(trace)
                prepare(self.connection, schema, patience_s=patience_s)
        except LedgerError:
            self.connection.close()
            raise

    @contextmanager
    def transaction(self, *, flushed: bool = True) -> Iterator[sqlite3.Connection]:
        """All of what is inside, on disk, or nothing.

        Args:
            flushed: whether it must survive the loss of power; if not, the next flushed
                transaction takes it along.

        Raises:
            LedgerError: it could not be written; nothing was.
        """
        with self.explained():
            if not flushed:
                self.connection.execute("PRAGMA synchronous=NORMAL")
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, such as a full disk.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
            finally:
                if not flushed:
                    self.connection.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what SQLite complains of into a sentence.

        Raises:
            LedgerError: always instead of `sqlite3.Error`.
        """
        try:
            yield
        except ERRORS as error:
            name = getattr(error, "sqlite_errorname", "")
            reason = next(
                (text for start, text in _REASONS.items() if name.startswith(start)),
                "the database failed",
            )
            raise LedgerError(
                f"{self._what} {self._path} cannot be used: {reason} ({error}). {self._consequence}"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


def _make_private(path: Path, what: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o600))
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise LedgerError(
            f"{what} {path} cannot be opened: {error.strerror}; check that its folder exists and "
            "belongs to the node's user"
        ) from error
    if mode & 0o077:
        raise LedgerError(
            f"{what} {path} has rights {mode:o}, so that others may read or change it; expected "
            f"600: run 'chmod 600 {path}'"
        )
