"""SQLite files, encrypted by SQLCipher where the folder has a keyring.

SQLCipher encrypts every page (AES-256-CBC) with an HMAC-SHA512 of its own, in the file and in its
write-ahead log; temporary tables stay in memory. The key is raw: no password is stretched.

SQLCipher brings its own copy of SQLite. Two copies in one process do not see each other's locks on
a file, so a file is never opened by both: plain ones by Python's own, others by SQLCipher's.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlcipher3

from fedtwin_protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from fedtwin_client.at_rest.keyring import Keyring

ERRORS: Final = (sqlite3.Error, sqlcipher3.Error)
PATIENCE_S: Final = 10.0
"""How long another process is waited for."""
_PAUSE_S: Final = 0.02
_BLOCKS: Final = (64, 16, 4, 1)
"""Rows that one statement adds; few sizes, so that each statement is prepared once."""
_PLAIN: Final = b"SQLite format 3\0"
_DRAFT: Final = ".sealing"


def connect(
    path: Path, *, keyring: "Keyring | None" = None, patience_s: float = PATIENCE_S
) -> sqlite3.Connection:
    """Open a file, and make it where there is none, as its folder's keyring says.

    Args:
        path: in the node's folder or in its records.
        keyring: the node's; none: the one of the folder, if it has one.
        patience_s: how long to wait for another process.

    Returns:
        A connection without implicit transactions.

    Raises:
        ConfigurationError: the file is plain where everything is encrypted, or the other way round,
            or the site key is not at hand.
        sqlite3.Error: the file cannot be used; or the same of SQLCipher, one of `ERRORS`.
    """
    from fedtwin_client.at_rest.keyring import keyring_of  # noqa: PLC0415 - pydantic, for the ledger

    keyring = keyring or keyring_of(path.parent)
    size = path.stat().st_size if path.exists() else 0
    if keyring is None:
        return sqlite3.connect(path, isolation_level=None, timeout=patience_s)
    if size and is_plain(path):
        if keyring.complete:
            raise ConfigurationError(
                f"{path} is not encrypted, although everything of this node is: it is not from "
                "this node, or from a backup of before; run 'fedtwin client keys seal' if you put "
                "it there"
            )
        return _opened(path, None, patience_s)
    return _first_that_fits(path, keyring.for_purpose(f"database {path.name}"), patience_s)


def prepare(connection: sqlite3.Connection, tables: str, *, patience_s: float = PATIENCE_S) -> None:
    """Set a write-ahead log up, flushed at each change, and make tables where there are none.

    Args:
        connection: that was just opened.
        tables: statements that may be carried out again.
        patience_s: how long to wait for another process.

    Raises:
        sqlite3.Error: the file cannot be used; or the same of SQLCipher, one of `ERRORS`.
    """

    def all_steps() -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(tables)

    patiently(all_steps, patience_s)


def patiently(step: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Carry out a step of opening a file again and again while another process holds the file.

    SQLite itself waits for a lock, but not where two could wait for each other, as two do who both
    turn a new file to a write-ahead log, or where the last one to close it tidies the log up.

    Args:
        step: that may be carried out again.
        patience_s: how long; after that what SQLite says is raised.

    Raises:
        sqlite3.Error: the step failed; or the same of SQLCipher, one of `ERRORS`.
    """
    ends = time.monotonic() + patience_s
    while True:
        try:
            step()
        except ERRORS as error:
            if not is_held(error) or time.monotonic() >= ends:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def add_rows(
    connection: sqlite3.Connection,
    into: str,
    rows: Sequence[tuple[object, ...]],
    otherwise: str = "",
) -> None:
    """Add rows, many with one statement.

    `executemany` takes the interpreter's lock anew for every row, which in a process with a busy
    thread beside this one takes longer than SQLite needs for the row.

    Args:
        connection: within a transaction.
        into: such as `INSERT INTO events`.
        rows: all of one length.
        otherwise: what follows the values, such as `ON CONFLICT DO NOTHING`.

    Raises:
        sqlite3.Error: the file cannot be used; or the same of SQLCipher, one of `ERRORS`.
    """
    if not rows:
        return
    row = f"({', '.join('?' * len(rows[0]))})"
    done = 0
    for block in _BLOCKS:
        sql = f"{into} VALUES {', '.join([row] * block)} {otherwise}"
        while len(rows) - done >= block:
            values = [value for one in rows[done : done + block] for value in one]
            connection.execute(sql, values)
            done += block


def is_held(error: BaseException) -> bool:
    """Whether SQLite says that another process holds the file."""
    name = str(getattr(error, "sqlite_errorname", ""))
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_plain(path: Path) -> bool:
    """Whether a file begins as a SQLite file that is not encrypted does."""
    with path.open("rb") as file:
        return file.read(len(_PLAIN)) == _PLAIN


def seal_database(path: Path, keyring: "Keyring") -> bool:
    """Encrypt a plain file, or give one that an older key encrypts the newest.

    Nobody else may have the file open. A kill leaves the old file or the new one.

    Returns:
        Whether there was anything to do.

    Raises:
        ConfigurationError: another process has it open.
        sqlcipher3.Error: the file is damaged, or the disk is full.
    """
    keys = keyring.for_purpose(f"database {path.name}")
    if not path.stat().st_size:
        return False
    if is_plain(path):
        _export(path, keys[0])
        return True
    with suppress(*ERRORS):
        _opened(path, keys[0], 0).close()
        return False
    connection = _first_that_fits(path, keys[1:], 0)
    try:
        _alone(connection, path)
        connection.execute(f"PRAGMA rekey = \"x'{keys[0].hex()}'\"")
    finally:
        connection.close()
    return True


def _export(path: Path, key: bytes) -> None:
    draft = path.with_name(path.name + _DRAFT)
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    plain = _opened(path, None, 0)
    try:
        _alone(plain, path)
        plain.execute("ATTACH DATABASE ? AS sealed KEY ?", (str(draft), f"x'{key.hex()}'"))
        plain.execute("SELECT sqlcipher_export('sealed')")
        plain.execute("DETACH DATABASE sealed")
    finally:
        plain.close()
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _alone(connection: sqlite3.Connection, path: Path) -> None:
    """Take the write-ahead log into the file, which works only if nobody else has it open."""
    try:
        mode = connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
    except ERRORS:
        mode = "locked"
    if mode != "delete":
        raise ConfigurationError(
            f"{path} is in use by another process: stop the node and other commands on this "
            "folder, then try again"
        )


def _first_that_fits(path: Path, keys: list[bytes], patience_s: float) -> sqlite3.Connection:
    for key in keys[:-1]:
        try:
            return _opened(path, key, patience_s)
        except ERRORS as error:
            if is_held(error):  # which says nothing of the key
                raise
    return _opened(path, keys[-1], patience_s)


def _opened(path: Path, key: bytes | None, patience_s: float) -> sqlite3.Connection:
    connection: Any = sqlcipher3.connect(str(path), isolation_level=None, timeout=patience_s)
    try:
        if key is not None:
            connection.execute("PRAGMA cipher_log_level = NONE")
            connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
        look = "SELECT count(*) FROM sqlite_master"
        patiently(lambda: connection.execute(look).fetchone(), patience_s)
    except sqlcipher3.Error:
        connection.close()
        raise
    return connection  # type: ignore[no-any-return]  # the same interface, without stubs
