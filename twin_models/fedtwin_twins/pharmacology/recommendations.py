"""What guidelines say of a drug for a patient's genes: the row, its strength, its source, its date.

A row is for one gene or for a pair of genes; the row of a pair is looked up as a pair and is never
put together from two single ones (TPMT and NUDT15: two half-active genes need less than either).
Rows have a day from which, and perhaps one until which, they hold: what was right last year can
be looked up, and what is asked today gets today's.

No row is no recommendation, and says so; it never means that nothing needs to be done.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import combinations
from typing import Final

from fedtwin_twins.genes.tables import GeneTable, built_in_tables
from fedtwin_twins.pharmacology.drugs import Drug, find_drug
from fedtwin_twins.pharmacology.gene_results import NOT_TESTED, GeneResult, phenotypes_of
from fedtwin_twins.pharmacology.result_patterns import ResultPattern, parse_pattern
from fedtwin_twins.pharmacology.tables import Origin, Row, Verified, built_in_text, read_table
from fedtwin_twins.twin.refusals import Problem, Refusal

FORMAT: Final = "fedtwin-recommendations/1"
NO_RECOMMENDATION: Final = "no recommendation"
STRENGTHS: Final = ("Strong", "Moderate", "Optional", "No recommendation", "label", "not read")
_COLUMNS: Final = (
    *("drug", "indication", "gene_1", "result_1", "gene_2", "result_2", "action", "strength"),
    *("factor_low", "factor_high", "limit", "text", "source", "since", "until"),
    *("verified", "note"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """What a guideline says, or that it says nothing.

    Attributes:
        drug: international name.
        rxnorm: its code.
        indication: what the row is for; empty: for any.
        results: of the genes that were looked at, as a reader sees them.
        action: in a few words, such as `avoid`; `no recommendation` where there is none.
        strength: as the guideline gives it; `label` for a product label; `not read` where the
            guideline gives one that was not seen.
        text: what to do.
        starting_dose_factor: of the usual starting dose, from and to; none where not stated.
        limit: of the dose, in words.
        source: of the row.
        since: the day from which it holds.
        version: of the table.
        verified: how far the row was checked; none where there is no row.
        note: what else to know.
    """

    drug: str
    rxnorm: str
    indication: str
    results: tuple[tuple[str, str], ...]
    action: str
    strength: str
    text: str
    starting_dose_factor: tuple[float, float] | None = None
    limit: str = ""
    source: str = ""
    since: date | None = None
    version: date
    verified: Verified | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """A row: for which drug and results, when, and what it says."""

    row: Row
    indication: str
    patterns: tuple[tuple[str, ResultPattern], ...]
    factor: tuple[float, float] | None
    since: date
    until: date | None

    @property
    def genes(self) -> tuple[str, ...]:
        return tuple(gene for gene, _ in self.patterns)

    def in_force(self, day: date) -> bool:
        return self.since <= day and (self.until is None or day < self.until)

    def holds(self, results: Mapping[str, GeneResult]) -> bool:
        return all(pattern.holds(results[gene]) for gene, pattern in self.patterns)

    def clashes(self, other: "_Entry") -> bool:
        """Whether one patient could get both on one day."""
        if self.indication != other.indication or self.genes != other.genes:
            return False
        ends = (self.until or date.max, other.until or date.max)
        if self.since >= ends[1] or other.since >= ends[0]:
            return False
        pairs = zip(self.patterns, other.patterns, strict=True)
        return all(mine.overlaps(theirs) for (_, mine), (_, theirs) in pairs)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecommendationTable:
    """All rows of a table, checked."""

    origin: Origin
    entries: Mapping[str, tuple[_Entry, ...]]
    names: Mapping[str, Drug] | None = None

    @property
    def drugs(self) -> tuple[str, ...]:
        """The drugs that it speaks of."""
        return tuple(sorted(self.entries))

    def genes_for(self, drug: str) -> tuple[tuple[str, ...], ...]:
        """The genes, or pairs of genes, that a drug's rows go by."""
        name = find_drug(drug, self.names).name
        return tuple({entry.genes: None for entry in self.entries.get(name, ())})


