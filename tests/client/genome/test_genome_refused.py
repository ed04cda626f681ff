"""VCF files and lists of samples that are refused, and odd lines that are put aside."""

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtwin_client.records.genome.gene_sets import gene_tables
from fedtwin_client.records.people import one_person, read_people
from fedtwin_protocol.errors import RecordError

from .genomes import (
    COLUMNS,
    HEADER,
    ONE,
    TWO,
    called,
    heterozygous_two,
    line,
    reference_lines,
    write,
)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("##contig=<ID=10,length=135534747>\n", "GRCh37"),
        ("##contig=<ID=chr10,assembly=hg19>\n", "GRCh37"),
        ("##reference=file:///ref/human_g1k_v37.fasta\n", "GRCh37"),
        ("##reference=chm13v2.0.fa\n", "T2T-CHM13"),
        ("##assembly=hg18\n", "NCBI36"),
        ("##reference=GRCh38\n##contig=<ID=10,length=135534747>\n", "several reference genomes"),
    ],
)
def test_another_reference_genome_in_the_header(tmp_path: Path, header: str, says: str) -> None:
    path = write(tmp_path, heterozygous_two(), header=f"##fileformat=VCFv4.2\n{header}")
    with pytest.raises(RecordError, match=says):
        called(path)


def test_another_reference_genome_without_a_header(tmp_path: Path) -> None:
    """By rsids at other places, and by other bases at known positions."""
    moved = [
        line("10", 96541616, "G", "A", "0/1", id="rs4244285"),
        line("10", 96540410, "G", "A", "0/0", id="rs4986893"),
        line("10", 96702047, "C", "T", "0/0", id="rs1799853"),
    ]
    bare = "##fileformat=VCFv4.2\n"
    with pytest.raises(RecordError, match=r"rs4244285 at 10:96541616.*liftover"):
        called(write(tmp_path, moved, header=bare))
    other = [line("chr10", place[1], "T" if place[2] != "T" else "C", "G") for place in TWO]
    with pytest.raises(RecordError, match="REF differs from GRCh38 at 3 of 3 known positions"):
        called(write(tmp_path, other, header=bare))


def test_one_wrong_base_is_put_aside_and_the_rest_is_used(tmp_path: Path) -> None:
    lines = reference_lines("CYP2C19 CYP2C9", but="rs28399504")
    lines.append(line("chr10", 94762706, "C", "G", "0/1"))
    found, tally = called(write(tmp_path, lines))
    assert tally.reasons["REF differs from the bases of GRCh38 there"] == 1
    assert "CYP2C9" in found


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no line that begins with #CHROM"),
        (b"hello\n", "expected '##fileformat=VCFv4"),
        (b"BCF\x02\x02", "bcftools view -O z"),
        (b"##fileformat=VCFv4.2\n", "no line that begins with #CHROM"),
        (b"##fileformat=VCFv4.2\n#CHROM POS\n", "separated by tabs"),
        (b"##fileformat=VCFv4.2\n" + COLUMNS[:-8].encode() + b"\n", "no genotypes"),
        (b"##fileformat=VCFv4.2\n" + COLUMNS.encode() + b"A\tA\n", "a sample twice"),
        (gzip.compress(b"##fileformat=VCFv4.2\n" * 99, mtime=0)[:-20], "ends in the middle"),
        (b"\x1f\x8b\x08garbage", "ends in the middle"),
        (b"\x1f\x8bgarbage, and more of it", "cannot read"),
    ],
)
def test_what_is_no_vcf(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.vcf"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=says):
        called(path)


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ("chr10\t94775367", "a line with too few columns"),
        (line("chr10", 1, "A", "G").replace("\t1\t", "\tx\t", 1), "a position that is no number"),
        (line("chr10", 94775367, "", "G"), "no bases in REF"),
        (line("chr10", 94775367, "A", "G") + "\t0/0", "a line with another number of samples"),
    ],
)
def test_a_damaged_line_costs_that_line(tmp_path: Path, damaged: str, reason: str) -> None:
    found, tally = called(write(tmp_path, [*heterozygous_two(), damaged]))
    assert found["CYP2C19"]["diplotype"].text_value == "*1/*2"
    (counted,) = [key for key in tally.reasons if key.startswith(reason)]
    assert tally.reasons[counted] == 1
    assert tally.examples[counted] == [f"one.vcf:{len(heterozygous_two()) + 4}"]


