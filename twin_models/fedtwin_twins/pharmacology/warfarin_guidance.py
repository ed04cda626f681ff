"""How genes change an adult's warfarin dose: CPIC's flow chart, which no table of phenotypes holds.

Johnson 2017 (Clin Pharmacol Ther 102:397, doi 10.1002/cpt.668, PMC5546947), Figure 2, as in
github.com/cpicpgx/cpic-data, src/main/design/diagram/warfarin (CC0, read). By self-identified
ancestry, for that is how the evidence was gathered:

- not African: with VKORC1 -1639G>A and CYP2C9 *2 and *3, dose by a published pharmacogenetic
  algorithm (Strong); CYP2C9 *5, *6, *8, *11: 15 to 30 % less, with two of them 20 to 40 %
  (Optional); a carrier of CYP4F2 *3 (rs2108622 T): 5 to 10 % more (Optional);
- African: the same only where CYP2C9 *5, *6, *8 and *11 were tested too, otherwise without genes
  (Moderate); a carrier of rs12777823 A: 10 to 25 % less (Moderate); nothing for CYP4F2.

A carrier of CYP2C9 poor metabolism, with or without higher sensitivity of VKORC1, may be better off
with another drug (footnote e). Algorithms are made for INR 2 to 3 (footnote d).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fedtwin_twins.pharmacology.gene_results import GeneResult
from fedtwin_twins.twin.refusals import Problem, Refusal

SOURCE: Final = "CPIC warfarin guideline 2017, PMID 28198005, Figure 2"
Effect = Literal["algorithm", "without genes", "factor", "alternative"]
_MINOR: Final = ("*5", "*6", "*8", "*11")
_SNV: Final = ("G/G", "A/G", "A/A")


@dataclass(frozen=True, kw_only=True, slots=True)
class WarfarinStep:
    """One box of the flow chart that this patient comes by.

    Attributes:
        effect: what it does to the dose.
        factor: on the calculated dose, from and to, for the effect `factor`.
        strength: of the recommendation.
        text: what to do and why.
        source: of the step.
    """

    effect: Effect
    factor: tuple[float, float] = (1.0, 1.0)
    strength: str
    text: str
    source: str = SOURCE


@dataclass(frozen=True, kw_only=True, slots=True)
class WarfarinGuidance:
    """All steps, and what they come to.

    Attributes:
        steps: in the order of the chart.
        by_algorithm: whether to begin from a pharmacogenetic algorithm.
        factor: on its dose, from and to: the product of all steps.
    """

    steps: tuple[WarfarinStep, ...]
    by_algorithm: bool
    factor: tuple[float, float]


def warfarin_guidance(
    results: Sequence[GeneResult],
    *,
    african_ancestry: bool,
    minor_cyp2c9_tested: bool,
    rs12777823: str | None = None,
) -> WarfarinGuidance:
    """The way through the chart.

    Args:
        results: of CYP2C9 and VKORC1, and CYP4F2 where it was tested; others are passed over.
        african_ancestry: as the patient says; mainly West African in the studies.
        minor_cyp2c9_tested: whether CYP2C9 *5, *6, *8 and *11 were all looked for.
        rs12777823: `G/G`, `A/G` or `A/A`, where it was tested.

    Raises:
        Refusal: CYP2C9 by phenotype alone, for the chart goes by alleles; a wrong genotype.
    """
    given = {result.gene: result for result in results}
    snv = _checked(rs12777823)
    cyp2c9 = given.get("CYP2C9")
    if cyp2c9 is not None and not cyp2c9.alleles:
        problem = Problem(
            field="CYP2C9",
            value=cyp2c9.shown,
            allowed="a diplotype such as *1/*3",
            remedy="the chart goes by alleles, ask the laboratory for them",
        )
        raise Refusal(problem)
    if not _known(given, african_ancestry, minor_cyp2c9_tested):
        text = "Dose without genes, by a clinical algorithm or the standard approach: "
        text += _missing(given, african_ancestry)
        step = WarfarinStep(effect="without genes", strength="Moderate", text=text)
        return WarfarinGuidance(steps=(step,), by_algorithm=False, factor=(1.0, 1.0))
    steps = tuple(_steps(given, african_ancestry, snv))
    low = high = 1.0
    for step in steps:
        low, high = low * step.factor[0], high * step.factor[1]
    return WarfarinGuidance(steps=steps, by_algorithm=True, factor=(low, high))


def _checked(genotype: str | None) -> str | None:
    if genotype is None:
        return None
    ordered = "/".join(sorted(genotype.upper().replace("|", "/").split("/")))
    if ordered not in _SNV:
        raise Refusal(Problem(field="rs12777823", value=genotype, allowed=", ".join(_SNV)))
    return ordered


def _known(given: dict[str, GeneResult], african: bool, minor_tested: bool) -> bool:
    both = all(gene in given and not given[gene].indeterminate for gene in ("CYP2C9", "VKORC1"))
    return both and (minor_tested or not african)


def _missing(given: dict[str, GeneResult], african: bool) -> str:
    for gene in ("CYP2C9", "VKORC1"):
        if gene not in given:
            return f"{gene} was not tested."
        if given[gene].indeterminate:
            return f"{gene} is Indeterminate."
    return (
        "CYP2C9 *5, *6, *8 and *11 were not tested, and 45 to 50 % of people of African ancestry "
        "carry one of them or rs12777823."
        if african
        else "nothing is missing."
    )


def _steps(given: dict[str, GeneResult], african: bool, snv: str | None) -> Iterator[WarfarinStep]:
    yield WarfarinStep(
        effect="algorithm",
        strength="Moderate" if african else "Strong",
        text="Calculate the dose by a published pharmacogenetic algorithm (made for INR 2 to 3).",
    )
    alleles = given["CYP2C9"].alleles
    minor = sum(allele in _MINOR for allele in alleles)
    if minor:
        less = (0.70, 0.85) if minor == 1 else (0.60, 0.80)
        share = "15 to 30" if minor == 1 else "20 to 40"
        yield WarfarinStep(
            effect="factor",
            factor=less,
            strength="Moderate" if african else "Optional",
            text=f"Lower the calculated dose by {share} %: CYP2C9 {given['CYP2C9'].diplotype}.",
        )
    if african and snv not in {None, "G/G"}:
        text = f"Lower the calculated dose by 10 to 25 %: rs12777823 {snv}."
        yield WarfarinStep(effect="factor", factor=(0.75, 0.90), strength="Moderate", text=text)
    if not african and "CYP4F2" in given and "*3" in given["CYP4F2"].alleles:
        text = f"Raise the calculated dose by 5 to 10 %: CYP4F2 {given['CYP4F2'].diplotype}."
        yield WarfarinStep(effect="factor", factor=(1.05, 1.10), strength="Optional", text=text)
    if given["CYP2C9"].phenotype == "Poor Metabolizer":
        sensitive = given["VKORC1"].phenotype in {"-1639 AG", "-1639 AA"}
        why = "CYP2C9 is a poor metabolizer"
        why += ", and VKORC1 adds sensitivity" if sensitive else ""
        yield WarfarinStep(
            effect="alternative", strength="not read", text=f"Consider another drug: {why}."
        )
