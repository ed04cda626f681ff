"""Nothing reads in a hospital's file any more once its database is closed, whoever holds the rows.

A thread that were still in the stream's `read` while the program ends would abort the process.
"""

import time
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.omop import files as omop_files
from fedtwin_client.records.omop.files import OmopFiles
from fedtwin_protocol.errors import RecordError

ROW = b"1,2.5\n"


class Watch:
    """Counts who is in `read`, which takes its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside = self.calls = 0
        read = omop_files._Watched.read

        def slow(stream: Any, size: int = -1) -> bytes:
            self.inside += 1
            self.calls += 1
            try:
                time.sleep(0.02)
                return read(stream, size)
            finally:
                time.sleep(0.02)
                self.inside -= 1

        monkeypatch.setattr(omop_files._Watched, "read", slow)
        monkeypatch.setattr(omop_files, "_LONGEST_LINE", 600)

    def is_quiet(self) -> bool:
        if self.inside:
            return False
        calls = self.calls
        time.sleep(0.1)
        return self.calls == calls


def database(folder: Path, rows: bytes) -> OmopFiles:
    (folder / "measurement.csv").write_bytes(b"measurement_id,value_as_number\n" + rows)
    return OmopFiles(folder)


@pytest.mark.parametrize("batches", [1, 4])
def test_closing_stops_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    watch = Watch(monkeypatch)
    opened = database(tmp_path, ROW * 100_000)
    rows = opened.rows("measurement", ["measurement_id"], None)
    for _ in range(batches):
        assert next(rows).num_rows == 100
    opened.close()
    assert watch.is_quiet()
    assert watch.calls < 100, "the file was not read to its end"
    assert next(rows, None) is None


def test_after_a_fault_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    opened = database(tmp_path, ROW * 300 + b"1,\xff\n" + ROW * 1000)
    with pytest.raises(RecordError, match="is not UTF-8 text: other bytes stand in line 302"):
        list(opened.rows("measurement", ["measurement_id"], None))
    assert watch.is_quiet()
    opened.close()


def test_after_a_line_that_cannot_be_read_nobody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch)
    opened = database(tmp_path, ROW * 300 + b"1," + b"9" * 3000 + b"\n" + ROW * 1000)
    with pytest.raises(RecordError, match="export the table again"):
        list(opened.rows("measurement", ["measurement_id"], None))
    assert watch.is_quiet()
    opened.close()
