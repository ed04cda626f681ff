"""What a patient's genes and other drugs mean for the models, beside what guidelines say.

Covariates follow from genes and interactions where a model's card has them; what has no number is
said as a caution, never taken for normal. A contraindication forbids the drug.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from fedtwin_research.twins.patient_file import GeneLine, PatientFile
from fedtwin_research.twins.problems import Problems, placed
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.drugs import Drug, find_drug
from fedtwin_twins.pharmacology.gene_effects import (
    ANY_MODEL,
    GeneEffects,
    built_in_gene_effects,
    gene_effects,
)
from fedtwin_twins.pharmacology.gene_results import GeneResult, gene_result
from fedtwin_twins.pharmacology.interactions import Interaction, interaction
from fedtwin_twins.pharmacology.recommendations import Recommendation, recommend
from fedtwin_twins.pharmacology.tables import HOW_CHECKED
from fedtwin_twins.pharmacology.warfarin_guidance import SOURCE, warfarin_guidance
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class GenesAndDrugs:
    """What is known beside the record.

    Attributes:
        results: of the genes.
        effects: by model.
        recommendations: of guidelines, for the drug.
        guidance: of the flow chart for warfarin, step by step, in sentences.
        interactions: what each other drug does to the drug.
        covariates: by name, for the models.
        forbidden: why the drug may not be given; empty: it may.
    """

    results: tuple[GeneResult, ...] = ()
    effects: Mapping[str, GeneEffects]
    recommendations: tuple[Recommendation, ...] = ()
    guidance: tuple[str, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    covariates: Mapping[str, Quantity]
    forbidden: tuple[Problem, ...] = ()


def genes_and_drugs(
    content: PatientFile, models: Sequence[CardModel], today: date, problems: Problems
) -> GenesAndDrugs:
    """Everything that tables say; mistakes go to the problems."""
    covariates: dict[str, Quantity] = {}
    asked = [problems.attempt(_result, gene, line) for gene, line in content.genes.items()]
    results = tuple(one for one in asked if one is not None)
    drug = _drug(models, problems) if results or content.other_drugs else None
    if drug is None:
        return GenesAndDrugs(results=results, effects={}, covariates={})
    effects = _effects(drug, models, results, problems) if results else {}
    for known in effects.values():
        for name, value in known.covariates.items():
            covariates[name] = Quantity(value, "1")
    warfarin = drug.name == "warfarin"
    recommendations = _recommendations(drug, results, today, problems) if results else ()
    found = [
        problems.under(f"other_drugs[{place}]", interaction, drug.name, other)
        for place, other in enumerate(content.other_drugs)
    ]
    interactions = tuple(one for one in found if one is not None)
    for one in interactions:
        covariates.update(_of_interaction(one, models))
        _cautions(one, models, problems)
    return GenesAndDrugs(
        results=results,
        effects=effects,
        recommendations=recommendations,
        guidance=_guidance(content, results, problems) if warfarin and results else (),
        interactions=interactions,
        covariates=covariates,
        forbidden=tuple(_forbidden(recommendations, interactions)),
    )


def _result(gene: str, line: GeneLine) -> GeneResult:
    """What is known of a gene.

    Raises:
        Refusal: under the names of the file's fields.
    """
    try:
        return gene_result(
            gene.strip().upper(),
            diplotype=line.diplotype,
            phenotype=line.phenotype,
            activity_score=line.activity_score,
            copy_number=line.copies,
        )
    except Refusal as refusal:
        where = f"genes.{gene}"
        raise Refusal(
            *(
                placed(one, f"{where}.copies" if one.field.endswith("copy number") else where)
                for one in refusal.problems
            )
        ) from refusal


def _drug(models: Sequence[CardModel], problems: Problems) -> Drug | None:
    """The tables' drug of the models' cards; a caution where no table speaks of it."""
    if not models:
        return None
    card = models[0].card
    for name in (f"RxNorm:{card.drug.rxnorm}", f"ATC:{card.drug.atc}", card.drug.name):
        try:
            return find_drug(name)
        except Refusal:
            continue
    remedy = "nothing is known here of what genes and other drugs do to it, for good or bad"
    problems.cautions.append(Problem(field="drug", value=card.drug.name, remedy=remedy))
    return None


def _effects(
    drug: Drug, models: Sequence[CardModel], results: Sequence[GeneResult], problems: Problems
) -> dict[str, GeneEffects]:
    known = built_in_gene_effects().models_of(drug.name)
    found: dict[str, GeneEffects] = {}
    for model in models:
        if model.name not in known and ANY_MODEL not in known:
            where = f"the effect of {', '.join(one.gene for one in results)} on {model.name}"
            remedy = "no number is known here: the forecast is not changed by it"
            problems.cautions.append(Problem(field=where, value="not known", remedy=remedy))
            continue
        effects = gene_effects(drug.name, results, model=model.name)
        found[model.name] = effects
        names = {one.name for one in model.covariates}
        problems.cautions.extend(
            Problem(field=f"a gene's effect on {model.name}", value="not known", remedy=sentence)
            for sentence in effects.not_known
        )
        problems.cautions.extend(
            Problem(
                field=f"the effect of {one.gene} on {model.name}",
                value="not in the model",
                remedy=f"it has no covariate for it: {one}",
            )
            for one in effects.effects
            if one.factor != 1.0 and not names & set(one.covariates)
        )
    return found


def _recommendations(
    drug: Drug, results: Sequence[GeneResult], today: date, problems: Problems
) -> tuple[Recommendation, ...]:
    if drug.name == "warfarin":
        return ()
    try:
        return recommend(drug.name, results, as_of=today)
    except Refusal as refusal:
        problems.cautions.extend(refusal.problems)
        return ()


def _guidance(
    content: PatientFile, results: Sequence[GeneResult], problems: Problems
) -> tuple[str, ...]:
    """The way through the guideline's flow chart for warfarin."""
    line = content.warfarin
    if line is None:
        remedy = "say the ancestry, as the patient does: warfarin: {african_ancestry: false}"
        field = "the guideline on warfarin"
        value = "not shown: it is a flow chart that also goes by ancestry"
        problems.cautions.append(Problem(field=field, value=value, remedy=remedy))
        return ()
    found = problems.under(
        "warfarin",
        warfarin_guidance,
        results,
        african_ancestry=line.african_ancestry,
        minor_cyp2c9_tested=line.minor_alleles_tested,
        rs12777823=line.rs12777823,
    )
    if found is None:
        return ()
    return (*(f"{step.text} ({step.strength})" for step in found.steps), SOURCE)


