"""A coordinator's file that another process holds for a moment is opened; for long, it is said."""

import sqlite3
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedtwin_protocol.errors import ConfigurationError
from fedtwin_server import opening
from fedtwin_server.store import Store


class _Held(sqlite3.Connection):
    """Says, as SQLite does where two turn a file to a write-ahead log, that another has it."""

    times = 0
    closed = False

    def execute(self, statement, *asked):
        if statement.startswith("PRAGMA journal_mode") and _Held.times:
            _Held.times -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorname = "SQLITE_BUSY"
            raise error
        return super().execute(statement, *asked)

    def close(self):
        _Held.closed = True
        super().close()


def _hold(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Fail so many times, under a clock that goes on by 3 s at each look."""
    _Held.times, _Held.closed = times, False
    moments = iter(range(0, 1000, 3))
    clock = SimpleNamespace(monotonic=lambda: next(moments), sleep=lambda _: None)
    monkeypatch.setattr(opening, "time", clock)
    opened = sqlite3.connect
    fake = SimpleNamespace(**vars(sqlite3))
    fake.connect = lambda path, **more: opened(path, **more, factory=_Held)
    monkeypatch.setattr(opening, "sqlite3", fake)


def test_a_file_is_opened_as_soon_as_nobody_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hold(monkeypatch, 3)
    opened = Store(tmp_path / "coordinator.sqlite")
    assert opened.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert opened.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert opened.studies() == []
    opened.close()


def test_after_a_while_it_is_said_who_is_waited_for_and_the_file_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hold(monkeypatch, 10**9)
    with pytest.raises(ConfigurationError, match=r"sqlite is held by another process .*try again"):
        Store(tmp_path / "coordinator.sqlite")
    assert 10**9 - _Held.times == 4, "ten seconds were waited"
    assert _Held.closed


def test_another_fault_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: pytest.fail("waited"))
    monkeypatch.setattr(opening, "time", clock)
    path = tmp_path / "coordinator.sqlite"
    path.write_bytes(b"no database at all, but long enough" * 9)
    with pytest.raises(ConfigurationError, match=r"cannot be used .*from a backup"):
        Store(path)


def test_some_who_open_a_new_file_at_once_all_do(tmp_path: Path) -> None:
    faults: list[Exception] = []

    def opens(path: Path, start: threading.Barrier) -> None:
        start.wait()
        try:
            Store(path).close()
        except ConfigurationError as error:
            faults.append(error)

    for number in range(10):
        start = threading.Barrier(3)
        path = tmp_path / f"{number}.sqlite"
        threads = [threading.Thread(target=opens, args=(path, start)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert faults == []
