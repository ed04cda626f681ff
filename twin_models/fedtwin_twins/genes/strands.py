"""Genes whose variants count one by one: the lowest activity of each strand (DPYD).

Where strands are known, or cannot matter because at most one position differs, the result lists
the variants of each strand; where they are not, all variants, and the two lowest count: variants
of reduced function are taken to lie on different strands (Amstutz 2018, doi 10.1002/cpt.911).

HapB3 is two variants in strong linkage. The intronic one, which is thought to cause the effect,
decides; the exonic one stands in only where the intronic one is not covered (PharmCAT
documentation, "Gene Definition Exceptions").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from fedtwin_twins.genes.genotypes import Genotype, name_order
from fedtwin_twins.genes.tables import GeneTable

_MOST_BLOCKS: Final = 12
_MOST_NAMES: Final = 4


@dataclass(frozen=True, slots=True)
class Variants:
    """The variants of one patient.

    Attributes:
        name: both strands with `/`, or all variants with ` AND ` if strands are not known.
        lowest: the two alleles (or one) that decide.
        remarks: what a reader should know.
    """

    name: str
    lowest: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def call_variants(table: GeneTable, given: Mapping[int, Genotype]) -> Variants | None:
    """The variants that the genotypes hold; none if bases are met that define no allele.

    Args:
        table: of the gene; its alleles differ from the reference at one position, or are paired.
        given: genotypes of covered positions, one or two chromosomes each.
    """
    blocks: dict[str, list[int]] = {}
    for position, genotype in given.items():
        if genotype.heterozygous:
            blocks.setdefault(genotype.block(position), []).append(position)
    if len(blocks) <= 1:
        return _with_strands(table, given, known=True)
    if all(len(positions) == 1 for positions in blocks.values()) or len(blocks) > _MOST_BLOCKS:
        return _with_strands(table, given, known=False)
    return _in_phase_sets(table, given, list(blocks.values()))


def _in_phase_sets(
    table: GeneTable, given: Mapping[int, Genotype], blocks: Sequence[Sequence[int]]
) -> Variants | None:
    """Strands are known within phase sets only: the lowest activity of all arrangements counts."""
    found = []
    for turned in product((False, True), repeat=len(blocks) - 1):
        arranged = dict(given)
        for positions, turn in zip(blocks[1:], turned, strict=True):
            for position in positions:
                alleles = given[position].alleles
                arranged[position] = Genotype(alleles[::-1] if turn else alleles, phased=True)
        one = _with_strands(table, arranged, known=True)
        if one is None:
            return None
        found.append(one)
    lowest = min(found, key=lambda one: sum(_activity(table, name) for name in one.lowest))
    names = sorted({one.name for one in found})
    name = " OR ".join(names) if len(names) <= _MOST_NAMES else lowest.name
    remark = "strands are known in part; the arrangement of lowest activity counts"
    return Variants(name, lowest.lowest, (*lowest.remarks, remark))


def _with_strands(
    table: GeneTable, given: Mapping[int, Genotype], *, known: bool
) -> Variants | None:
    by_base = {
        (position, base): allele.name
        for allele in table.alleles
        if not allele.is_reference and len(allele.bases) == 1
        for position, base in allele.bases.items()
    }
    reference = next(allele.name for allele in table.alleles if allele.is_reference)
    size = max(len(genotype.alleles) for genotype in given.values())
    strands: list[list[str]] = [[] for _ in range(size)]
    for locus in table.loci:
        genotype = given.get(locus.position)
        if genotype is None or _is_paired(table, locus.position):
            continue
        for strand, base in enumerate(genotype.alleles):
            if base is None or base == locus.reference:
                continue
            name = by_base.get((locus.position, base))
            if name is None:
                return None
            strands[strand].append(name)
    remarks = _add_paired(table, given, strands, known)
    if known or size == 1:
        return _by_strand(table, strands, reference, remarks)
    return _all_together(table, strands, reference, remarks)


def _is_paired(table: GeneTable, position: int) -> bool:
    pair = table.paired
    return pair is not None and position in {pair.stand_in, pair.decisive}


def _add_paired(
    table: GeneTable, given: Mapping[int, Genotype], strands: list[list[str]], known: bool
) -> tuple[str, ...]:
    """Put the paired variants (HapB3) on the strands."""
    pair = table.paired
    if pair is None:
        return ()
    decisive = _carriers(table, given, pair.decisive)
    stand_in = _carriers(table, given, pair.stand_in)
    if decisive is None:
        if stand_in is None:
            return ()
        for strand, carried in enumerate(stand_in):
            if carried:
                strands[strand].append(pair.both)
        text = "HapB3 by its exonic variant alone, for the intronic one is not covered"
        return (text,) if any(stand_in) else ()
    exonic = stand_in if stand_in is not None else [False] * len(decisive)
    if not known and sum(exonic) <= sum(decisive):
        # Strands are open: as many pairs as can be made, on the intronic variant's strands.
        exonic = [carried and sum(decisive[:s]) < sum(exonic) for s, carried in enumerate(decisive)]
    for strand, carried in enumerate(decisive):
        if carried:
            strands[strand].append(pair.both if exonic[strand] else pair.decisive_alone)
    if any(there and not carried for there, carried in zip(exonic, decisive, strict=True)):
        return ("the exonic variant of HapB3 without the intronic one is read as reference",)
    return ()


def _carriers(table: GeneTable, given: Mapping[int, Genotype], position: int) -> list[bool] | None:
    genotype = given.get(position)
    if genotype is None:
        return None
    reference = next(locus.reference for locus in table.loci if locus.position == position)
    return [base != reference for base in genotype.alleles]


def _by_strand(
    table: GeneTable, strands: Sequence[Sequence[str]], reference: str, remarks: tuple[str, ...]
) -> Variants:
    named = [sorted(set(strand), key=name_order) or [reference] for strand in strands]
    named.sort(key=lambda names: (len(names), [name_order(name) for name in names]))
    lowest = tuple(_by_activity(table, names)[0] for names in named)
    shown = [names[0] if len(names) == 1 else f"[{' + '.join(names)}]" for names in named]
    return Variants("/".join(shown), lowest, remarks)


def _all_together(
    table: GeneTable, strands: Sequence[Sequence[str]], reference: str, remarks: tuple[str, ...]
) -> Variants:
    variants = [name for strand in strands for name in strand]
    while len(variants) < 2:
        variants.append(reference)
    ordered = sorted(variants, key=name_order)
    lowest = tuple(_by_activity(table, ordered)[:2])
    if reference in ordered:
        # One variant or none: it does not matter which strand it is on.
        return Variants("/".join(ordered), lowest, remarks)
    return Variants(" AND ".join(ordered), lowest, (*remarks, "strands are not known"))


def _by_activity(table: GeneTable, names: Sequence[str]) -> list[str]:
    """Lowest activity first; an allele without a value last."""
    return sorted(names, key=lambda name: (_activity(table, name), name_order(name)))


def _activity(table: GeneTable, name: str) -> float:
    try:
        return float(table.functions[name])
    except (KeyError, ValueError):
        return float("inf")
