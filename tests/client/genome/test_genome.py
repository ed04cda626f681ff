"""VCF files: how one change is written in many ways, and what is covered."""

import csv
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.genome import vcf as genome
from fedtwin_client.records.genome.gene_sets import gene_tables
from fedtwin_client.records.genome.vcf import GenomeOptions, variant_files
from fedtwin_client.records.people import read_people
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError
from fedtwin_twins.genes.calling import GeneCall, call_gene
from fedtwin_twins.genes.tables import GeneTable

from .genomes import (
    EXAMPLES,
    NOW,
    ONE,
    SECRET,
    TWO,
    called,
    desk,
    heterozygous_two,
    line,
    reference_lines,
    write,
)


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize("name", ["pharmcat.example", "pharmcat.example2"])
def test_every_call_of_a_public_example(name: str) -> None:
    """Diplotype, phenotype and score of all 13 genes that are called from a VCF."""
    found, tally = called(EXAMPLES / f"{name}.vcf")
    rows = (EXAMPLES / f"{name}.report.tsv").read_text().splitlines()[1:]
    compared = 0
    for row in csv.DictReader(rows, delimiter="\t"):
        if row["Gene"] not in found:
            continue
        parts = found.pop(row["Gene"])
        assert parts["diplotype"].text_value == row["Source Diplotype"]
        phenotype = parts["phenotype"].text_value if "phenotype" in parts else ""
        assert phenotype == row["Phenotype"]
        score = str(parts["activity-score"].numeric_value) if "activity-score" in parts else ""
        assert score == row["Activity Score"]
        compared += 1
    assert (compared, found) == (13, {})
    assert tally.read["variant lines"] == 1202
    known = sum(len(table.loci) for table in gene_tables(None).values())
    assert tally.reasons["a position of no gene that is read here"] == 1202 - known
    assert len(tally.reasons) == 2, tally.reasons


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the shared data are not here")
def test_many_samples_meet_their_patients_in_the_store(tmp_path: Path) -> None:
    samples = tmp_path / "samples.csv"
    samples.write_text("sample,patient,date,reported\nSample_2,M2,2026-01-05,2026-01-20\n")
    people = read_people(samples, "urn:mrn")
    opening = variant_files(
        [EXAMPLES / "multisample.vcf"], people, gene_tables(None), GenomeOptions()
    )
    for _ in range(2):  # a second import replaces the first
        report = import_source(
            opening, tmp_path / "store", secret=SECRET, now=NOW, source="genome", zone="UTC"
        )
    assert report.patients == 1
    assert report.reasons["a sample that no patient is named for"] == 1
    rows = Timeline.open(tmp_path / "store").events().to_pylist()
    by_code = {row["code"]: row for row in rows}
    assert len(by_code) == len(rows) == report.events
    assert by_code["HGNC//2621"]["text_value"] == "*2/*2"
    assert by_code["HGNC//2621/phenotype"]["text_value"] == "Poor Metabolizer"
    assert by_code["HGNC//2623/activity-score"]["numeric_value"] == 2.0
    assert by_code["HGNC//2621"]["time"] == datetime(2026, 1, 5)
    assert by_code["HGNC//2621"]["available_time"] == datetime(2026, 1, 20, 23, 59, 59)
    assert "definitions 2025-11-05" in by_code["HGNC//2621"]["status"]


def test_equal_genotypes_of_a_cohort_are_called_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pairs of a gene's alleles are some thousands, and most people have one of a few."""
    genotypes = ("0/0", "0/1", "0/0", "0/1", "0/0")
    cells = {True: "\t".join(genotypes), False: "\t".join(["0/0"] * 5)}
    lines = [
        line("chr7", locus.position, locus.reference, alternatives, told)
        for locus in gene_tables(None)["CYP3A5"].loci
        for alternatives in [",".join(locus.alternatives)]
        for told in [cells[locus.rsid == "rs776746"]]
    ]
    made: list[str] = []

    def counted(table: GeneTable, *said: Any, **options: Any) -> GeneCall:
        made.append(table.gene)
        return call_gene(table, *said, **options)

    monkeypatch.setattr(genome, "call_gene", counted)
    people = tmp_path / "people.csv"
    people.write_text("sample,patient,date\n" + "".join(f"S{n},{n},2026-01-05\n" for n in range(5)))
    vcf = write(tmp_path, lines, samples="\t".join(f"S{n}" for n in range(5)))
    opening = variant_files(
        [vcf], read_people(people, "urn:mrn"), gene_tables(None), GenomeOptions()
    )
    texts = [
        event.text_value
        for version in opening(desk()).versions()
        for event in version.events
        if event.code == "HGNC//2638"
    ]
    assert texts == ["*1/*1", "*1/*3", "*1/*1", "*1/*3", "*1/*1"]
    assert made.count("CYP3A5") == 2


