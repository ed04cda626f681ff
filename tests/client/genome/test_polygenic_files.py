"""Polygenic scores from VCF and scoring files."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.records.events import Event
from fedtwin_client.records.genome.polygenic import PolygenicOptions, polygenic_scores
from fedtwin_client.records.genome.score_files import read_score
from fedtwin_client.records.report import Tally
from fedtwin_protocol.errors import RecordError
from fedtwin_twins.genes.polygenic import Palindromes

from .genomes import ONE, SHARED, events_of, line, write

CASES = SHARED / "cases" / "risk" / "pgs.json"
HEAD = "###PGS CATALOG SCORING FILE\n#format_version=2.0\n#pgs_id=PGS000001\n#HmPOS_build=GRCh38\n"
COLUMNS = "rsID\teffect_allele\tother_allele\teffect_weight\thm_chr\thm_pos\n"
BARE = "##fileformat=VCFv4.2\n"
KEEP = PolygenicOptions(palindromes=Palindromes.KEEP, least_coverage=0.0)


def score_file(folder: Path, rows: Sequence[str], head: str = HEAD + COLUMNS) -> Path:
    path = folder / "PGS000001_hmPOS_GRCh38.txt"
    path.write_text(head + "".join(f"{row}\n" for row in rows))
    return path


def scored(
    vcf: Path, score: Path, options: PolygenicOptions = KEEP
) -> tuple[dict[str, Event], Tally]:
    """The events by part (`score`, `coverage`), and the account."""
    found, tally = events_of(polygenic_scores([vcf], score, ONE, options))
    return found["PGS000001"], tally


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
def test_published_cases_through_files(tmp_path: Path) -> None:
    book = json.loads(CASES.read_text())
    rows = [
        "\t".join(
            v[key]
            for key in (
                *("rsID", "effect_allele", "other_allele", "effect_weight", "hm_chr", "hm_pos"),
            )
        )
        for v in book["variants"]
    ]
    score = score_file(tmp_path, rows)
    for case in book["cases"]:
        lines = [
            line(f"chr{g['chr']}", g["pos"], g["ref"], g["alt"], _genotype(g["gt"]))
            for g in case["input"]["genotypes"]
        ]
        found, tally = scored(write(tmp_path, lines, header=BARE), score)
        expected = case["expected"]
        assert found["score"].numeric_value == pytest.approx(expected["sum"], abs=case["tol"])
        assert found["score"].code == "PGS//PGS000001"
        assert found["coverage"].code == "PGS//PGS000001/coverage"
        assert (found["score"].status or "").startswith(f"{expected['matched']} of 12 variants")
        missing = tally.reasons["PGS000001: a variant without a usable genotype"]
        assert missing == expected["missing"]


def _genotype(copies: int | None) -> str:
    return "./." if copies is None else ("0/0", "0/1", "1/1")[copies]


def test_the_share_of_the_weights_decides(tmp_path: Path) -> None:
    """Nine tenths of the weight is in one variant, whether there are two or ten."""
    score = score_file(tmp_path, ["r1\tA\tG\t0.9\t1\t100", "r2\tC\tT\t-0.1\t1\t200"])
    most = write(tmp_path, [line("chr1", 100, "G", "A", "1/1")], header=BARE)
    found, _ = scored(most, score, PolygenicOptions(least_coverage=0.9))
    assert found["score"].numeric_value == pytest.approx(1.8)
    assert found["coverage"].numeric_value == pytest.approx(0.9)
    least = write(tmp_path, [line("chr1", 200, "T", "C", "0/1")], header=BARE)
    with pytest.raises(RecordError, match="nobody has 90% of the weights"):
        scored(least, score, PolygenicOptions(least_coverage=0.9))


@pytest.mark.parametrize(
    ("columns", "row", "expected"),
    [
        ("is_dominant", "True", 0.5),
        ("is_recessive", "True", 0.0),
        ("is_recessive", "False", 0.5),
        ("dosage_0_weight\tdosage_1_weight\tdosage_2_weight", "0.1\t0.7\t0.2", 0.7),
    ],
)
def test_weights_by_copies(tmp_path: Path, columns: str, row: str, expected: float) -> None:
    head = HEAD + COLUMNS.rstrip("\n") + f"\t{columns}\n"
    score = score_file(tmp_path, [f"r1\tA\tG\t0.5\t1\t100\t{row}"], head)
    vcf = write(tmp_path, [line("chr1", 100, "G", "A", "0/1")], header=BARE)
    found, _ = scored(vcf, score)
    assert found["score"].numeric_value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reference", "alternatives", "genotype", "expected"),
    [
        ("G", "A,T", "0/1", 0.5),
        ("G", ".", "0/0", 0.0),
        ("G", "<NON_REF>", "0/0", 0.0),
        ("A", ".", "0/0", 1.0),
        ("GC", "AC,G", "0/1", 0.5),
        ("G", "A,T", "1/2", None),
    ],
)
def test_alleles_as_a_vcf_writes_them(
    tmp_path: Path, reference: str, alternatives: str, genotype: str, expected: float | None
) -> None:
    score = score_file(tmp_path, ["r1\tA\tG\t0.5\t1\t100"])
    vcf = write(tmp_path, [line("chr1", 100, reference, alternatives, genotype)], header=BARE)
    found, tally = scored(vcf, score)
    if expected is None:
        assert "PGS000001: a third allele, which the score does not know" in tally.reasons
        assert found["coverage"].numeric_value == 0
        return
    assert found["score"].numeric_value == pytest.approx(expected)
    assert found["coverage"].numeric_value == 1


def test_an_insertion_in_a_score(tmp_path: Path) -> None:
    score = score_file(tmp_path, ["r1\tCA\tC\t0.5\t1\t100"])
    for reference, alternative in (("C", "CA"), ("CTT", "CATT")):
        vcf = write(tmp_path, [line("chr1", 100, reference, alternative, "1/1")], header=BARE)
        found, _ = scored(vcf, score)
        assert found["score"].numeric_value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("reference", "alternatives"), [("ATG", "A"), ("A", "ATG"), ("AT", "A,GT")]
)
def test_one_base_beside_a_length_without_the_other_allele(
    tmp_path: Path, reference: str, alternatives: str
) -> None:
    """`A` is the deletion, or the base before it that everybody has: nothing tells which."""
    score = score_file(tmp_path, ["r1\tA\t\t0.5\t1\t100", "r2\tA\tG\t0.5\t1\t200"])
    lines = [
        line("chr1", 100, reference, alternatives, "0/1"),
        line("chr1", 200, "G", "A", "0/1"),
    ]
    vcf = write(tmp_path, lines, header=BARE)
    found, tally = scored(vcf, score, PolygenicOptions(least_coverage=0.0))
    assert found["score"].numeric_value == pytest.approx(0.5)
    assert any("and the VCF has a length" in reason for reason in tally.reasons)


@pytest.mark.parametrize(("frequency", "expected"), [("0.1", 0.0), ("0.9", 1.0), (None, None)])
def test_palindromes_by_frequency(
    tmp_path: Path, frequency: str | None, expected: float | None
) -> None:
    """The effect allele A is rare in the score; where it is common here, it is the other strand."""
    head = HEAD + COLUMNS.rstrip("\n") + "\tallelefrequency_effect\n"
    score = score_file(tmp_path, ["r1\tA\tT\t0.5\t1\t100\t0.12"], head)
    info = "." if frequency is None else f"DP=9;AF={frequency}"
    vcf = write(tmp_path, [line("chr1", 100, "T", "A", "0/0", info=info)], header=BARE)
    found, tally = scored(vcf, score, PolygenicOptions(least_coverage=0.0))
    if expected is None:
        assert any("no frequencies tell which" in reason for reason in tally.reasons)
        assert found["coverage"].numeric_value == 0
    else:
        assert found["score"].numeric_value == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("r1\tA\tG\t0.5\t\t", "a score line without a position"),
        ("r1\tA\tG\t0.5\t1\tx", "a score line whose position is no number"),
        ("r1\tN\tG\t0.5\t1\t100", "a score line whose effect allele is not bases"),
        ("r1\tA\tA\t0.5\t1\t100", "a score line with two equal alleles"),
        ("r1\tA\tG\tnan\t1\t100", "a score line whose weight is not finite"),
        ("r1\tA\tG\theavy\t1\t100", "a score line whose weight is no number"),
        ("r1\tA\tG\t0.5\t1\t200\t\t\t", "a score line with too many columns"),
        ("r2\tC\tT\t0.7\t1\t200", "PGS000001: a variant that comes twice in the score"),
    ],
)
def test_score_lines_that_cannot_be_used(tmp_path: Path, row: str, reason: str) -> None:
    tally = Tally(quarantine=None)
    found = read_score(score_file(tmp_path, ["r2\tC\tT\t0.7\t1\t200", row]), tally)
    assert found.count == 1
    assert tally.reasons == {reason: 1}
    assert tally.read["score lines"] == 2


def test_lines_that_are_no_single_variant(tmp_path: Path) -> None:
    head = HEAD + COLUMNS.rstrip("\n") + "\tis_interaction\n"
    rows = ["r1\tA\tG\t0.5\t1\t100\tTrue", "r2\tC\tT\t0.7\t1\t200\tFalse"]
    tally = Tally(quarantine=None)
    assert read_score(score_file(tmp_path, rows, head), tally).count == 1
    assert tally.reasons == {"a score line that is no single variant (is_interaction)": 1}


def test_the_same_reference_genome_on_both_sides(tmp_path: Path) -> None:
    score = score_file(tmp_path, ["r1\tA\tG\t0.5\t1\t100"])
    lines = [line("chr1", 100, "G", "A", "0/1")]
    other = write(tmp_path, lines, header=f"{BARE}##reference=hg19.fa\n")
    with pytest.raises(RecordError, match=r"of GRCh37 and .* of GRCh38.*harmonised"):
        scored(other, score)
    _, tally = scored(write(tmp_path, lines, header=BARE), score)
    assert "a header that does not tell its reference genome" in tally.notes


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no line with columns"),
        (b"#pgs_id=PGS000001\n", "no line with columns"),
        (HEAD.encode() + b"rsID\teffect_allele\n", "effect_weight"),
        (COLUMNS.encode(), "#pgs_id=PGS000018"),
        (b"#pgs_id=PGS000001\n" + COLUMNS.encode(), "#HmPOS_build=GRCh38"),
        (HEAD.encode() + COLUMNS.encode(), "no variant with a weight"),
        (gzip.compress(HEAD.encode() * 50, mtime=0)[:-9], "ends in the middle"),
    ],
)
def test_what_is_no_score(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=says):
        read_score(path, Tally(quarantine=None))


CELLS: Any = st.sampled_from(["A", "T", "0.5", "1", "100", "", "-inf", "True", "1e400", "x", "\r"])


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(CELLS, max_size=8).map("\t".join), max_size=5))
def test_any_score_lines_are_used_or_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str]
) -> None:
    tally = Tally(quarantine=None)
    path = score_file(tmp_path_factory.mktemp("any"), ["r2\tC\tT\t0.7\t1\t200", *rows])
    found = read_score(path, tally)
    assert tally.read["score lines"] == found.count + sum(tally.reasons.values())