@pytest.mark.parametrize(
    ("patient", "date", "says"),
    [
        ("1", None, "--date"),
        (" ", "2026-01-01", "a patient's number"),
        ("1", "2027-01-01", "lies in the future"),
        ("1", "yesterday", "cannot be read"),
        ("1", "1066-01-01", "lies before"),
    ],
)
def test_no_date_is_made_up(tmp_path: Path, patient: str, date: str | None, says: str) -> None:
    with pytest.raises(RecordError, match=says):
        called(write(tmp_path, heterozygous_two()), one_person(patient, date, None, "urn:mrn"))


def test_a_result_is_not_known_before_its_sample(tmp_path: Path) -> None:
    people = one_person("1", "2026-01-05", "2026-01-04", "urn:mrn")
    with pytest.raises(RecordError, match="2026-01-05 and 2026-01-04: known before it was taken"):
        called(write(tmp_path, heterozygous_two()), people)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "columns sample,patient,date"),
        ("sample,patient\nA,1\n", "columns sample,patient,date"),
        ("sample,patient,date\n", "names no sample"),
        ("sample,patient,date\nA,1,\n", "in line 2"),
        ("sample,patient,date\nA,1,2026-01-01\nA,2,2026-01-01\n", "a sample for the second time"),
        ("sample,patient,date\nA,1,2026-01-01\nB,1,2026-01-01\n", "a patient for the second time"),
        ('sample,patient,date\n"A,1,2026-01-01\n', "as CSV"),
        ("sample,patient,date\n\xff,1,2026-01-01\n", "UTF-8"),
    ],
)
def test_a_wrong_list_of_samples(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "samples.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RecordError, match=says):
        read_people(path, "urn:mrn")


def test_one_patient_is_not_several_samples(tmp_path: Path) -> None:
    lines = [f"{text}\t0/0" for text in reference_lines("CYP2C19")]
    with pytest.raises(RecordError, match="holds 2 samples"):
        called(write(tmp_path, lines, samples="A\tB"))


def test_a_folder_of_newer_tables(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="expected a folder with gene tables"):
        gene_tables(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(RecordError, match=r"x\.json"):
        gene_tables(tmp_path)


def test_why_nothing_could_be_called_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, [line("chr3", 7, "A", "G", "0/1")])
    with pytest.raises(RecordError, match="none of its lines covers a known position"):
        called(path)
    path = write(tmp_path, [line("chr10", 94781859, "G", "A", "./1")])
    with pytest.raises(RecordError, match="CYP2C19: only one of two chromosomes was read"):
        called(path)


SNIPPETS = st.sampled_from(
    [
        *(
            "chr10",
            "94781859",
            "94762706",
            "A",
            "G",
            "G,<NON_REF>",
            "0/1",
            "1|1",
            ".",
            "PASS",
            "GT",
        ),
        *(
            "END=94852914",
            "GT:AD",
            "-1",
            "9" * 12,
            "\t",
            "\n",
            "\x00",
            "ÿ",
            "rs4244285",
            "*",
            "0/0",
        ),
    ]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.lists(SNIPPETS, min_size=1, max_size=11).map("\t".join), max_size=6),
    tail=st.binary(max_size=40),
)
def test_any_lines_are_used_or_accounted_for(tmp_path: Path, rows: list[str], tail: bytes) -> None:
    """Nothing but a RecordError comes out, and the good lines beside them are used."""
    path = write(tmp_path, [*heterozygous_two(), *rows])
    path.write_bytes(path.read_bytes() + tail)
    try:
        found, tally = called(path)
    except RecordError:
        return  # the lines spoke of another reference genome, or the header broke
    assert "CYP2C19" in found or any(key.startswith("CYP2C19") for key in tally.reasons)
    body = path.read_bytes().split(b"\n", HEADER.count("\n") + 1)[-1]
    assert tally.read["variant lines"] == sum(bool(text.strip()) for text in body.split(b"\n"))


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=300), gz=st.booleans())
def test_any_bytes_are_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, gz: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.vcf"
    path.write_bytes(gzip.compress(data) if gz else data)
    with pytest.raises(RecordError):
        called(path, ONE)
