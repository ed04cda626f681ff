"""The guide to beliefs runs as it is written."""

import re
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[3] / "docs" / "beliefs.md").read_text()


def test_the_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    exec(compile(block, "beliefs.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    weights, bands = (re.findall(r"[\d.]+(?=[,\]])", line) for line in said[-2:])
    assert sum(map(float, weights)) == pytest.approx(1.0)
    assert 5.0 < float(bands[-3]) < 25.0
    assert [line.split()[0] for line in said[:2]] == [
        "vancomycin_thomson_2009",
        "vancomycin_buelga_2005",
    ]