@pytest.mark.parametrize("name", ["one.vcf", "one.vcf.gz"])
def test_plain_and_gzipped_and_contig_names(tmp_path: Path, name: str) -> None:
    for contig in ("chr10", "10", "NC_000010.11"):
        lines = [text.replace("chr10", contig) for text in heterozygous_two()]
        found, tally = called(write(tmp_path, lines, name=name))
        assert found["CYP2C19"]["diplotype"].text_value == "*1/*2"
        assert found["CYP2C19"]["phenotype"].text_value == "Intermediate Metabolizer"
        assert "CYP2C9: no position is covered" in tally.reasons


@pytest.mark.parametrize("contig", ["chrX", "x", "23", "NC_000023.11"])
def test_names_of_the_x_chromosome(tmp_path: Path, contig: str) -> None:
    """PLINK writes a number."""
    lines = [
        text.replace("chrX", contig, 1).replace("\t0/0", "\t0") for text in reference_lines("G6PD")
    ]
    found, _ = called(write(tmp_path, lines, header="##fileformat=VCFv4.3\n"))
    assert found["G6PD"]["diplotype"].text_value == "B (reference)"


UGT1A1_28 = [
    pytest.param([("chr2", 233760233, "CAT", "C,CATAT", "0/2")], id="as the table has it"),
    pytest.param([("chr2", 233760233, "C", "CAT", "0/1")], id="as short as can be"),
    pytest.param([("chr2", 233760235, "TA", "TATA", "0/1")], id="not leftmost"),
    pytest.param([("chr2", 233760246, "A", "ATA", "0/1")], id="rightmost"),
    pytest.param([("chr2", 233760233, "CATATA", "CATATATA", "0/1")], id="with more bases"),
    pytest.param(
        [("chr2", 233760233, "C", "CAT", "0/1"), ("chr2", 233760233, "CAT", "C", "0/0")],
        id="a line for each alternative",
    ),
]


@pytest.mark.parametrize("changes", UGT1A1_28)
def test_one_insertion_in_many_spellings(
    tmp_path: Path, changes: list[tuple[str, int, str, str, str]]
) -> None:
    """UGT1A1 (TA)8: wherever in the repeat, and with how many bases, it is *28."""
    lines = reference_lines("UGT1A1", but="rs3064744") + [line(*change) for change in changes]
    found, _ = called(write(tmp_path, lines, header="##fileformat=VCFv4.3\n"))
    assert found["UGT1A1"]["diplotype"].text_value == "*1/*28"


def test_substitutions_in_one_line_are_taken_apart(tmp_path: Path) -> None:
    """CYP2C19 *34 is two bases that stand four apart; a caller may write them together."""
    lines = reference_lines("CYP2C19", but="rs367543002 rs367543003")
    lines.append(line("chr10", 94762712, "CAAT", "TAAC", "0/1"))
    found, _ = called(write(tmp_path, lines))
    assert found["CYP2C19"]["diplotype"].text_value == "*34/*38"


@pytest.mark.parametrize(
    ("position", "reference", "alternative"),
    [(97740410, "GATGA", "G"), (97740414, "AATGA", "A"), (97740412, "TGAATGA", "TGA")],
)
def test_one_deletion_in_many_spellings(
    tmp_path: Path, position: int, reference: str, alternative: str
) -> None:
    """DPYD c.295_298delTCAT (*7): either copy of the repeat may be said to be lost."""
    lines = reference_lines("DPYD", but="rs72549309")
    lines.append(line("chr1", position, reference, alternative, "0/1"))
    found, _ = called(write(tmp_path, lines, header="##fileformat=VCFv4.3\n"))
    assert found["DPYD"]["diplotype"].text_value == "Reference/c.295_298delTCAT (*7)"
    assert found["DPYD"]["activity-score"].numeric_value == 1.0


