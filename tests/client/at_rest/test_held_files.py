"""A file that another process holds for a moment is opened all the same; for long, it is said."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlcipher3

from fedtwin_client.at_rest import database
from fedtwin_client.at_rest.database import connect, prepare
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.store import tail
from fedtwin_client.store.tail import Tail
from fedtwin_protocol.errors import RecordError

KEYS = Keyring(keys={"k1": b"\x01" * 32, "k2": b"\x02" * 32}, complete=True)


class Held:
    """A connection that says at once, as SQLite does, that another process holds the file."""

    def __init__(self, plain: sqlite3.Connection, statement: str, times: int) -> None:
        self._plain, self._statement, self.times = plain, statement, times

    def execute(self, statement: str, *asked: Any) -> Any:
        if statement.startswith(self._statement) and self.times:
            self.times -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorname = "SQLITE_BUSY"
            raise error
        return self._plain.execute(statement, *asked)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)


def held(times: int) -> Callable[..., Any]:
    def connected(path: Path, **more: Any) -> Held:
        return Held(connect(path, **more), "PRAGMA journal_mode", times)

    return connected


def test_live_records_are_opened_as_soon_as_nobody_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "connect", held(3))
    with Tail(tmp_path) as opened:
        assert opened.last() == 0
        mode = opened._db.execute("PRAGMA journal_mode").fetchone()
        settings = [opened._db.execute(f"PRAGMA {name}").fetchone()[0]
                    for name in ("synchronous", "secure_delete")]  # fmt: skip
    assert (mode, settings) == (("wal",), [2, 1])


def test_after_a_while_it_is_said_who_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "connect", held(10**9))
    moments = iter(range(0, 1000, 3))
    clock = SimpleNamespace(monotonic=lambda: next(moments), sleep=lambda _: None)
    monkeypatch.setattr(database, "time", clock)
    with pytest.raises(RecordError, match=r"live\.sqlite are held by another process .*try again"):
        Tail(tmp_path)
    assert next(moments) == 15, "ten seconds were waited"


def test_another_fault_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: pytest.fail("waited"))
    monkeypatch.setattr(database, "time", clock)
    (tmp_path / tail.FILE).write_bytes(b"no database at all, but long enough" * 9)
    with pytest.raises(RecordError, match="check the disk"):
        Tail(tmp_path)


def test_a_held_file_is_not_taken_for_one_of_another_key(tmp_path: Path) -> None:
    """Of several keys the first that fits is taken; one that could not be tried may be that one."""
    path = tmp_path / "live.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keyring, "for_purpose", lambda *_: [b"\x01" * 32, b"\x02" * 32])
        first = connect(path, keyring=KEYS)
        first.execute("CREATE TABLE a (x)")
        first.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlcipher3.OperationalError, match="locked"):
            connect(path, keyring=KEYS, patience_s=0.01)
        first.execute("COMMIT")
        connect(path, keyring=KEYS).close()
        first.close()


def test_two_who_open_a_new_file_at_once_both_do(tmp_path: Path) -> None:
    """SQLite does not wait where both turn it to a write-ahead log."""
    faults: list[Exception] = []

    def opens(path: Path, start: threading.Barrier) -> None:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            start.wait()
            prepare(connection, "CREATE TABLE IF NOT EXISTS a (x)")
        except sqlite3.Error as error:
            faults.append(error)
        finally:
            connection.close()

    for number in range(20):
        start = threading.Barrier(3)
        path = tmp_path / f"{number}.sqlite"
        threads = [threading.Thread(target=opens, args=(path, start)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert faults == []
