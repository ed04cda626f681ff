"""From a VCF line and one sample's column to bases at known positions of genes.

VCF can write one change in many ways: several alternatives in a line or a line for each, more
bases than needed, an insertion at another place of the same repeat. Each alternative is brought to
one form (Tan 2015, doi 10.1093/bioinformatics/btv112: no shared bases at the ends, leftmost), and
neighbouring substitutions are taken apart, before it is compared with what the tables know.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from fedtwin_client.records.genome.variant_files import VcfRecord
from fedtwin_client.records.reading import UnusableError
from fedtwin_twins.genes.genotypes import UNDOCUMENTED, Genotype
from fedtwin_twins.genes.tables import Locus

_BASES = re.compile(r"[ACGT]+\Z")
_GENOTYPE = re.compile(r"(?:\d{1,4}|\.)(?:[/|](?:\d{1,4}|\.))*\Z")
_LONGEST_SHIFT = 1000
BLOCK_ALLELES = frozenset({"<*>", "<NON_REF>", "*", "."})


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the reference: `before` at `position` becomes `after`."""

    position: int
    before: str
    after: str

    def touches(self, locus: Locus) -> bool:
        """Whether it alters a locus, or could hide what stands there."""
        last = locus.position + len(locus.reference) - 1
        if len(self.before) == len(self.after) == 1:
            inner = locus.position + (1 if _has_length_change(locus) else 0)
            return inner <= self.position <= last
        removed = range(self.position + 1, self.position + len(self.before))
        if _has_length_change(locus):
            return locus.position <= self.position <= last or locus.position in removed
        return locus.position in removed


@dataclass(frozen=True, slots=True)
class Call:
    """One sample's genotype of one line: numbers of alleles, 0 for REF, none where not read."""

    numbers: tuple[int | None, ...]
    phased: bool
    phase_set: str | None


class Chromosome:
    """The positions of interest on one chromosome, and the reference around them."""

    def __init__(self, loci: Sequence[Locus], bases: Mapping[int, str]) -> None:
        """Prepare the known changes in their one form.

        Args:
            loci: positions, each once.
            bases: what is known of the reference.
        """
        self.loci = sorted(loci, key=lambda locus: locus.position)
        self.bases = bases
        self._known: dict[Change, tuple[Locus, str]] = {}
        for locus in self.loci:
            for alternative in locus.alternatives:
                for change in self.changes(locus.position, locus.reference, alternative):
                    self._known[change] = (locus, alternative)

    def changes(self, position: int, reference: str, alternative: str) -> list[Change]:
        """An alternative as changes in their one form."""
        if len(reference) == len(alternative):
            return [
                Change(position + index, before, after)
                for index, (before, after) in enumerate(zip(reference, alternative, strict=True))
                if before != after
            ]
        return [self._leftmost(position, reference, alternative)]

    def documented(self, change: Change) -> tuple[Locus, str] | None:
        """The locus and the alternative that a change is, if a table has it."""
        return self._known.get(change)

    def mismatch(self, record: VcfRecord) -> bool | None:
        """Whether REF differs from the reference; none if nothing is known there."""
        known = [
            (self.bases[record.position + index], base)
            for index, base in enumerate(record.reference[:_LONGEST_SHIFT])
            if base != "N" and record.position + index in self.bases
        ]
        return any(expected != found for expected, found in known) if known else None

    @cached_property
    def rsids(self) -> dict[str, int]:
        """Positions of single bases by rsid; insertions may be written elsewhere."""
        return {
            locus.rsid: locus.position
            for locus in self.loci
            if locus.rsid and not _has_length_change(locus)
        }

    def _leftmost(self, position: int, before: str, after: str) -> Change:
        for _ in range(_LONGEST_SHIFT):
            if before and after and before[-1] == after[-1]:
                before, after = before[:-1], after[:-1]
            elif before and after:
                break
            if not before or not after:
                previous = self.bases.get(position - 1)
                if previous is None:
                    return Change(position - 1, "N" + before, "N" + after)
                position, before, after = position - 1, previous + before, previous + after
        while len(before) > 1 and len(after) > 1 and before[0] == after[0]:
            position, before, after = position + 1, before[1:], after[1:]
        return Change(position, before, after)


def read_call(record: VcfRecord, cell: str, *, least_depth: int) -> Call:
    """One sample's genotype of a line.

    Args:
        record: the line.
        cell: the sample's column.
        least_depth: fewer reads make it unusable; 0 asks for none.

    Raises:
        UnusableError: no genotype, one that names what ALT does not have, or one that its reads do
            not support.
    """
    values = dict(zip(record.format, cell.split(":"), strict=False))
    text = values.get("GT", ".")
    if not _GENOTYPE.match(text):
        raise UnusableError("a genotype that cannot be read")
    parts = re.split(r"[/|]", text)
    if all(part == "." for part in parts):
        raise UnusableError("no genotype", wrong=False)
    if len(parts) > 2:
        raise UnusableError("a genotype of more than two chromosomes")
    numbers = tuple(None if part == "." else int(part) for part in parts)
    for number in numbers:
        if number is None or number == 0:
            continue
        if number > len(record.alternatives):
            raise UnusableError("a genotype that names an allele which ALT does not list")
        if not _BASES.match(record.alternatives[number - 1]):
            raise UnusableError(
                "a genotype with an allele that is not bases (symbolic, or a spanning deletion)"
            )
    _check_reads(values, numbers, least_depth)
    phase_set = values.get("PS")
    return Call(numbers, "|" in text, None if phase_set in {None, "", "."} else phase_set)


