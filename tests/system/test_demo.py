"""The whole line over real processes: from FHIR records to a verified release."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEART = Path(__file__).parents[3] / "shared" / "data" / "uci_heart"


def play(tmp_path: Path, *options: str) -> dict:
    table = tmp_path / "table.json"
    subprocess.run(
        [sys.executable, "-m", "fedtwin.main", "demo", "run", "--json", str(table), *options],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return json.loads(table.read_text())


def test_four_synthetic_hospitals(tmp_path: Path) -> None:
    closing = play(tmp_path)
    assert len(closing["sites"]) == 4
    for facts in closing["sites"].values():
        assert 0.9 < facts["epsilon"] <= 1.001
        assert facts["before"]["auroc"] > facts["pooled"]["auroc"] - 0.1
        assert facts["bytes_sent"] < 20_000


@pytest.mark.skipif(not HEART.is_dir(), reason="the UCI heart disease set is not here")
def test_four_real_hospitals(tmp_path: Path) -> None:
    closing = play(tmp_path, "--heart-disease", str(HEART))
    sites = closing["sites"]
    assert set(sites) == {"cleveland", "hungarian", "switzerland", "va"}
    mean = sum(facts["after"]["accuracy"] for facts in sites.values()) / 4
    assert mean > 0.7
