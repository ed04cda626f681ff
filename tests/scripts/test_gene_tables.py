"""The script that makes gene tables makes those that are committed, and folders that are read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedtwin_client.records.genome.gene_sets import gene_tables
from fedtwin_twins.genes.calling import call_gene
from fedtwin_twins.genes.genotypes import Genotype
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
    assert "G6PD: left out" in said
    made = sorted(path.stem for path in out.iterdir())
    assert made == sorted(set(built_in_tables()) - {"G6PD"})
    assert gene_tables(out) == built_in_tables()


@pytest.mark.skipif(not DEFINITIONS.is_dir(), reason="the shared definitions are not here")
def test_a_newer_set_in_the_layout_of_its_repository(tmp_path: Path) -> None:
    """As PharmCAT's of May 2026: NUDT15*3 with either number of repeats, other functions."""
    newer, out = tmp_path / "pharmcat", tmp_path / "tables"
    shutil.copytree(DEFINITIONS / "alleles", newer / "definition" / "alleles")
    shutil.copytree(DEFINITIONS / "phenotype", newer / "phenotype")
    definition = newer / "definition" / "alleles" / "NUDT15_translation.json"
    content = json.loads(definition.read_text())
    content["version"] = "2026-08-01-00-00"
    content["namedAlleles"] = [one for one in content["namedAlleles"] if one["name"] != "*2"]
    (three,) = (one for one in content["namedAlleles"] if one["name"] == "*3")
    place = [one["position"] for one in content["variants"]].index(48037782)
    three["alleles"][place] = "AGGAGTC or AGGAGTCGGAGTC"
    definition.write_text(json.dumps(content))
    values = {"*1": "1.0", "*41": "0.25", "*200": "0.5", "*22": "n/a", "*1x2": "2.0"}
    (newer / "phenotype" / "CYP2D6.json").write_text(
        json.dumps({"gene": "CYP2D6", "version": "2026-08-01-00-00", "activityValues": values})
    )
    made = subprocess.run(
        [
            *(sys.executable, ROOT / "scripts" / "gene_tables.py"),
            *("--pharmcat", newer, "--out", out),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    tables = gene_tables(out)
    nudt15 = tables["NUDT15"]
    assert nudt15.version == "2026-08-01"
    assert "*10" not in nudt15.functions  # its own functions, not those beside the script
    reference = {one.position: Genotype((one.reference, one.reference)) for one in nudt15.loci}
    changed = {48045719: Genotype(("C", "T"))}
    for repeats in ("AGGAGTC", "AGGAGTCGGAGTC"):
        longer = {48037782: Genotype(("AGGAGTC", repeats))}
        call = call_gene(nudt15, {**reference, **changed, **longer})
        assert call.diplotypes == ("*1/*3",)
        assert call.meaning is not None
        assert call.meaning.phenotype == "Intermediate Metabolizer"
    assert tables["CYP2D6"].version == "2026-08-01"
    assert dict(tables["CYP2D6"].values) == {
        "*1": (1.0, 1.0),
        "*41": (0.25, 0.25),
        "*200": (0.5, 0.5),
        "*22": None,
    }


def test_a_folder_without_definitions_is_told(tmp_path: Path) -> None:
    made = subprocess.run(
        [
            *(sys.executable, ROOT / "scripts" / "gene_tables.py"),
            *("--pharmcat", tmp_path, "--out", tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode != 0
    assert "has neither definition/alleles nor alleles" in made.stderr
