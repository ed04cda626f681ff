"""That a disk is full is told from other faults, whoever says it."""

import errno
import sqlite3
from pathlib import Path

import pytest

from fedtwin_client.at_rest import room
from fedtwin_client.at_rest.room import MAKE_ROOM, how_to_mend, is_full


def of_sqlite(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = name
    return error


def caused(by: Exception) -> Exception:
    try:
        raise RuntimeError("cannot be used") from by
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (of_sqlite("SQLITE_FULL"), True),
        (of_sqlite("SQLITE_IOERR_SHMSIZE"), False),
        (of_sqlite("SQLITE_CORRUPT"), False),
        (caused(of_sqlite("SQLITE_FULL")), True),
        (caused(ValueError("no")), False),
    ],
)
def test_whether_it_is_full(tmp_path: Path, error: Exception, full: bool) -> None:
    assert is_full(error, tmp_path / "not there yet") is full
    assert how_to_mend(error, tmp_path, "ask") == (MAKE_ROOM if full else "ask")


def test_an_input_error_is_a_full_disk_where_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_free", lambda _: 8192)
    assert is_full(of_sqlite("SQLITE_IOERR_SHMSIZE"), tmp_path)
    assert not is_full(of_sqlite("SQLITE_CORRUPT"), tmp_path)