@pytest.mark.parametrize(
    ("position", "reference", "alternative"),
    [(97740410, "GATGA", "G"), (97740414, "AATGA", "A"), (97740412, "TGAATGA", "TGA")],
)
def test_a_deletion_that_was_looked_for_and_not_found_is_covered(
    tmp_path: Path, position: int, reference: str, alternative: str
) -> None:
    """`0/0` says that it is not there, however it is spelled."""
    lines = reference_lines("DPYD", but="rs72549309")
    lines.append(line("chr1", position, reference, alternative, "0/0"))
    found, tally = called(write(tmp_path, lines, header="##fileformat=VCFv4.3\n"))
    assert found["DPYD"]["phenotype"].text_value == "Normal Metabolizer"
    assert not tally.notes


@pytest.mark.parametrize("genotype", ["1", "1/1", "0/1"])
def test_one_x_chromosome_and_two(tmp_path: Path, genotype: str) -> None:
    """As callers write it: one allele, or two everywhere."""
    one = "0" if genotype == "1" else "0/0"
    lines = [text.replace("0/0", one) for text in reference_lines("G6PD", but="rs5030868")]
    lines.append(line("chrX", 154534419, "G", "A", genotype))
    found, _ = called(write(tmp_path, lines, header="##fileformat=VCFv4.3\n"))
    mediterranean = "Mediterranean, Dallas, Panama, Sassari, Cagliari, Birmingham"
    expected = {
        "1": (mediterranean, "Deficient"),
        "1/1": (f"{mediterranean}/{mediterranean}", "Deficient"),
        "0/1": (f"B (reference)/{mediterranean}", "Variable"),
    }[genotype]
    parts = found["G6PD"]
    assert (parts["diplotype"].text_value, parts["phenotype"].text_value) == expected


def test_two_alternatives_in_two_lines_are_one_genotype(tmp_path: Path) -> None:
    lines = reference_lines("UGT1A1", but="rs3064744")
    both = [
        line("chr2", 233760233, "C", "CAT", "0/1"),
        line("chr2", 233760233, "C", "CATAT", "0/1"),
    ]
    found, _ = called(write(tmp_path, lines + both, header="##fileformat=VCFv4.3\n"))
    assert found["UGT1A1"]["diplotype"].text_value == "*28/*37"


def test_lines_that_contradict_each_other_are_put_aside(tmp_path: Path) -> None:
    lines = [
        *heterozygous_two(),
        line("chr10", 94780653, "G", "A", "1/1"),
        line("chr10", 94780653, "G", "C", "1/1"),
    ]
    _, tally = called(write(tmp_path, lines))
    assert tally.reasons["lines that contradict each other at one position"] == 1


def test_a_combination_without_a_name_is_put_aside_with_what_was_read(tmp_path: Path) -> None:
    """CYP2C9 *2 twice and *3 once: no pair of named alleles has that, and none is guessed."""
    lines = reference_lines("CYP2C9 CYP3A5", but="rs1799853 rs1057910")
    lines.append(line("chr10", 94942290, "C", "T", "1/1"))
    lines.append(line("chr10", 94981296, "A", "C", "0/1"))
    lent = desk(tmp_path / "aside.ndjson")
    opening = variant_files([write(tmp_path, lines)], ONE, gene_tables(None), GenomeOptions())
    origins = [version.origin for version in opening(lent).versions()]
    assert [origin.rpartition("/")[2] for origin in origins] == ["CYP3A5"]
    lent.reading.tally.close()
    (aside,) = (tmp_path / "aside.ndjson").read_text().splitlines()
    assert json.loads(aside)["raw"] == "CYP2C9 rs1799853 T/T, rs1057910 A/C"
    assert json.loads(aside)["reason"] == "CYP2C9: the genotypes fit no pair of named alleles"


