"""Diplotype to phenotype and score: all published cases; the tables against their source."""

import json
from itertools import combinations_with_replacement
from typing import Any

import pytest

from fedtwin_twins.genes.phenotypes import meaning_of, split_diplotype
from fedtwin_twins.genes.tables import built_in_tables, parse_table, possible_bases

from .genes import SHARED

CASES = SHARED / "cases" / "pharmacology"
DEFINITIONS = SHARED / "data" / "pharmcat_definitions"
DIPLOTYPES = sorted(CASES.glob("G_*_diplotypes.json"))
SHORT = {"PM": "Poor", "IM": "Intermediate", "NM": "Normal", "UM": "Ultrarapid"}
# CPIC gave these alleles another function on 2026-02-03 (its log, github.com/cpicpgx/cpic-data,
# data.tsv; *30 of TPMT only in the table itself); the shared definitions are of November 2025.
CHANGED = {
    "NUDT15": {"*4", "*5", "*6", "*7", "*8"},
    "TPMT": {f"*{n}" for n in (5, 6, 7, 8, 10, 13, 16, 17, 18, 20, 21, 22, 25, 26, 27, 28)}
    | {f"*{n}" for n in (30, 31, 33, 34, 37, 38, 39)},
}
TODAY = {("TPMT", "*1/*8"): "Normal Metabolizer"}
"""What a published row of November 2025 is since then."""
TABLE = {
    "format": "fedtwin-gene-table/1",
    "gene": "ABC1",
    "hgnc": 1,
    "version": "2026-01-01",
    "source": "a test",
    "build": "GRCh38",
    "chromosome": "chr1",
    "calling": "diplotype",
    "loci": [[100, "rs1", "A", ["G"]]],
    "alleles": [{"name": "*1", "reference": True}, {"name": "*2", "bases": {"100": "G"}}],
}


@pytest.mark.skipif(not DIPLOTYPES, reason="the shared cases are not here")
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=pytest.mark.case(path.stem)) for path in DIPLOTYPES],
)
def test_published_diplotypes(path: Any) -> None:
    case = json.loads(path.read_text())
    table = built_in_tables()[case["inputs"]["gene"]]
    for row in case["expected"]["rows"]:
        score = None if row["activity_score"] in {None, "n/a"} else float(row["activity_score"])
        alleles = split_diplotype(row["diplotype"])
        phenotype = TODAY.get((table.gene, row["diplotype"]), row["phenotype"])
        for order in (alleles, alleles[::-1]):
            found = meaning_of(table, order)
            assert (found.phenotype, found.activity_score) == (phenotype, score), row


@pytest.mark.skipif(not DIPLOTYPES, reason="the shared cases are not here")
@pytest.mark.case("G_CYP2D6_scores")
def test_published_scores_of_cyp2d6() -> None:
    case = json.loads((CASES / "G_CYP2D6_scores.json").read_text())
    for diplotype, score, short in case["expected"]["examples"]:
        found = meaning_of(built_in_tables()["CYP2D6"], split_diplotype(diplotype))
        assert (found.activity_score, found.phenotype) == (score, f"{SHORT[short]} Metabolizer")


@pytest.mark.parametrize(
    ("diplotype", "phenotype", "score", "at_least"),
    [
        ("*1x≥3/*4", "Ultrarapid Metabolizer", 3.0, True),
        ("*4x≥3/*4", "Poor Metabolizer", 0.0, False),
        ("*4xN/*10", "Intermediate Metabolizer", 0.25, False),
        # Copies that were not counted are two at least: that may be normal or ultrarapid.
        ("*1xN/*4", "Indeterminate", None, False),
        ("*1xN/*1", "Ultrarapid Metabolizer", 3.0, True),
        ("*9xN/*1", "Indeterminate", None, False),
        ("*68+*4/*10", "Intermediate Metabolizer", 0.25, False),
        ("*2/*36 + *10", "Normal Metabolizer", 1.25, False),
        ("CYP2D6*4.024/CYP2D6*1", "Intermediate Metabolizer", 1.0, False),
        ("*1/*XXX", "Indeterminate", None, False),
        ("*1/*22", "Indeterminate", None, False),
        ("*1", "Indeterminate", None, False),
        # 0.25 since November 2022 in CPIC's table: *9, *32, *41, *52, *91, *109, *119, *132.
        ("*1/*41", "Normal Metabolizer", 1.25, False),
        ("*1x2/*41", "Normal Metabolizer", 2.25, False),
        ("*4/*41", "Intermediate Metabolizer", 0.25, False),
        ("*9/*132", "Intermediate Metabolizer", 0.5, False),
        ("*32/*52", "Intermediate Metabolizer", 0.5, False),
        ("*27/*35", "Normal Metabolizer", 2.0, False),
    ],
)
def test_copies_of_cyp2d6(
    diplotype: str, phenotype: str, score: float | None, at_least: bool
) -> None:
    found = meaning_of(built_in_tables()["CYP2D6"], split_diplotype(diplotype))
    assert (found.phenotype, found.activity_score, found.at_least) == (phenotype, score, at_least)


@pytest.mark.parametrize("text", ["", "/", "*1/", "*1/*2/*3"])
def test_what_is_no_diplotype(text: str) -> None:
    with pytest.raises(ValueError, match="expected one allele, or two"):
        split_diplotype(text)