def parse_recommendations(
    text: str,
    where: str,
    *,
    drugs: Mapping[str, Drug] | None = None,
    genes: Mapping[str, GeneTable] | None = None,
) -> RecommendationTable:
    """Read and check a table.

    Args:
        text: of the file.
        where: its name, for errors.
        drugs: that it may speak of; those of this package if none are given.
        genes: likewise.

    Raises:
        Refusal: it is damaged, names a drug, gene or phenotype that is not known, or has two
            rows for one patient and one day.
    """
    origin, rows = read_table(text, where, FORMAT, _COLUMNS)
    entries: dict[str, list[_Entry]] = {}
    known = built_in_tables() if genes is None else genes
    for row in rows:
        entry = _entry(row, known)
        mine = entries.setdefault(_drug(row, drugs), [])
        clash = next((other for other in mine if entry.clashes(other)), None)
        if clash is not None:
            raise row.refusal("result_1", f"a result that line {clash.row.line} is not for")
        mine.append(entry)
    found = {drug: tuple(mine) for drug, mine in entries.items()}
    return RecommendationTable(origin=origin, entries=found, names=drugs)


@cache
def built_in_recommendations() -> RecommendationTable:
    """The table that comes with this package."""
    return parse_recommendations(built_in_text("recommendations.csv"), "recommendations.csv")


def _drug(row: Row, drugs: Mapping[str, Drug] | None) -> str:
    try:
        return find_drug(row.needed("drug"), drugs).name
    except ValueError as error:
        raise row.refusal("drug", str(error)) from error


def _entry(row: Row, genes: Mapping[str, GeneTable]) -> _Entry:
    low, high = row.number("factor_low"), row.number("factor_high")
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise row.refusal("factor_low", "two factors, the lower first, or none")
    since = row.day("since")
    if since is None:
        raise row.refusal("since", "the day from which the row holds")
    for column in ("action", "text", "source"):
        row.needed(column)
    row.one_of("strength", STRENGTHS)
    row.verified()
    return _Entry(
        row=row,
        indication=row.text("indication"),
        patterns=tuple(_patterns(row, genes)),
        factor=None if low is None or high is None else (low, high),
        since=since,
        until=row.day("until"),
    )


def _patterns(row: Row, tables: Mapping[str, GeneTable]) -> Iterable[tuple[str, ResultPattern]]:
    for number in "12":
        gene = row.text(f"gene_{number}")
        if not gene and number == "2":
            return
        if gene not in tables:
            raise row.refusal(f"gene_{number}", ", ".join(tables))
        try:
            pattern = parse_pattern(row.needed(f"result_{number}"))
        except ValueError as error:
            raise row.refusal(f"result_{number}", str(error)) from error
        unknown = pattern.phenotypes - {*phenotypes_of(tables[gene]), NOT_TESTED}
        if unknown:
            raise row.refusal(f"result_{number}", ", ".join(phenotypes_of(tables[gene])))
        yield gene, pattern


