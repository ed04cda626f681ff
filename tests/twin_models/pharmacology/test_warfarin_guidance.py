"""CPIC's flow chart for warfarin, box by box."""

import pytest

from fedtwin_twins.pharmacology.gene_results import GeneResult, gene_result
from fedtwin_twins.pharmacology.warfarin_guidance import WarfarinGuidance, warfarin_guidance
from fedtwin_twins.twin.refusals import Refusal

C, T = "rs9923231 reference (C)", "rs9923231 variant (T)"


def genes(cyp2c9: str, vkorc1: str = f"{C}/{T}", cyp4f2: str | None = None) -> list[GeneResult]:
    found = [gene_result("CYP2C9", diplotype=cyp2c9), gene_result("VKORC1", diplotype=vkorc1)]
    return found + ([gene_result("CYP4F2", diplotype=cyp4f2)] if cyp4f2 else [])


def guide(
    results: list[GeneResult],
    african: bool = False,
    tested: bool = True,
    snv: str | None = None,
) -> WarfarinGuidance:
    return warfarin_guidance(
        results, african_ancestry=african, minor_cyp2c9_tested=tested, rs12777823=snv
    )


@pytest.mark.parametrize(
    ("results", "african", "snv", "factor", "strengths"),
    [
        (genes("*1/*3"), False, None, (1.0, 1.0), ["Strong"]),
        (genes("*1/*3", cyp4f2="*1/*3"), False, None, (1.05, 1.1), ["Strong", "Optional"]),
        (genes("*1/*8"), False, "A/G", (0.7, 0.85), ["Strong", "Optional"]),
        (genes("*8/*11"), False, None, (0.6, 0.8), ["Strong", "Optional"]),
        (genes("*1/*8", cyp4f2="*1/*3"), True, None, (0.7, 0.85), ["Moderate", "Moderate"]),
        (genes("*1/*1"), True, "g/a", (0.75, 0.9), ["Moderate", "Moderate"]),
        (genes("*1/*1"), True, "G/G", (1.0, 1.0), ["Moderate"]),
        (genes("*1/*5"), True, "A/A", (0.525, 0.765), ["Moderate"] * 3),
    ],
)
def test_the_way_through_the_chart(
    results: list[GeneResult],
    african: bool,
    snv: str | None,
    factor: tuple[float, float],
    strengths: list[str],
) -> None:
    found = guide(results, african, snv=snv)
    assert found.by_algorithm
    assert found.factor == pytest.approx(factor)
    assert [step.strength for step in found.steps] == strengths


def test_poor_metabolizers_may_need_another_drug() -> None:
    found = guide(genes("*2/*3", f"{T}/{T}"))
    assert found.steps[-1].effect == "alternative"
    assert "VKORC1 adds sensitivity" in found.steps[-1].text
    assert guide(genes("*1/*3")).steps[-1].effect == "algorithm"


@pytest.mark.parametrize(
    ("results", "african", "tested", "says"),
    [
        (genes("*1/*1"), True, False, "45 to 50 %"),
        (genes("*1/*1")[:1], False, True, "VKORC1 was not tested"),
        (genes("*1/*1")[1:], False, True, "CYP2C9 was not tested"),
        (genes("*1/*7"), False, True, "CYP2C9 is Indeterminate"),
    ],
)
def test_without_the_genes_the_dose_goes_without_them(
    results: list[GeneResult], african: bool, tested: bool, says: str
) -> None:
    found = guide(results, african, tested)
    assert not found.by_algorithm
    assert says in found.steps[0].text
    assert guide(genes("*1/*1"), False, tested=False).by_algorithm


def test_alleles_are_needed_and_genotypes_are_checked() -> None:
    with pytest.raises(Refusal, match="goes by alleles"):
        guide([gene_result("CYP2C9", phenotype="PM"), *genes("*1/*1")[1:]])
    with pytest.raises(Refusal, match="expected G/G, A/G, A/A"):
        guide(genes("*1/*1"), True, snv="A/C")
