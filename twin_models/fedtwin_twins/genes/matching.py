"""From genotypes to the best pair of named alleles, as PharmCAT's Named Allele Matcher does.

Every named allele is completed with the reference's bases at covered positions only. A pair fits
if the two alleles explain the genotype at every covered position, and if the strands that this
asks for agree within each phase set. The score of a pair is the number of covered positions that
define its alleles; several pairs may share the best one (PharmCAT documentation, "Named Allele
Matcher 101"; Sangkuhl 2020, doi 10.1002/cpt.1568). An IUPAC letter that is met by the reference's
base does not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from fedtwin_twins.genes.genotypes import Genotype
from fedtwin_twins.genes.tables import GeneTable, Locus, NamedAllele, possible_bases


@dataclass(frozen=True, slots=True)
class Reduced:
    """A named allele at the positions that are covered.

    Attributes:
        allele: as it is defined.
        accepted: the bases it may have at each covered position.
        score: covered positions that define it.
        wobbles: indices of covered positions with an IUPAC letter.
    """

    allele: NamedAllele
    accepted: tuple[frozenset[str], ...]
    score: int
    wobbles: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two named alleles, or one where there is one chromosome, and their score."""

    alleles: tuple[NamedAllele, ...]
    score: int


def reduced_alleles(table: GeneTable, covered: Sequence[Locus]) -> list[Reduced]:
    """All alleles that still have a defining position among the covered ones."""
    found = []
    for allele in table.alleles:
        defining = [index for index, locus in enumerate(covered) if locus.position in allele.bases]
        if not defining:
            continue
        accepted = tuple(
            possible_bases(allele.bases.get(locus.position, locus.reference)) for locus in covered
        )
        wobbles = tuple(index for index in defining if len(accepted[index]) > 1)
        found.append(Reduced(allele, accepted, len(defining), wobbles))
    return found


def best_pairs(table: GeneTable, genotypes: Mapping[int, Genotype]) -> list[Pair]:
    """The pairs that explain the genotypes with the best score; perhaps none.

    Args:
        table: of the gene.
        genotypes: of covered positions, with both chromosomes read, or one at all of them.
    """
    covered = [locus for locus in table.loci if locus.position in genotypes]
    given = [genotypes[locus.position] for locus in covered]
    fitting = [
        item
        for item in reduced_alleles(table, covered)
        if all(
            accepted & set(genotype.alleles)
            for accepted, genotype in zip(item.accepted, given, strict=True)
        )
    ]
    size = max((len(genotype.alleles) for genotype in given), default=0)
    if size == 1:
        pairs = [Pair((item.allele,), _haploid_score(item, covered, given)) for item in fitting]
    else:
        scored = (
            (first, second, _score(first, second, covered, given))
            for first, second in combinations_with_replacement(fitting, 2)
        )
        pairs = [Pair((a.allele, b.allele), score) for a, b, score in scored if score is not None]
    best = max((pair.score for pair in pairs), default=0)
    return [pair for pair in pairs if pair.score == best]


def not_told_apart(
    table: GeneTable, genotypes: Mapping[int, Genotype], normal: Mapping[str, bool]
) -> list[str]:
    """Essential alleles that look like a normal one at all covered positions.

    Args:
        table: of the gene.
        genotypes: of covered positions.
        normal: whether an allele has the function of the reference.
    """
    covered = [locus for locus in table.loci if locus.position in genotypes]
    reduced = {item.allele.name: item for item in reduced_alleles(table, covered)}
    like_reference = [item for name, item in reduced.items() if normal.get(name, False)]
    hidden = []
    for name in table.essential:
        item = reduced.get(name)
        if item is None or any(
            all(mine & other for mine, other in zip(item.accepted, usual.accepted, strict=True))
            for usual in like_reference
            if usual is not item
        ):
            hidden.append(name)
    return hidden


def _haploid_score(item: Reduced, covered: Sequence[Locus], given: Sequence[Genotype]) -> int:
    unused = sum(given[index].alleles[0] == covered[index].reference for index in item.wobbles)
    return item.score - unused


def _score(
    first: Reduced, second: Reduced, covered: Sequence[Locus], given: Sequence[Genotype]
) -> int | None:
    """The pair's score; none if the pair does not explain the genotypes."""
    ways: dict[str, set[int]] = {}
    for index, genotype in enumerate(given):
        left, right = genotype.alleles[0], genotype.alleles[-1]
        one, two = first.accepted[index], second.accepted[index]
        fits = {0} if left in one and right in two else set()
        if right in one and left in two:
            fits.add(1)
        if not genotype.heterozygous:
            if not fits:
                return None
            continue
        block = genotype.block(covered[index].position)
        ways[block] = ways.get(block, {0, 1}) & fits
        if not ways[block]:
            return None
    unused = 0
    for item, strand in ((first, 0), (second, 1)):
        for index in item.wobbles:
            genotype = given[index]
            block = genotype.block(covered[index].position)
            options = ways.get(block, {0})
            bases = {genotype.alleles[strand - way] for way in options}
            unused += bases == {covered[index].reference}
    return first.score + second.score - unused
