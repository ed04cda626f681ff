"""From a patient's genes to a model's parameters: factors, sums over alleles, covariates.

An effect is either measured or an assumption, and says which. What a model has no number for (an
allele it never met, an Indeterminate result) is listed as not known; it is never taken for normal.
`what_genes_do` puts the effects beside what the guidelines say, each with its source.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Final, Literal, cast

from fedtwin_twins.pharmacology.drugs import Drug, find_drug
from fedtwin_twins.pharmacology.gene_results import GeneResult
from fedtwin_twins.pharmacology.recommendations import (
    Recommendation,
    RecommendationTable,
    recommend,
)
from fedtwin_twins.pharmacology.result_patterns import parse_pattern
from fedtwin_twins.pharmacology.tables import Origin, Row, Verified, built_in_text, read_table
from fedtwin_twins.twin.refusals import Problem, Refusal

FORMAT: Final = "fedtwin-gene-effects/1"
ANY_MODEL: Final = "any"
Basis = Literal["measured", "assumption"]
_COLUMNS: Final = (
    *("drug", "model", "gene", "relation", "key", "parameter", "value", "low", "high", "unit"),
    *("covariate", "covariate_value", "basis", "subjects", "source", "verified", "note"),
)
_BASES: Final = ("measured", "assumption")
_RELATIONS: Final = ("factor", "allele sum")


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneEffect:
    """What one gene does to one parameter.

    Attributes:
        gene: HGNC symbol.
        result: as a reader sees it.
        model: whose parameter it is; `any` where it is no model's own.
        parameter: its name.
        factor: on the parameter, against the reference genotype.
        interval: of the factor; none where none is published.
        typical: the parameter's own value, for sums over alleles; none for factors.
        unit: UCUM, of `typical`; `1` for factors.
        covariates: what the model's card takes for this, by name.
        basis: measured, or an assumption.
        subjects: how many it rests on, in words.
        source: of the number.
        verified: how far the row was checked.
        note: what else to know.
    """

    gene: str
    result: str
    model: str
    parameter: str
    factor: float
    interval: tuple[float, float] | None
    typical: float | None
    unit: str
    covariates: Mapping[str, float]
    basis: Basis
    subjects: str
    source: str
    verified: Verified
    note: str

    def __str__(self) -> str:
        kind = "assumed" if self.basis == "assumption" else "measured"
        who = f", {self.subjects}" if self.subjects else ""
        said = f"{self.gene} {self.result}: {self.parameter} x {self.factor:.3g} ({kind}{who})"
        return f"{said}; {self.note}" if self.note else said


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneEffects:
    """All effects of a patient's genes on a drug's model, and what is not known.

    Attributes:
        effects: one for each gene and parameter.
        not_known: sentences on genes that matter and have no number.
    """

    effects: tuple[GeneEffect, ...]
    not_known: tuple[str, ...]

    @property
    def factors(self) -> Mapping[str, float]:
        """By parameter: the product of all genes' factors."""
        found: dict[str, float] = {}
        for effect in self.effects:
            found[effect.parameter] = found.get(effect.parameter, 1.0) * effect.factor
        return found

    @property
    def covariates(self) -> Mapping[str, float]:
        """What the model's card takes, by name."""
        return {name: value for e in self.effects for name, value in e.covariates.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectTable:
    """All rows of a table, by drug and model, then by gene and parameter."""

    origin: Origin
    groups: Mapping[tuple[str, str], Mapping[tuple[str, str], tuple[Row, ...]]]

    def models_of(self, drug: str) -> tuple[str, ...]:
        """The models of a drug that genes have numbers for."""
        name = find_drug(drug).name
        return tuple(model for known, model in self.groups if known == name)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenesView:
    """Effects on a model beside what the guidelines say."""

    effects: GeneEffects
    recommendations: tuple[Recommendation, ...]


def parse_gene_effects(
    text: str, where: str, *, drugs: Mapping[str, Drug] | None = None
) -> EffectTable:
    """Read and check a table.

    Raises:
        Refusal: it is damaged; with file, line and what was expected.
    """
    origin, rows = read_table(text, where, FORMAT, _COLUMNS)
    groups: dict[tuple[str, str], dict[tuple[str, str], list[Row]]] = {}
    for row in rows:
        _check(row)
        try:
            drug = find_drug(row.needed("drug"), drugs).name
        except ValueError as error:
            raise row.refusal("drug", str(error)) from error
        group = groups.setdefault((drug, row.needed("model")), {})
        mine = group.setdefault((row.needed("gene"), row.needed("parameter")), [])
        if any(other.text("key") == row.text("key") for other in mine):
            raise row.refusal("key", "every result or allele once")
        if mine and mine[0].text("relation") != row.text("relation"):
            raise row.refusal("relation", f"{mine[0].text('relation')}, as in line {mine[0].line}")
        mine.append(row)
    frozen = {
        key: {inner: tuple(found) for inner, found in group.items()}
        for key, group in groups.items()
    }
    return EffectTable(origin=origin, groups=frozen)


@cache
def built_in_gene_effects() -> EffectTable:
    """The table that comes with this package."""
    return parse_gene_effects(built_in_text("gene_effects.csv"), "gene_effects.csv")


def _check(row: Row) -> None:
    relation = row.one_of("relation", _RELATIONS)
    row.one_of("basis", _BASES)
    row.verified()
    row.needed("source")
    if relation == "factor":
        try:
            parse_pattern(row.needed("key"))
        except ValueError as error:
            raise row.refusal("key", str(error)) from error
    low, value, high = row.number("low"), row.number("value"), row.number("high")
    if value is None or value <= 0:
        raise row.refusal("value", "a number above 0")
    if (low is None) != (high is None):
        raise row.refusal("low", "both ends of an interval, or none")
    if low is not None and high is not None and not 0 < low <= value <= high:
        raise row.refusal("low", "an interval around the value")
    if row.text("covariate_value") not in {"", "count"}:
        row.number("covariate_value")


def gene_effects(
    drug: str,
    results: Sequence[GeneResult],
    *,
    model: str = ANY_MODEL,
    table: EffectTable | None = None,
) -> GeneEffects:
    """What a patient's genes do to the parameters of a drug's model.

    Args:
        drug: by name, synonym or code.
        results: of the patient's genes; others than the model's are passed over.
        model: the card's id; `any` for effects that are no model's own.
        table: that of this package if none is given.

    Raises:
        Refusal: the drug is not known, or genes have no numbers for this model.
    """
    rows = built_in_gene_effects() if table is None else table
    name = find_drug(drug).name
    group = rows.groups.get((name, model)) or rows.groups.get((name, ANY_MODEL))
    if group is None:
        models = ", ".join(rows.models_of(name)) or "no model: genes have no numbers for this drug"
        raise Refusal(Problem(field=f"model of {name}", value=model, allowed=models))
    given = {result.gene: result for result in results}
    effects, not_known = [], []
    for (gene, parameter), found in group.items():
        if gene not in given:
            not_known.append(f"{gene} was not tested; its effect on {parameter} is not known")
            continue
        effect = _effect(given[gene], found)
        if isinstance(effect, str):
            not_known.append(f"{gene} {given[gene].shown}: {effect}")
        else:
            effects.append(effect)
    return GeneEffects(effects=tuple(effects), not_known=tuple(not_known))


def what_genes_do(
    drug: str,
    results: Sequence[GeneResult],
    *,
    as_of: date,
    model: str = ANY_MODEL,
    effects: EffectTable | None = None,
    recommendations: RecommendationTable | None = None,
) -> GenesView:
    """Effects on a model's parameters and the guidelines' recommendations, side by side.

    Raises:
        Refusal: as `gene_effects` and `recommend` do.
    """
    return GenesView(
        effects=gene_effects(drug, results, model=model, table=effects),
        recommendations=recommend(drug, results, as_of=as_of, table=recommendations),
    )


def _effect(result: GeneResult, rows: Sequence[Row]) -> GeneEffect | str:
    """The effect, or why it is not known."""
    if result.indeterminate:
        return "Indeterminate, which is not the same as normal"
    if rows[0].text("relation") == "allele sum":
        return _sum_of_alleles(result, rows)
    row = next((row for row in rows if parse_pattern(row.text("key")).holds(result)), None)
    if row is None:
        return f"no number for this result ({rows[0].text('source')})"
    named = {row.text("covariate"): row.number("covariate_value") or 0.0}
    covariates = named if row.text("covariate") else {}
    return _made(result, row, factor=_value(row), typical=None, covariates=covariates)


def _sum_of_alleles(result: GeneResult, rows: Sequence[Row]) -> GeneEffect | str:
    by_allele = {row.text("key"): row for row in rows}
    if len(result.alleles) != 2:
        return "the model goes by alleles, of which a phenotype does not tell"
    strange = [allele for allele in result.alleles if allele not in by_allele]
    if strange:
        return f"the model never met {strange[0]} ({rows[0].text('source')})"
    typical = sum(_value(by_allele[allele]) for allele in result.alleles)
    counts = dict(_counts(result, rows))
    factor = typical / (2.0 * _value(rows[0]))
    notes = {row.text("note") for row in rows}
    note = notes.pop() if len(notes) == 1 else ""
    return _made(result, rows[0], factor=factor, typical=typical, covariates=counts, note=note)


def _counts(result: GeneResult, rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    for row in rows:
        if row.text("covariate"):
            yield row.text("covariate"), float(result.alleles.count(row.text("key")))


def _value(row: Row) -> float:
    value = row.number("value")
    assert value is not None, "checked when the table was read"
    return value


def _made(
    result: GeneResult,
    row: Row,
    *,
    factor: float,
    typical: float | None,
    covariates: Mapping[str, float],
    note: str = "",
) -> GeneEffect:
    low, high = row.number("low"), row.number("high")
    return GeneEffect(
        gene=result.gene,
        result=result.shown,
        model=row.text("model"),
        parameter=row.text("parameter"),
        factor=factor,
        interval=None if low is None or high is None or typical is not None else (low, high),
        typical=typical,
        unit=row.text("unit"),
        covariates=covariates,
        basis=cast(Basis, row.text("basis")),
        subjects=row.text("subjects"),
        source=row.text("source"),
        verified=row.verified(),
        note=note if typical is not None else row.text("note"),
    )
