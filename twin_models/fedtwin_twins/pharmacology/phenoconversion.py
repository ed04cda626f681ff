"""CYP2D6 under an inhibitor: what is left of the activity score, for opioids alone.

CPIC opioid guideline 2021 (Crews 2021, PMID 33387367, PMC8249478): under a strong inhibitor the
score is 0 and the phenotype that of a poor metabolizer; under a moderate one the score is halved.
For other drugs no such rule has been agreed upon (CPIC serotonin reuptake inhibitors 2023,
PMID 37032427), so none is applied.
"""

from dataclasses import replace
from typing import Final, Literal

from fedtwin_twins.genes.phenotypes import INDETERMINATE
from fedtwin_twins.genes.tables import built_in_tables
from fedtwin_twins.pharmacology.drugs import find_drug
from fedtwin_twins.pharmacology.gene_results import GeneResult
from fedtwin_twins.twin.refusals import Problem, Refusal

OPIOIDS: Final = ("codeine", "hydrocodone", "tramadol")
Inhibitor = Literal["strong", "moderate", "weak"]
_LEFT: Final = {"strong": 0.0, "moderate": 0.5, "weak": 1.0}


def under_inhibitor(result: GeneResult, inhibitor: Inhibitor, drug: str) -> GeneResult:
    """The result as it is while the inhibitor is taken.

    Args:
        result: of CYP2D6.
        inhibitor: its strength, such as paroxetine's: strong.
        drug: whose recommendation is asked for.

    Raises:
        Refusal: another gene or drug, or a moderate inhibitor where the score is not known.
    """
    name = find_drug(drug).name
    if result.gene != "CYP2D6" or name not in OPIOIDS:
        allowed = f"CYP2D6 and {', '.join(OPIOIDS)}"
        remedy = "no rule has been agreed upon for others; look at the interaction itself"
        given = f"{result.gene} and {name}"
        raise Refusal(Problem(field="gene and drug", value=given, allowed=allowed, remedy=remedy))
    if inhibitor == "weak":
        return result
    if inhibitor == "strong":
        return replace(result, phenotype="Poor Metabolizer", activity_score=0.0, at_least=False)
    if result.activity_score is None or result.at_least:
        problem = Problem(
            field="CYP2D6 activity score",
            value=result.shown,
            allowed="a score that is known",
            remedy="give the diplotype with its copy number",
        )
        raise Refusal(problem)
    score = result.activity_score * _LEFT[inhibitor]
    bands = built_in_tables()["CYP2D6"].bands
    # Scores between the steps of alleles: whatever is left above 0 is not that of a poor one.
    phenotype = next((band.phenotype for band in bands if band.holds(score)), INDETERMINATE)
    if phenotype == "Poor Metabolizer" and score > 0:
        phenotype = "Intermediate Metabolizer"
    return replace(result, phenotype=phenotype, activity_score=score)
