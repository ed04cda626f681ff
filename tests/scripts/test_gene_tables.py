"""The script that makes gene tables makes those that are committed, and folders that are read."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedtwin_client.records.gene_sets import gene_tables
from fedtwin_twins.genes.tables import built_in_tables

ROOT = Path(__file__).parents[2]
DEFINITIONS = ROOT.parent / "shared" / "data" / "pharmcat_definitions"


@pytest.mark.skipif(not DEFINITIONS.is_dir(), reason="the shared definitions are not here")
def test_a_site_can_make_newer_tables(tmp_path: Path) -> None:
    out = tmp_path / "tables"
    said = subprocess.run(
        [
            *(sys.executable, ROOT / "scripts" / "gene_tables.py"),
            *("--pharmcat", DEFINITIONS, "--out", out),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "CYP2D6: left out" in said
    made = sorted(path.stem for path in out.iterdir())
    assert made == sorted(set(built_in_tables()) - {"CYP2D6", "G6PD"})
    assert gene_tables(out) == built_in_tables()
