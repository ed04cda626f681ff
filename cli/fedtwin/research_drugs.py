"""`fedtwin research genes` and `interactions`: what tables say of drugs."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.paper import now, say, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedtwin_twins.pharmacology.gene_results import GeneResult
    from fedtwin_twins.pharmacology.recommendations import Recommendation

_PERCENT = 100


def add_drug_commands(app: typer.Typer) -> None:
    """Put the commands of this module below `fedtwin research`."""
    app.command("genes")(genes)
    app.command("interactions")(interactions)


def genes(
    drug: Annotated[str, typer.Argument(help="Name, RxNorm:CODE or ATC:CODE.")],
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="GENE=RESULT...",
            help="A diplotype (CYP2C19=*2/*17), a phenotype (TPMT=PM) or a score (DPYD=1.5).",
        ),
    ],
    copies: Annotated[
        int | None, typer.Option(help="Copies of CYP2D6, where its diplotype does not say.", min=0)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Also what the genes do to this model's parameters.")
    ] = None,
    as_of: Annotated[str | None, typer.Option(help="The day asked for; today if none.")] = None,
    table: Annotated[
        Path | None, typer.Option(help="A newer table; see docs/pharmacogenes.md.")
    ] = None,
    african_ancestry: Annotated[
        bool | None, typer.Option(help="For warfarin: as the patient says.")
    ] = None,
    minor_alleles_tested: Annotated[
        bool, typer.Option(help="For warfarin: CYP2C9 *5, *6, *8 and *11 were looked for.")
    ] = False,
    rs12777823: Annotated[
        str | None, typer.Option(help="For warfarin: G/G, A/G or A/A, where it was tested.")
    ] = None,
) -> None:
    """What guidelines say of a drug for a patient's genes, with source, strength and date.

    For research and teaching: nothing here doses a patient.

    Example: fedtwin research genes azathioprine 'TPMT=*1/*3A' 'NUDT15=*1/*3'
    """
    from fedtwin_protocol.errors import ConfigurationError
    from fedtwin_twins.pharmacology.gene_effects import gene_effects
    from fedtwin_twins.pharmacology.recommendations import parse_recommendations, recommend

    try:
        given = [_result(text, copies) for text in results]
        rows = None if table is None else parse_recommendations(_text(table), table.name)
        answers = recommend(drug, given, as_of=_day(as_of), table=rows)
        effects = None if model is None else gene_effects(drug, given, model=model)
        if answers[0].drug == "warfarin":
            _show_warfarin(given, african_ancestry, minor_alleles_tested, rs12777823)
            answers = ()
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    _show(answers)
    if effects is not None:
        say(*(f"model {effect.model}: {effect}" for effect in effects.effects))
        say(*(f"not known: {sentence}" for sentence in effects.not_known))


def _show(answers: "Sequence[Recommendation]") -> None:
    from fedtwin_twins.pharmacology.tables import HOW_CHECKED

    for answer in answers:
        who = ", ".join(f"{gene} {result}" for gene, result in answer.results)
        say(f"{answer.drug}{answer.indication and f' for {answer.indication}'}: {who}")
        say(f"  {answer.text}")
        if answer.starting_dose_factor is not None:
            low, high = (_PERCENT * factor for factor in answer.starting_dose_factor)
            share = f"{low:g} %" if low == high else f"{low:g} to {high:g} %"
            say(f"  starting dose: {share} of the usual one")
        if answer.limit:
            say(f"  limit: {answer.limit}")
        if answer.source:
            say(
                f"  {answer.strength}; {answer.source}, since {answer.since}; "
                f"{HOW_CHECKED[answer.verified]}"
            )
        if answer.note:
            say(f"  note: {answer.note}")
    if answers:
        say(f"table of {answers[0].version}; CPIC content, updated at clinpgx.org")


def _show_warfarin(
    given: "Sequence[GeneResult]",
    african: bool | None,
    minor_tested: bool,
    rs12777823: str | None,
) -> None:
    """The way through the flow chart.

    Raises:
        ValueError: the ancestry is not said, or the chart refuses a genotype.
    """
    from fedtwin_twins.pharmacology.warfarin_guidance import SOURCE, warfarin_guidance

    if african is None:
        raise ValueError(
            "the guideline on warfarin goes by ancestry, as the patient says: "
            "add --african-ancestry or --no-african-ancestry"
        )
    found = warfarin_guidance(
        given,
        african_ancestry=african,
        minor_cyp2c9_tested=minor_tested,
        rs12777823=rs12777823,
    )
    say(f"warfarin: {', '.join(f'{one.gene} {one.shown}' for one in given)}")
    for step in found.steps:
        say(f"  {step.text} ({step.strength})")
    if found.by_algorithm:
        low, high = (_PERCENT * factor for factor in found.factor)
        share = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        say(f"  all together: {share} % of the algorithm's dose")
    say(f"  {SOURCE}")


def interactions(
    drugs: Annotated[list[str], typer.Argument(metavar="DRUG...", help="At least two.")],
    table: Annotated[
        Path | None, typer.Option(help="A newer table; see docs/pharmacogenes.md.")
    ] = None,
) -> None:
    """What drugs of one medication do to one another, the most serious first.

    A pair that the table does not have is listed as not known, which is not the same as no
    interaction.

    Example: fedtwin research interactions simvastatin itraconazole amlodipine
    """
    from fedtwin_protocol.errors import ConfigurationError
    from fedtwin_twins.pharmacology.interactions import interactions_within, parse_interactions
    from fedtwin_twins.pharmacology.tables import HOW_CHECKED

    try:
        rows = None if table is None else parse_interactions(_text(table), table.name)
        found = interactions_within(drugs, rows)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if not found:
        raise ConfigurationError("expected at least two different drugs")
    lines = []
    for one in (one for one in found if one.known):
        changes = ", ".join(f"{c.parameter} x {c.factor:g}" for c in one.changes)
        said = "; ".join(filter(None, (one.limit, one.text, changes)))
        source = f"{one.source} ({HOW_CHECKED[one.verified]})"
        lines.append([one.drug, one.other, one.action, said, source])
    if lines:
        show_table("", ["drug", "with", "action", "what happens", "source"], lines)
    unknown = [f"{one.other} on {one.drug}" for one in found if not one.known]
    if unknown:
        say(f"not known, which is not the same as no interaction: {', '.join(unknown)}")


def _result(text: str, copies: int | None) -> "GeneResult":
    """One gene's result as it is typed.

    Raises:
        ValueError: it is no GENE=RESULT, or the result is refused.
    """
    from fedtwin_twins.pharmacology.gene_results import gene_result

    gene, separator, said = text.partition("=")
    if not separator or not said:
        raise ValueError(f"expected GENE=RESULT, such as CYP2C19=*2/*17, found '{text}'")
    gene = gene.strip().upper()
    if "/" in said:
        number = copies if gene == "CYP2D6" else None
        return gene_result(gene, diplotype=said, copy_number=number)
    if said.replace(".", "", 1).isdigit():
        return gene_result(gene, activity_score=float(said))
    return gene_result(gene, phenotype=said)


def _day(text: str | None) -> date:
    return now().date() if text is None else date.fromisoformat(text)


def _text(path: Path) -> str:
    """A table's text.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
