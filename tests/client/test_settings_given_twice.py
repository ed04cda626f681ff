"""A setting that stands in a file twice is an error, told with file and lines."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedtwin_client.at_rest.keyring import key_file
from fedtwin_client.doors import read_doors
from fedtwin_client.node.home import NodeHome
from fedtwin_protocol.errors import ConfigurationError

DOOR = "  {name}:\n    kind: mllp\n    host: 127.0.0.1\n"


@pytest.mark.parametrize(
    ("file", "text", "read", "told"),
    [
        (
            "node.yaml",
            "consortium: demo\nsite: aal\ncoordinator: a:1\ncoordinator: b:1\n",
            lambda folder: NodeHome(folder=folder).settings(),
            "the key 'coordinator' is given twice, in line 3 and in line 4: keep one of them",
        ),
        (
            "node.yaml",
            "key_file: one\nsite: aal\nkey_file: other\n",
            key_file,
            "the key 'key_file' is given twice, in line 1 and in line 3: keep one of them",
        ),
        (
            "doors.yaml",
            "doors:\n" + DOOR.format(name="ward") + DOOR.format(name="ward"),
            lambda folder: read_doors(folder, lambda: datetime(2026, 3, 1, tzinfo=UTC)),
            "the key 'ward' is given twice, in line 2 and in line 5: keep one of them",
        ),
    ],
)
def test_it_is_told_where(
    tmp_path: Path, file: str, text: str, read: Callable[[Path], object], told: str
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(told)) as caught:
        read(tmp_path)
    assert str(tmp_path / file) in str(caught.value)