@pytest.mark.skipif(not DEFINITIONS.is_dir(), reason="the shared definitions are not here")
@pytest.mark.parametrize(
    "gene", sorted(gene for gene, table in built_in_tables().items() if table.loci)
)
def test_the_tables_say_what_their_source_says(gene: str) -> None:
    """Every position, every defining base, and every pair of alleles that the source lists."""
    table = built_in_tables()[gene]
    source = json.loads((DEFINITIONS / "alleles" / f"{gene}_translation.json").read_text())
    places = [item["position"] for item in source["variants"]]
    ours = {locus.position: locus for locus in table.loci}
    assert set(ours) == set(places)
    for item in source["variants"]:
        locus = ours[item["position"]]
        assert (locus.reference, list(locus.alternatives)) == (item["ref"], item["alts"])
    by_name = {allele.name: allele for allele in table.alleles}
    for item in source["namedAlleles"]:
        defined = {p: base for p, base in zip(places, item["alleles"], strict=True) if base}
        assert by_name[item["name"]].bases == defined
    path = DEFINITIONS / "phenotype" / f"{gene}.json"
    functional = json.loads(path.read_text()) if path.exists() else {"diplotypes": []}
    if gene in CHANGED:
        before = functional["haplotypes"]
        assert {name for name in before if table.functions[name] != before[name]} == CHANGED[gene]
    for item in functional["diplotypes"]:
        names = [name for name, count in item["diplotypekey"].items() for _ in range(count)]
        if CHANGED.get(gene, set()) & set(names):
            continue
        found = meaning_of(table, names)
        score = None if item["activityScore"] in {None, "n/a"} else float(item["activityScore"])
        assert (found.phenotype, found.activity_score) == (item["phenotype"], score)


@pytest.mark.parametrize(
    ("gene", "diplotype", "phenotype"),
    [
        ("NUDT15", "*1/*5", "Normal"),
        ("NUDT15", "*5/*5", "Intermediate"),
        ("NUDT15", "*5/*8", "Intermediate"),
        ("NUDT15", "*3/*5", "Poor"),
        ("NUDT15", "*1/*4", "Intermediate"),
        ("NUDT15", "*3/*6", "Poor"),
        ("NUDT15", "*6/*7", "Poor"),
        ("NUDT15", "*1/*13", "Intermediate"),
        ("NUDT15", "*3/*11", "Possible Intermediate"),
        ("TPMT", "*1/*8", "Normal"),
        ("TPMT", "*8/*20", "Possible Intermediate"),
        ("TPMT", "*1/*5", "Intermediate"),
        ("TPMT", "*1/*38", "Intermediate"),
        ("TPMT", "*1/*46", "Intermediate"),
        ("TPMT", "*9/*10", "Possible Intermediate"),
    ],
)
def test_functions_of_february_2026(gene: str, diplotype: str, phenotype: str) -> None:
    """As PharmCAT's tables of 2026-05-05 have them (github.com/madhavajay/PharmCAT, 162d746)."""
    found = meaning_of(built_in_tables()[gene], split_diplotype(diplotype))
    assert found.phenotype == f"{phenotype} Metabolizer"


@pytest.mark.parametrize(
    ("gene", "diplotype"),
    [("NUDT15", "*1/*11"), ("NUDT15", "*5/*11"), ("TPMT", "*8/*9"), ("TPMT", "*8/*35")],
)
def test_what_nobody_knows_stays_open(gene: str, diplotype: str) -> None:
    found = meaning_of(built_in_tables()[gene], split_diplotype(diplotype))
    assert found.phenotype == "Indeterminate"


def test_every_table_has_its_origin_and_no_two_alleles_are_one() -> None:
    tables = built_in_tables()
    assert len({table.hgnc for table in tables.values()}) == len(tables) == 14
    for table in tables.values():
        assert table.version >= "2025-11-05"
        assert "github.com" in table.source
        for one, other in combinations_with_replacement(table.alleles, 2):
            if one is not other:
                assert {p: possible_bases(b) for p, b in one.bases.items()} != {
                    p: possible_bases(b) for p, b in other.bases.items()
                }, (table.gene, one.name, other.name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other/1"}, "expected a gene table of the format"),
        ({"build": "GRCh37"}, "expected positions of GRCh38"),
        ({"calling": "guessing"}, "cannot read t.json"),
        ({"loci": []}, "every position of ABC1 once"),
        ({"loci": [[100, "rs1", "A"]]}, "cannot read t.json"),
        ({"alleles": [{"name": "*2", "bases": {"100": "G"}}]}, "one reference allele"),
        ({"essential": ["*9"]}, "no allele \\*9"),
        ({"hgnc": "x"}, "cannot read t.json"),
        ({"calling": "reported"}, "expected values and bands"),
        (
            {"alleles": [{"name": "*1", "reference": True}, {"name": "*2", "bases": {"7": "G"}}]},
            "has position 7",
        ),
        (
            {"alleles": [{"name": "*1", "reference": True}, {"name": "*2", "bases": {"100": "T"}}]},
            "has T at 100, where t.json lists A, G",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_its_name(change: dict[str, Any], says: str) -> None:
    assert parse_table(json.dumps(TABLE), "t.json").gene == "ABC1"
    with pytest.raises(ValueError, match=says):
        parse_table(json.dumps({**TABLE, **change}), "t.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_table(text: str) -> None:
    with pytest.raises(ValueError, match=r"t\.json"):
        parse_table(text, "t.json")
