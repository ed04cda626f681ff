"""One patient's call of one gene: diplotype, phenotype, activity score, and what was missing.

A position that is not covered is never taken for the reference: alleles are matched on what is
left of their definitions, and where an essential allele can then no longer be told from a normal
one, the phenotype is `Indeterminate`. So it is where several diplotypes fit equally well and mean
different things.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fedtwin_twins.genes.combinations import combined_names
from fedtwin_twins.genes.genotypes import UNDOCUMENTED, Genotype, diplotype_name
from fedtwin_twins.genes.matching import best_pairs, not_told_apart
from fedtwin_twins.genes.phenotypes import INDETERMINATE, Meaning, is_normal, meaning_of
from fedtwin_twins.genes.strands import call_variants
from fedtwin_twins.genes.tables import GeneTable

REPORTED_ONLY = "is called from its copy numbers, not from a VCF: import a reported diplotype"
NO_COVERAGE = "no position is covered"
NO_FIT = "the genotypes fit no pair of named alleles"
HALF_CALL = "only one of two chromosomes was read at a variant"
ONE_OF_TWO = "one chromosome was read, of a gene that has two"
MIXED = "one chromosome at some positions and two different ones at others"


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneCall:
    """What the genotypes say of one gene.

    Attributes:
        gene: HGNC symbol.
        diplotypes: those that fit best, such as `*1/*2`; none if there is no call.
        meaning: phenotype and activity score; none if there is no call.
        score: positions that define the alleles of the best diplotype.
        missing: positions of the gene that are not covered.
        undocumented: positions with bases that no named allele has.
        remarks: why the phenotype is indeterminate, and what stands behind the call.
        refusal: why there is no call.
    """

    gene: str
    diplotypes: tuple[str, ...] = ()
    meaning: Meaning | None = None
    score: int = 0
    missing: tuple[int, ...] = ()
    undocumented: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def name(self) -> str:
        """All diplotypes that fit equally well, as one text."""
        return " OR ".join(self.diplotypes)


def call_gene(
    table: GeneTable, genotypes: Mapping[int, Genotype], *, combinations: bool = False
) -> GeneCall:
    """Call one gene of one patient.

    Args:
        table: of the gene.
        genotypes: by position, of those that are covered; others are passed over.
        combinations: where no pair of named alleles fits, name combined and partial ones; their
            phenotype is indeterminate.
    """
    known = {locus.position: locus for locus in table.loci}
    given = {position: item for position, item in genotypes.items() if position in known}
    start = GeneCall(
        gene=table.gene,
        missing=tuple(sorted(set(known) - set(given))),
        undocumented=tuple(sorted(p for p, g in given.items() if UNDOCUMENTED in g.alleles)),
        refusal=_refusal(table, given),
    )
    if start.refusal is not None:
        return start
    if table.undocumented_as_reference:
        given = {p: _as_reference(g, known[p].reference) for p, g in given.items()}
    given = _alike(given)
    if table.calling == "variants":
        found = _variants(table, start, given)
    else:
        found = _diplotype(table, start, given)
        if found.meaning is None and combinations:
            found = _combined(table, start, given)
    return _with_limits(table, given, found)


def _refusal(table: GeneTable, given: Mapping[int, Genotype]) -> str | None:
    """Why the gene cannot be called at all; none if it can be tried."""
    if table.calling == "reported":
        return REPORTED_ONLY
    if not given:
        return NO_COVERAGE
    if any(None in genotype.alleles for genotype in given.values()):
        return HALF_CALL
    sizes = {len(genotype.alleles) for genotype in given.values()}
    if 1 not in sizes:
        return None
    if table.chromosome != "chrX":
        return ONE_OF_TWO
    return MIXED if any(genotype.heterozygous for genotype in given.values()) else None


def _as_reference(genotype: Genotype, reference: str) -> Genotype:
    bases = tuple(reference if base == UNDOCUMENTED else base for base in genotype.alleles)
    return replace(genotype, alleles=bases)


def _alike(given: Mapping[int, Genotype]) -> dict[int, Genotype]:
    """Where some positions speak of one chromosome, all others say the same of two."""
    fewest = min(len(genotype.alleles) for genotype in given.values())
    return {p: replace(g, alleles=g.alleles[:fewest]) for p, g in given.items()}


def _diplotype(table: GeneTable, start: GeneCall, given: Mapping[int, Genotype]) -> GeneCall:
    pairs = best_pairs(table, given)
    if not pairs:
        return _by_one_position(table, start, given)
    shown = {}
    for pair in pairs:
        names = [allele.shown_as for allele in pair.alleles]
        shown[diplotype_name(names)] = meaning_of(table, names)
    meaning, remarks = _agreed(shown)
    return replace(
        start,
        diplotypes=tuple(sorted(shown)),
        meaning=meaning,
        score=pairs[0].score,
        remarks=remarks,
    )


def _agreed(shown: Mapping[str, Meaning]) -> tuple[Meaning, tuple[str, ...]]:
    """What all diplotypes mean; open if they mean different things."""
    meanings = set(shown.values())
    if len(meanings) == 1:
        return meanings.pop(), ()
    phenotypes = {meaning.phenotype for meaning in meanings}
    phenotype = phenotypes.pop() if len(phenotypes) == 1 else INDETERMINATE
    return Meaning(phenotype), ("several diplotypes fit equally well",)


def _by_one_position(table: GeneTable, start: GeneCall, given: Mapping[int, Genotype]) -> GeneCall:
    """A phenotype by the one position that guidelines fall back on, if the gene has one."""
    refused = replace(start, refusal=NO_FIT)
    if table.one_position is None or table.one_position[0] not in given:
        return refused
    position, alleles = table.one_position
    bases = [base for base in given[position].alleles if base is not None]
    if not all(base in alleles for base in bases):
        return refused
    rsid = next(locus.rsid for locus in table.loci if locus.position == position)
    names = sorted(bases, key=lambda base: alleles[base])
    return replace(
        start,
        diplotypes=("/".join(f"{rsid} {base}" for base in names),),
        meaning=meaning_of(table, [alleles[base] for base in bases]),
        remarks=(f"no diplotype fits; by {rsid} alone",),
    )


def _combined(table: GeneTable, start: GeneCall, given: Mapping[int, Genotype]) -> GeneCall:
    names = () if start.undocumented else tuple(combined_names(table, given))
    if not names:
        return replace(start, refusal=NO_FIT)
    return replace(
        start,
        diplotypes=names,
        meaning=Meaning(INDETERMINATE if table.phenotypes else None),
        remarks=("combined or partial alleles, of which no function is known",),
    )


def _variants(table: GeneTable, start: GeneCall, given: Mapping[int, Genotype]) -> GeneCall:
    found = call_variants(table, given)
    if found is None:
        return replace(start, refusal=NO_FIT)
    return replace(
        start,
        diplotypes=(found.name,),
        meaning=meaning_of(table, found.lowest),
        remarks=found.remarks,
    )


def _with_limits(table: GeneTable, given: Mapping[int, Genotype], call: GeneCall) -> GeneCall:
    """Take the phenotype back where an essential allele could not be seen."""
    if call.meaning is None or call.meaning.phenotype is None or not call.missing:
        return call
    normal = {allele.name: is_normal(table, allele.name) for allele in table.alleles}
    hidden = not_told_apart(table, given, normal)
    if not hidden:
        return call
    remark = f"{', '.join(hidden)} cannot be told from a normal allele at the covered positions"
    return replace(call, meaning=Meaning(INDETERMINATE), remarks=(*call.remarks, remark))
