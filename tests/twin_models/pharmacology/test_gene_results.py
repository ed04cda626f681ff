"""A gene's result: every published case in one test, and what must be refused."""

from typing import Any

import pytest

from fedtwin_twins.genes.calling import GeneCall
from fedtwin_twins.pharmacology.gene_results import called_result, gene_result
from fedtwin_twins.twin.refusals import Refusal

from ..genes import call
from .cases import CASES, case, needs_cases

SHORT = {"PM": "Poor", "IM": "Intermediate", "NM": "Normal", "UM": "Ultrarapid"}
DIPLOTYPES = sorted(path.stem for path in CASES.glob("G_*")) if CASES.is_dir() else []


def rows_of(name: str) -> list[tuple[str, str, str | None, float | None, int | None]]:
    """Gene, diplotype, phenotype, score and number of copies of every row of a case."""
    content = case(name)
    if name == "G_CYP2D6_scores":
        return [
            ("CYP2D6", text, f"{SHORT[short]} Metabolizer", score, None if "x" in text else 2)
            for text, score, short in content["expected"]["examples"]
        ]
    gene = content["inputs"]["gene"]
    return [
        (
            gene,
            row["diplotype"],
            row["phenotype"],
            None if row["activity_score"] in {None, "n/a"} else float(row["activity_score"]),
            None,
        )
        for row in content["expected"]["rows"]
    ]


@needs_cases
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.case(name))
        for name in DIPLOTYPES
        if name != "G_recommendations"
    ],
)
def test_published_results(name: str) -> None:
    rows = rows_of(name)
    assert rows
    for gene, diplotype, then, score, copies in rows:
        # TPMT*8 has decreased function since CPIC's tables of February 2026.
        phenotype = "Normal Metabolizer" if (gene, diplotype) == ("TPMT", "*1/*8") else then
        for text in (diplotype, "/".join(reversed(diplotype.split("/")))):
            found = gene_result(gene, diplotype=text, copy_number=copies)
            assert (found.phenotype, found.activity_score) == (phenotype, score), (gene, text)


@needs_cases
@pytest.mark.case("G_CYP2D6_scores")
def test_published_values_and_bands_of_cyp2d6() -> None:
    expected = case("G_CYP2D6_scores")["expected"]
    for allele, value in expected["allele_values"].items():
        found = gene_result("CYP2D6", diplotype=f"*4/{allele}", copy_number=2 - (allele == "*5"))
        assert found.activity_score == value, allele
    for score, short in (
        (0, "PM"),
        (0.25, "IM"),
        (1, "IM"),
        (1.25, "NM"),
        (2.25, "NM"),
        (2.5, "UM"),
    ):
        found = gene_result("CYP2D6", activity_score=score)
        assert found.phenotype == f"{SHORT[short]} Metabolizer"


@pytest.mark.case("E01")
def test_what_is_said_twice_must_agree() -> None:
    result = gene_result("CYP2C9", diplotype="*1/*3", phenotype="im", activity_score=1.0)
    assert result.shown == "*1/*3 (Intermediate Metabolizer, activity score 1)"
    assert gene_result("TPMT", phenotype="TPMT poor metaboliser").phenotype == "Poor Metabolizer"
    assert gene_result("DPYD", phenotype="PM", activity_score=0.5).activity_score == 0.5


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"gene": "CYP2C19", "diplotype": "*1/*1", "phenotype": "PM"}, "expected Normal Metab"),
        ({"gene": "CYP2C9", "diplotype": "*1/*1", "activity_score": 1.0}, "expected 2"),
        ({"gene": "DPYD", "phenotype": "NM", "activity_score": 1.0}, "expected Intermediate"),
        ({"gene": "CYP2C19", "diplotype": "*1/*XXX"}, r"allele is \*XXX; expected one of \d+"),
        ({"gene": "CYP2D6", "diplotype": "*1/*XXX", "copy_number": 2}, r"allele is \*XXX"),
        ({"gene": "CYP2D6", "diplotype": "*1/*4"}, "copy number is missing"),
        (
            {"gene": "CYP2D6", "diplotype": "*1/*4", "copy_number": 3},
            r"3; expected 2, which \*1/\*4",
        ),
        ({"gene": "CYP2D6", "diplotype": "*1x≥3/*4", "copy_number": 2}, "expected at least 4"),
        ({"gene": "CYP2C19", "diplotype": "*1"}, "two alleles"),
        ({"gene": "CYP2C19", "diplotype": ""}, "expected one allele, or two"),
        ({"gene": "CYP2C19", "phenotype": "fast"}, "expected .*Rapid Metabolizer"),
        ({"gene": "CYP4F2", "phenotype": "NM"}, "give a diplotype"),
        ({"gene": "CYP2D6", "activity_score": 0.3}, "a multiple of 0.25"),
        ({"gene": "DPYD", "activity_score": -1.0}, "expected 0, 0.5, 1, 1.5, 2"),
        ({"gene": "TPMT", "activity_score": 1.0}, "no score"),
        ({"gene": "CYP2C19"}, "a diplotype, a phenotype or an activity score"),
        ({"gene": "CYP9X9", "phenotype": "PM"}, "expected ABCG2"),
    ],
)
@pytest.mark.case("E01")
def test_what_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says) as refused:
        gene_result(**given)
    (problem,) = refused.value.problems
    assert problem.field
    assert problem.allowed


