"""A setting that stands in `coordinator.yaml` twice is an error: one of the two would be lost."""

import re
from pathlib import Path

import pytest

from fedtwin_protocol.errors import ConfigurationError
from fedtwin_server.coordinator import Home


def test_it_is_told_where(tmp_path: Path) -> None:
    home = Home(folder=tmp_path)
    home.settings_file.write_text("consortium: demo\nlisten: 127.0.0.1:1\nlisten: 0.0.0.0:1\n")
    told = "the key 'listen' is given twice, in line 2 and in line 3: keep one of them"
    with pytest.raises(ConfigurationError, match=re.escape(told)) as caught:
        home.settings()
    assert str(home.settings_file) in str(caught.value)