def _check_reads(
    values: Mapping[str, str], numbers: tuple[int | None, ...], least_depth: int
) -> None:
    """Refuse what the caller itself doubts.

    Raises:
        UnusableError: a filter of the genotype, too few reads, or reads of one allele only.
    """
    if values.get("FT", ".") not in {".", "PASS", ""}:
        raise UnusableError("the genotype's own filter (FT) is not PASS", wrong=False)
    if least_depth:
        depth = values.get("DP", values.get("MIN_DP", "."))
        if not depth.isdigit() or len(depth) > 9:
            raise UnusableError("no depth (DP), though a least one was asked for", wrong=False)
        if int(depth) < least_depth:
            raise UnusableError("fewer reads than the least depth asked for", wrong=False)
    different = len({number for number in numbers if number is not None}) > 1
    if different and reads_of_one(values.get("AD", "")):
        raise UnusableError("two different alleles, but reads (AD) of one only")


@lru_cache(maxsize=65_536)
def reads_of_one(depths: str) -> bool:
    """Whether reads are told for several alleles (AD), and all of them are of one."""
    reads = [part for part in depths.split(",") if part.isdigit()]
    return len(reads) > 1 and sum(part.strip("0") != "" for part in reads) == 1


def bases_at(record: VcfRecord, call: Call, chromosome: Chromosome) -> dict[int, Genotype]:
    """What a genotype says at the loci that the line covers or changes.

    A reference allele read on one of two chromosomes alone says nothing and is left out.

    Args:
        record: the line.
        call: the genotype.
        chromosome: the loci.
    """
    made = {
        number: _changes(chromosome, record.position, record.reference, record.alternatives, number)
        for number in set(call.numbers)
        if number is not None
    }
    found = {}
    for locus in _near(chromosome.loci, record):
        alleles: list[str | None] = []
        changed = False
        for number in call.numbers:
            base = None if number is None else _allele_at(locus, made[number], chromosome)
            changed = changed or base not in {None, locus.reference}
            alleles.append(base)
        if not (changed or _covers(record, locus) or _asks_for(record, locus, chromosome)):
            continue
        if None in alleles and not changed:
            continue
        found[locus.position] = Genotype(tuple(alleles), call.phased, call.phase_set)
    return found


def joined(first: Genotype, second: Genotype, reference: str) -> Genotype | None:
    """Two lines of one position as one genotype, as when a line stands for each alternative.

    Returns:
        What both say together; none if they contradict each other.
    """
    if first == second or len(first.alleles) != len(second.alleles):
        return first if first == second else None
    alleles = []
    for one, two in zip(first.alleles, second.alleles, strict=True):
        told = [base for base in (one, two) if base not in {None, reference}]
        if len(set(told)) > 1:
            return _side_by_side(first, second, reference)
        alleles.append(told[0] if told else one if one is not None else two)
    return replace(first, alleles=tuple(alleles), phased=first.phased and second.phased)


def _side_by_side(first: Genotype, second: Genotype, reference: str) -> Genotype | None:
    """Unphased `0/1` of two alternatives: one chromosome has each."""
    told = [base for item in (first, second) for base in item.alleles if base != reference]
    if len(told) != 2 or None in told or first.phased or second.phased:
        return None
    return replace(first, alleles=tuple(told))


def _has_length_change(locus: Locus) -> bool:
    return any(len(text) != len(locus.reference) for text in locus.alternatives)


@lru_cache(maxsize=4096)
def _changes(
    chromosome: Chromosome,
    position: int,
    reference: str,
    alternatives: tuple[str, ...],
    number: int,
) -> tuple[Change, ...]:
    if number == 0:
        return ()
    return tuple(chromosome.changes(position, reference, alternatives[number - 1]))


def _near(loci: Sequence[Locus], record: VcfRecord) -> list[Locus]:
    """Loci that the line may speak of."""
    margin = len(record.reference) + max((len(a) for a in record.alternatives), default=0) + 60
    low, high = record.position - margin, record.end + margin
    return [locus for locus in loci if low <= locus.position <= high]


def _covers(record: VcfRecord, locus: Locus) -> bool:
    last = locus.position + len(locus.reference) - 1
    whole = record.position <= locus.position and last <= record.end
    # A line of single bases that begins at an insertion or deletion has seen none there.
    return whole or record.position == locus.position


def _asks_for(record: VcfRecord, locus: Locus, chromosome: Chromosome) -> bool:
    """Whether one of the line's alternatives is the locus's, be it written at another place."""
    if not _has_length_change(locus):
        return False
    for number, alternative in enumerate(record.alternatives, start=1):
        if not _BASES.match(alternative):
            continue
        for change in _changes(
            chromosome, record.position, record.reference, record.alternatives, number
        ):
            known = chromosome.documented(change)
            if known is not None and known[0] is locus:
                return True
    return False


def _allele_at(locus: Locus, changes: Sequence[Change], chromosome: Chromosome) -> str:
    for change in changes:
        known = chromosome.documented(change)
        if known is not None and known[0] is locus:
            return known[1]
    if any(change.touches(locus) for change in changes):
        return UNDOCUMENTED
    return locus.reference
