"""Opening the coordinator's SQLite file, patiently where another process has it at the moment."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from fedtwin_protocol.errors import ConfigurationError

PATIENCE_S: Final = 10.0
"""How long another process is waited for."""
_PAUSE_S: Final = 0.02


def open_database(path: Path, tables: str) -> sqlite3.Connection:
    """Open a file with a write-ahead log that is flushed at each change.

    Args:
        path: made if absent, readable by its owner only.
        tables: statements that make the tables where they are absent.

    Returns:
        A connection without implicit transactions.

    Raises:
        ConfigurationError: another process holds the file for longer than `PATIENCE_S`, or it
            cannot be used.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_S)
    except (OSError, sqlite3.Error) as error:
        raise _fault(path, error) from error
    try:
        _prepare(connection, tables)
    except sqlite3.Error as error:
        connection.close()
        raise _fault(path, error) from error
    return connection


def _prepare(connection: sqlite3.Connection, tables: str) -> None:
    """Set the file up, again and again while another process holds it.

    SQLite itself waits for a lock, but not where two could wait for each other, as two do who both
    turn a new file to a write-ahead log, or where the last one to close it tidies the log up.
    """
    ends = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(tables)
        except sqlite3.OperationalError as error:
            if not _is_held(error) or time.monotonic() >= ends:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _is_held(error: Exception) -> bool:
    """Whether SQLite says that another process holds the file."""
    name = str(getattr(error, "sqlite_errorname", ""))
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _fault(path: Path, error: Exception) -> ConfigurationError:
    if _is_held(error):
        return ConfigurationError(
            f"{path} is held by another process ({error}): wait until the backup or the command "
            "that works on it is done, and try again; nothing was changed"
        )
    return ConfigurationError(
        f"{path} cannot be used ({error}): check its owner, its rights and the disk; a damaged "
        "file is replaced from a backup"
    )
