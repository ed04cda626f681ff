"""Lines of variant files: how far they are read is told, in bytes as they lie on the disk."""

import gzip
from pathlib import Path

import pytest

from fedtwin_client.records import numbered_lines as lines_module
from fedtwin_client.records.numbered_lines import numbered_lines


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("number", [0, 3, 10_000])
def test_all_bytes_of_a_file_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool, number: int
) -> None:
    monkeypatch.setattr(lines_module, "_LINES_AT_ONCE", 1000)
    text = b"".join(b"chr1\t%d\n" % line for line in range(number))
    file = tmp_path / "a.vcf"
    file.write_bytes(gzip.compress(text) if packed else text)
    told: list[int] = []
    lines = [line for _, line in numbered_lines(file, progress=told.append)]
    assert b"".join(lines) == text
    assert sum(told) == file.stat().st_size
    assert len(told) == number // 1000 + 1
    assert min(told) >= 0
