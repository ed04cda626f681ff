"""Polygenic scores: the sum over variants of weight times copies of the effect allele.

score = sum_i w_i * g_i, with g_i the copies (0, 1, 2) of the effect allele; a dominant weight
counts once from one copy on, a recessive one with two, and a variant may have a weight for each
number of copies (PGS Catalog scoring file format 2.0, pgscatalog.org/downloads; Lambert 2021, doi
10.1038/s41588-021-00783-5).

An effect allele may be the reference or an alternative, and be written for the other strand: then
both alleles are complemented. A and T, and C and G, are each other's complement: such a variant
tells its strand only by how frequent its alleles are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

AMBIGUOUS_FREQUENCY: Final = 0.1
"""Frequencies closer than this to one half do not tell the strand."""
_COMPLEMENT: Final = str.maketrans("ACGT", "TGCA")


class Palindromes(StrEnum):
    """What is done with variants that read the same on both strands."""

    FREQUENCY = "frequency"
    """Used if the allele frequencies tell the strand, else left out."""
    KEEP = "keep"
    """Taken to be on the file's strand, as harmonised scores and VCF are."""
    DROP = "drop"
    """Left out."""


@dataclass(frozen=True, slots=True)
class ScoreVariant:
    """One variant of a score.

    Attributes:
        effect: the allele whose copies count.
        other: the allele beside it; none if the score does not say.
        weights: for 0, 1 and 2 copies.
        frequency: of the effect allele in the score's population; none if not known.
    """

    effect: str
    other: str | None
    weights: tuple[float, float, float]
    frequency: float | None = None

    @property
    def size(self) -> float:
        """How much it can matter: the largest difference that copies make."""
        return max(self.weights) - min(self.weights)

    @property
    def palindromic(self) -> bool:
        """Whether it reads the same on both strands."""
        return self.other is not None and self.effect.translate(_COMPLEMENT) == self.other


class UnmatchedError(ValueError):
    """A genotype does not tell the copies of the effect allele; the text says why."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Copies of the effect allele, and whether it was found on the other strand."""

    count: int
    flipped: bool = False
    palindromic: bool = False


def copies_of_effect(
    variant: ScoreVariant,
    copies: Mapping[str, int],
    palindromes: Palindromes,
    frequencies: Mapping[str, float] | None = None,
) -> Copies:
    """How often a patient has the effect allele.

    Args:
        variant: of the score.
        copies: of every allele of the line (reference and alternatives), also those with none;
            a line without alternatives has one.
        palindromes: what is done with variants that read the same on both strands.
        frequencies: of the line's alleles, if known.

    Raises:
        UnmatchedError: the alleles are others, or the strand is not clear.
    """
    if variant.other is None and variant.effect.translate(_COMPLEMENT) in copies:
        raise UnmatchedError("the score does not name the other allele, and both strands fit")
    if variant.palindromic:
        return _palindromic(variant, copies, palindromes, frequencies or {})
    for flipped in (False, True):
        effect, other = variant.effect, variant.other
        if flipped:
            effect = effect.translate(_COMPLEMENT)
            other = None if other is None else other.translate(_COMPLEMENT)
        if _fits(effect, other, copies):
            return Copies(copies.get(effect, 0), flipped)
    if variant.other is None and len(copies) == 1:
        return Copies(0)
    raise UnmatchedError("other alleles than the score's")


def _fits(effect: str, other: str | None, copies: Mapping[str, int]) -> bool:
    """Whether a line's alleles are the score's.

    Raises:
        UnmatchedError: they are, and the patient has yet another one.
    """
    if other is None:
        return effect in copies
    there = {effect, other} & set(copies)
    if len(there) < min(2, len(copies)):
        return False
    if sum(copies[allele] for allele in there) != sum(copies.values()):
        raise UnmatchedError("a third allele, which the score does not know")
    return True


def _palindromic(
    variant: ScoreVariant,
    copies: Mapping[str, int],
    palindromes: Palindromes,
    frequencies: Mapping[str, float],
) -> Copies:
    effect, other = variant.effect, variant.other
    if other is None or not _fits(effect, other, copies):
        raise UnmatchedError("other alleles than the score's")
    if palindromes is Palindromes.DROP:
        raise UnmatchedError("reads the same on both strands (A/T or C/G)")
    if palindromes is Palindromes.KEEP:
        return Copies(copies.get(effect, 0), palindromic=True)
    here, there = frequencies.get(effect), variant.frequency
    if here is None or there is None:
        raise UnmatchedError(
            "reads the same on both strands (A/T or C/G), and no frequencies tell which"
        )
    if min(abs(here - 0.5), abs(there - 0.5)) < AMBIGUOUS_FREQUENCY:
        raise UnmatchedError("reads the same on both strands, and is as frequent on either")
    flipped = (here > 0.5) != (there > 0.5)
    return Copies(copies.get(other if flipped else effect, 0), flipped, palindromic=True)


@dataclass(slots=True)
class RunningScore:
    """One patient's sum as it grows.

    Attributes:
        total: of the matched variants.
        matched: variants whose copies are known.
        flipped: of them, found on the other strand.
        palindromic: of them, that read the same on both strands.
        size: how much the matched variants can matter together.
        seen: numbers of the variants that were matched.
    """

    total: float = 0.0
    matched: int = 0
    flipped: int = 0
    palindromic: int = 0
    size: float = 0.0
    seen: set[int] = field(default_factory=set)

    def add(self, number: int, variant: ScoreVariant, copies: Copies) -> None:
        """Count a variant; a second time changes nothing."""
        if number in self.seen:
            return
        self.seen.add(number)
        self.total += variant.weights[min(copies.count, 2)]
        self.matched += 1
        self.flipped += copies.flipped
        self.palindromic += copies.palindromic
        self.size += variant.size