def test_blocks_of_a_gvcf_cover_what_they_span(tmp_path: Path) -> None:
    """The reference, in blocks, and three variants: *1/*2 as with all positions."""
    variants = [
        line("chr10", place[1], place[2], f"{place[3]},<NON_REF>", genotype)
        for place, genotype in zip(TWO, ("0/1", "0/1", "1/1"), strict=True)
    ]
    block = "END=94852914"
    lines = [
        line("chr10", 94761000, "N", "<NON_REF>", "0/0:40", info=block, format="GT:MIN_DP"),
        *variants,
    ]
    found, _ = called(write(tmp_path, lines))
    assert found["CYP2C19"]["diplotype"].text_value == "*1/*2"


def test_shallow_blocks_are_not_used_where_a_depth_is_asked_for(tmp_path: Path) -> None:
    block = line(
        *("chr10", 94761000, "N", "<NON_REF>", "0/0:4"),
        **{"info": "END=94852914", "format": "GT:MIN_DP"},
    )
    with pytest.raises(RecordError, match="no gene that can be called"):
        called(write(tmp_path, [block]), least_depth=10)
    found, _ = called(write(tmp_path, [block]), least_depth=4)
    assert found["CYP2C19"]["diplotype"].text_value == "*38/*38"


def test_variants_alone_do_not_make_the_rest_the_reference(tmp_path: Path) -> None:
    """A file of differences only: what it does not hold is not covered."""
    lines = [
        line(*place, genotype) for place, genotype in zip(TWO, ("0/1", "0/1", "1/1"), strict=True)
    ]
    found, tally = called(write(tmp_path, lines))
    assert found["CYP2C19"]["phenotype"].text_value == "Indeterminate"
    assert "32 of 35 positions not covered" in (found["CYP2C19"]["diplotype"].status or "")
    assert "CYP2C19: called without all of its positions being covered" in tally.notes


UNUSED = [
    ("1/1", {"filter": "LowQual"}, "FILTER is not PASS (LowQual)", 1),
    ("./.", {}, "no genotype", 1),
    ("0/.", {}, "only one of two chromosomes was read", 1),
    ("1/7", {}, "a genotype that names an allele which ALT does not list", 1),
    ("x", {}, "a genotype that cannot be read", 1),
    ("1", {}, "one chromosome of a kind that comes in pairs", 1),
    ("0/1/1", {}, "a genotype of more than two chromosomes", 1),
    ("0/1:30,0", {"format": "GT:AD"}, "two different alleles, but reads (AD) of one only", 1),
    ("1/1:LowGQ", {"format": "GT:FT"}, "the genotype's own filter (FT) is not PASS", 1),
    ("1/1:3", {"format": "GT:DP"}, "fewer reads than the least depth asked for", 10),
    ("1/1", {}, "no depth (DP), though a least one was asked for", 10),
]


@pytest.mark.parametrize(("genotype", "fields", "reason", "depth"), UNUSED)
def test_a_genotype_in_doubt_is_not_used_and_counted(
    tmp_path: Path, genotype: str, fields: dict[str, str], reason: str, depth: int
) -> None:
    """The position is then not covered, and a poor metaboliser is not made normal."""
    lines = [
        line("chr10", 94842866, "A", "G", "1/1:99", format="GT:DP"),
        line("chr10", 94780653, "G", "A", genotype, **fields),
    ]
    found, tally = called(write(tmp_path, lines), least_depth=depth if depth > 1 else 0)
    assert tally.reasons[reason] == 1, tally.reasons
    assert found["CYP2C19"]["phenotype"].text_value == "Indeterminate"


@pytest.mark.parametrize("alternative", ["<DEL>", "*"])
def test_alleles_without_bases_are_not_used(tmp_path: Path, alternative: str) -> None:
    lines = [*heterozygous_two(), line("chr10", 94780653, "G", alternative, "0/1")]
    _, tally = called(write(tmp_path, lines))
    reason = "a genotype with an allele that is not bases (symbolic, or a spanning deletion)"
    assert tally.reasons[reason] == 1


def test_filtered_lines_on_request(tmp_path: Path) -> None:
    path = write(tmp_path, heterozygous_two(filter="LowQual"))
    found, _ = called(path, keep_filtered=True)
    assert found["CYP2C19"]["diplotype"].text_value == "*1/*2"
