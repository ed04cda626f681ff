"""Genomes at the command line: what comes in, and wrong options in a sentence."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.genome.gene_sets import gene_tables

HEAD = "##fileformat=VCFv4.2\n"
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS1\n"


@pytest.fixture
def vcf(tmp_path: Path) -> Path:
    """CYP3A5, the reference everywhere."""
    table = gene_tables(None)["CYP3A5"]
    lines = [
        f"{table.chromosome}\t{locus.position}\t.\t{locus.reference}\t.\t.\tPASS\t.\tGT\t0/0\n"
        for locus in table.loci
    ]
    path = tmp_path / "one.vcf"
    path.write_text(HEAD + COLUMNS + "".join(lines))
    return path


def test_three_ways_meet_in_one_patient(
    node: Path, tmp_path: Path, vcf: Path, type_in: Callable[..., Any]
) -> None:
    who = ("--patient", "4711", "--date", "2026-01-02", "--home", node)
    said = type_in("client", "records", "genome", vcf, *who)
    assert said.status == 0, said.err
    assert "CYP2C19: no position is covered" in said.out
    assert "events         2" in said.out
    calls = tmp_path / "calls.tsv"
    calls.write_text("CYP2D6\t*1/*4\n")
    said = type_in("client", "records", "pharmcat", calls, *who)
    assert "events         3" in said.out, said.err
    score = tmp_path / "score.txt"
    place = gene_tables(None)["CYP3A5"].loci[0]
    score.write_text(
        "#pgs_id=PGS000099\n#HmPOS_build=GRCh38\neffect_allele\teffect_weight\thm_chr\thm_pos\n"
        f"{place.reference[0]}\t0.5\t7\t{place.position}\n"
    )
    said = type_in("client", "records", "polygenic", vcf, "--score", score, *who)
    assert "events         2" in said.out, said.err
    said = type_in("client", "check", "--home", node)
    assert "1 patients" in said.out or "1 patient" in said.out, said.out


def test_a_newer_table_takes_the_place_of_the_shipped_one(
    node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    """NUDT15*3 with either number of repeats, as newer definitions have it."""
    content = json.loads((files("fedtwin_twins.genes") / "tables" / "NUDT15.json").read_text())
    content["version"] = "2026-09-01"
    content["alleles"] = [one for one in content["alleles"] if one["name"] != "*2"]
    (three,) = (one for one in content["alleles"] if one["name"] == "*3")
    three["bases"]["48037782"] = "AGGAGTC or AGGAGTCGGAGTC"
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "NUDT15.json").write_text(json.dumps(content))
    lines = []
    for locus in gene_tables(None)["NUDT15"].loci:
        changed = locus.position == 48045719
        alternative, genotype = ("T", "0/1") if changed else (".", "0/0")
        lines.append(
            f"chr13\t{locus.position}\t.\t{locus.reference}\t{alternative}\t.\tPASS\t.\tGT\t"
            f"{genotype}\n"
        )
    vcf = tmp_path / "nudt15.vcf"
    vcf.write_text(HEAD + COLUMNS + "".join(lines))
    who = ("--patient", "4711", "--date", "2026-01-02", "--home", node, "--tables", folder)
    said = type_in("client", "records", "genome", vcf, *who)
    assert said.status == 0, said.err
    assert "events         2" in said.out
    three["bases"]["48045719"] = "G"
    (folder / "NUDT15.json").write_text(json.dumps(content))
    said = type_in("client", "records", "genome", vcf, *who)
    assert said.status != 0
    assert "*3 of NUDT15 has G at 48045719" in " ".join(said.err.split())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--samples"),
        (["--patient", "1"], "--date"),
        (["--patient", "1", "--samples", "x.csv"], "--samples"),
        (["--samples", "x.csv", "--date", "2026-01-01"], "stand in its file"),
        (["--samples", "x.csv"], "found none at x.csv"),
        (["--patient", "1", "--date", "soon"], "expected dates such as 2026-03-01"),
        (["--patient", "1", "--date", "2026-01-02", "--zone", "Mars"], "time zone"),
        (["--patient", "1", "--date", "2026-01-02", "--tables", "none"], "gene tables"),
    ],
)
def test_wrong_options(
    node: Path, vcf: Path, type_in: Callable[..., Any], options: list[str], says: str
) -> None:
    said = type_in("client", "records", "genome", vcf, *options, "--home", node)
    assert said.status == 2
    assert says in said.err.replace("\n", " ")
    assert "Traceback" not in said.err