def _of_interaction(one: Interaction, models: Sequence[CardModel]) -> dict[str, Quantity]:
    own = one.other.replace(" ", "_").replace("/", "_")
    names = {*one.covariates, own}
    known = {covariate.name for model in models for covariate in model.covariates}
    return {name: Quantity(1.0, "1") for name in sorted(names & known)}


def _cautions(one: Interaction, models: Sequence[CardModel], problems: Problems) -> None:
    where = f"{one.other} with {one.drug}"
    if not one.known:
        problems.cautions.append(Problem(field=where, value="not known", remedy=one.text))
        return
    if one.action != "no effect seen":
        checked = HOW_CHECKED[one.verified]
        text = "; ".join(filter(None, (one.text, one.limit, one.source, checked)))
        value = f"known to matter ({one.action})"
        problems.cautions.append(Problem(field=where, value=value, remedy=text))
    unaware = [model.name for model in models if not _of_interaction(one, [model])]
    if unaware and one.changes:
        said = ", ".join(f"{change.parameter} x {change.factor:g}" for change in one.changes)
        remedy = f"{', '.join(unaware)} does not know of {said}: expect levels to differ"
        problems.cautions.append(Problem(field=where, value="not in the model", remedy=remedy))


def _forbidden(
    recommendations: Sequence[Recommendation], interactions: Sequence[Interaction]
) -> list[Problem]:
    """Contraindications, and drugs that a guideline says to avoid for a genotype."""
    found = [
        Problem(
            field=f"{one.other} with {one.drug}",
            value="contraindicated",
            remedy=f"{one.text} ({one.source})",
        )
        for one in interactions
        if one.action == "contraindicated"
    ]
    found.extend(
        Problem(
            field=", ".join(f"{gene} {result}" for gene, result in one.results),
            value=one.action,
            remedy=f"{one.text} ({one.source}, {one.strength})",
        )
        for one in recommendations
        if one.action.startswith("avoid") and one.action != "avoid standard"
    )
    return found
