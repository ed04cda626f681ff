"""Names for strands that no named allele explains: several alleles at once, or one and more.

`[*2 + *3]` has all that defines *2 and *3; `[*2 + g.94986073A>C]` has *2 and a base beside it;
`g.94986073A>C` is the reference but for that base. Alleles that share a position are not combined,
the one with more positions goes first (PharmCAT documentation, "Combinations and Partial Alleles",
which calls them for research only). No function is known of them.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Final

from fedtwin_twins.genes.genotypes import Genotype, name_order
from fedtwin_twins.genes.tables import GeneTable, Locus, NamedAllele, possible_bases

_MOST_BLOCKS: Final = 10
_MOST_NAMES: Final = 16


def combined_names(table: GeneTable, given: Mapping[int, Genotype]) -> list[str]:
    """Diplotypes of combined and partial alleles; none if there would be too many.

    Args:
        table: of the gene.
        given: genotypes of covered positions, all with bases that the table knows.
    """
    covered = [locus for locus in table.loci if locus.position in given]
    blocks: dict[str, list[int]] = {}
    for position, genotype in given.items():
        if genotype.heterozygous:
            blocks.setdefault(genotype.block(position), []).append(position)
    if len(blocks) > _MOST_BLOCKS:
        return []
    found: set[str] = set()
    groups = list(blocks.values())
    for turned in product((False, True), repeat=max(0, len(groups) - 1)):
        back = {p for group, turn in zip(groups[1:], turned, strict=True) if turn for p in group}
        strands = _strands(given, back)
        options = [_strand_names(table, covered, strand) for strand in strands]
        for names in product(*options):
            found.add("/".join(sorted(names, key=_order)))
        if len(found) > _MOST_NAMES:
            return []
    return sorted(found)


def _order(name: str) -> tuple[object, ...]:
    return name.startswith(("[", "g.")), name_order(name)


def _strands(given: Mapping[int, Genotype], turned: set[int]) -> list[dict[int, str | None]]:
    size = max(len(genotype.alleles) for genotype in given.values())
    return [
        {
            position: genotype.alleles[::-1][strand]
            if position in turned
            else genotype.alleles[strand]
            for position, genotype in given.items()
        }
        for strand in range(size)
    ]


def _strand_names(
    table: GeneTable, covered: Sequence[Locus], strand: Mapping[int, str | None]
) -> list[str]:
    there = [
        allele
        for allele in table.alleles
        # Names that are combinations themselves (UGT1A1 *80+*28) are taken apart here.
        if not allele.is_reference and "+" not in allele.name and _has(allele, strand)
    ]
    reference = next(allele.name for allele in table.alleles if allele.is_reference)
    different = {locus for locus in covered if strand[locus.position] != locus.reference}
    names = []
    for group in _groups(there):
        explained = {position for allele in group for position in allele.bases}
        beside = sorted(
            (locus for locus in different if locus.position not in explained),
            key=lambda locus: locus.position,
        )
        parts = [
            *sorted((allele.shown_as for allele in group), key=name_order),
            *(f"g.{locus.position}{locus.reference}>{strand[locus.position]}" for locus in beside),
        ]
        names.append(f"[{' + '.join(parts)}]" if len(parts) > 1 else "".join(parts) or reference)
    return names


def _has(allele: NamedAllele, strand: Mapping[int, str | None]) -> bool:
    """Whether a strand has all that defines an allele."""
    return all(
        position in strand and strand[position] in possible_bases(base)
        for position, base in allele.bases.items()
    )


def _groups(alleles: Sequence[NamedAllele]) -> list[list[NamedAllele]]:
    """Sets of alleles without a common position; one empty set where there is no allele."""
    groups: list[list[NamedAllele]] = []
    for allele in sorted(alleles, key=lambda item: (-len(item.bases), name_order(item.name))):
        added = beaten = False
        for group in groups:
            rivals = [item for item in group if set(item.bases) & set(allele.bases)]
            beaten = beaten or any(len(item.bases) > len(allele.bases) for item in rivals)
            if not rivals:
                group.append(allele)
                added = True
        if not added and not beaten:
            groups.append([allele])
    return groups or [[]]