def recommend(
    drug: str,
    results: Sequence[GeneResult],
    *,
    as_of: date,
    indication: str | None = None,
    table: RecommendationTable | None = None,
) -> tuple[Recommendation, ...]:
    """What the guidelines say: one answer for each gene or pair of genes, and each indication.

    Args:
        drug: by name, synonym or code.
        results: of the patient's genes, each gene once; others than the drug's are passed over.
        as_of: the day that is asked for.
        indication: one of the table's; none: an answer for each.
        table: that of this package if none is given.

    Raises:
        Refusal: a drug that no table speaks of, or one gene given twice.
    """
    rows = built_in_recommendations() if table is None else table
    known = find_drug(drug, rows.names)
    given = _by_gene(results)
    entries = rows.entries.get(known.name, ())
    groups: dict[tuple[tuple[str, ...], str], list[_Entry]] = {}
    for entry in entries:
        if indication is None or entry.indication in {"", indication}:
            groups.setdefault((entry.genes, entry.indication), []).append(entry)
    if groups:
        return tuple(_answer(rows, known, given, group, as_of) for group in groups.values())
    shown = tuple((result.gene, result.shown) for result in given.values())
    why = f"the table of {rows.origin.version} holds nothing on {known.name}"
    if entries:
        why += f" for the indication '{indication}'"
    return (_nothing(rows, known, indication or "", shown, why),)


def _by_gene(results: Sequence[GeneResult]) -> dict[str, GeneResult]:
    for one, other in combinations(results, 2):
        if one.gene == other.gene:
            raise Refusal(
                Problem(
                    field=f"{one.gene} results",
                    value=f"{one.shown} and {other.shown}",
                    allowed="one result of each gene",
                    remedy="give the diplotype and the phenotype together, as one result",
                )
            )
    return {result.gene: result for result in results}


def _answer(
    table: RecommendationTable,
    drug: Drug,
    given: Mapping[str, GeneResult],
    entries: Sequence[_Entry],
    day: date,
) -> Recommendation:
    genes, indication = entries[0].genes, entries[0].indication
    untested = {gene: GeneResult(gene=gene, phenotype=NOT_TESTED) for gene in genes}
    looked_at = {gene: given.get(gene, untested[gene]) for gene in genes}
    shown = tuple((gene, result.shown) for gene, result in looked_at.items())
    current = [entry for entry in entries if entry.in_force(day)]
    if not current:
        first = min(entry.since for entry in entries)
        why = f"no row of the table is in force on {day}; the first one is since {first}"
        return _nothing(table, drug, indication, shown, why)
    if all(gene not in given for gene in genes):
        return _nothing(table, drug, indication, shown, f"{' and '.join(genes)} not tested")
    found = next((entry for entry in current if entry.holds(looked_at)), None)
    if found is None:
        return _nothing(table, drug, indication, shown, _why(current, looked_at))
    row = found.row
    return Recommendation(
        drug=drug.name,
        rxnorm=drug.rxnorm,
        indication=indication,
        results=shown,
        action=row.text("action"),
        strength=row.text("strength"),
        text=row.text("text"),
        starting_dose_factor=found.factor,
        limit=row.text("limit"),
        source=row.text("source"),
        since=found.since,
        version=table.origin.version,
        verified=row.verified(),
        note=row.text("note"),
    )


def _why(entries: Sequence[_Entry], results: Mapping[str, GeneResult]) -> str:
    """Why no row is for these results."""
    by_score = {g for e in entries for g, pattern in e.patterns if pattern.scores is not None}
    for gene, result in results.items():
        if result.indeterminate:
            return f"{gene} is Indeterminate, which is not the same as normal"
        if gene in by_score and result.activity_score is None and result.phenotype != NOT_TESTED:
            return f"the guideline goes by the activity score of {gene}, which is not known"
    untested = [gene for gene, result in results.items() if result.phenotype == NOT_TESTED]
    if untested:
        return f"{untested[0]} was not tested, and the table has no row without it"
    said = " and ".join(f"{gene} {result.shown}" for gene, result in results.items())
    return f"the table has no row for {said}"


def _nothing(
    table: RecommendationTable,
    drug: Drug,
    indication: str,
    shown: tuple[tuple[str, str], ...],
    why: str,
) -> Recommendation:
    return Recommendation(
        drug=drug.name,
        rxnorm=drug.rxnorm,
        indication=indication,
        results=shown,
        action=NO_RECOMMENDATION,
        strength="No recommendation",
        text=f"No recommendation: {why}.",
        version=table.origin.version,
    )