@pytest.mark.parametrize(
    ("diplotype", "copies", "phenotype"),
    [
        ("*1x2/*4", None, "Normal Metabolizer"),
        ("*4/*5", None, "Poor Metabolizer"),
        ("*4/*5", 1, "Poor Metabolizer"),
        ("*68+*4/*10", None, "Intermediate Metabolizer"),
        ("*1x≥3/*4", 6, "Ultrarapid Metabolizer"),
        ("*1xN/*4", 3, "Indeterminate"),
        ("*1xN/*1", 4, "Ultrarapid Metabolizer"),
        ("*1/*22", 2, "Indeterminate"),
    ],
)
def test_copies_of_cyp2d6(diplotype: str, copies: int | None, phenotype: str) -> None:
    found = gene_result("CYP2D6", diplotype=diplotype, copy_number=copies)
    assert found.phenotype == phenotype


@pytest.mark.parametrize(
    ("bases", "phenotype"),
    [("A/G", "-1639 AG"), ("g/g", "-1639 GG"), ("T/C", "-1639 AG"), ("A/A", "-1639 AA")],
)
def test_vkorc1_by_its_bases_on_either_strand(bases: str, phenotype: str) -> None:
    assert gene_result("VKORC1", diplotype=bases).phenotype == phenotype
    with pytest.raises(Refusal, match="VKORC1 allele is X"):
        gene_result("VKORC1", diplotype="A/X")


@pytest.mark.parametrize("bases", ["GA", "ag", "tc", "-1639 G/A", "c.-1639 GA", "G|A"])
def test_vkorc1_as_laboratories_write_it(bases: str) -> None:
    usual = gene_result("VKORC1", diplotype="A/G")
    assert gene_result("VKORC1", phenotype=bases) == usual
    assert gene_result("VKORC1", diplotype=bases) == usual
    assert gene_result("VKORC1", phenotype="-1639 AG").diplotype == ""  # CPIC's own phenotype


@pytest.mark.parametrize("text", ["-1639G>A", "AX", "A"])
def test_a_name_of_the_variant_is_no_pair_of_bases(text: str) -> None:
    with pytest.raises(Refusal, match="VKORC1 phenotype"):
        gene_result("VKORC1", phenotype=text)


def test_a_call_from_genotypes_becomes_a_result() -> None:
    found = called_result(call("CYP3A5", rs776746="T/C"))
    assert (found.diplotype, found.phenotype) == ("*1/*3", "Intermediate Metabolizer")
    assert found.alleles == ("*1", "*3")
    hidden = called_result(call("TPMT", missing="rs1142345"))
    assert hidden.indeterminate
    with pytest.raises(Refusal, match="not covered at all"):
        called_result(GeneCall(gene="TPMT", refusal="not covered at all"))


@pytest.mark.parametrize(
    ("gene", "usual", "own"),
    [
        ("DPYD", "*1/*2A", "Reference/c.1905+1G>A (*2A)"),
        ("DPYD", "*13/c.1905+1G>A", "c.1679T>G (*13)/c.1905+1G>A (*2A)"),
        ("DPYD", "Reference/HapB3", "Reference/c.1129-5923C>G, c.1236G>A (HapB3)"),
        ("ABCG2", "G/T", "rs2231142 reference (G)/rs2231142 variant (T)"),
    ],
)
def test_names_that_laboratories_use(gene: str, usual: str, own: str) -> None:
    assert gene_result(gene, diplotype=usual) == gene_result(gene, diplotype=own)
