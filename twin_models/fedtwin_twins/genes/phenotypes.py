"""From a diplotype to its phenotype and activity score.

The functions of the two alleles decide; what no table assigns is `Indeterminate` and is never
taken for normal. CYP2D6 is scored: the sum of the values of all gene copies, times their number
(`*10x2`), in bands (Caudle 2020, doi 10.1111/cts.12692). Where the sources give two values for an
allele, the score is left open, and the phenotype too unless both lead to the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fedtwin_twins.genes.genotypes import name_order
from fedtwin_twins.genes.tables import GeneTable

INDETERMINATE: Final = "Indeterminate"
"""The functions do not tell; CPIC's own term."""
_NORMAL: Final = re.compile(r"normal|1\.0\Z|favorable", re.IGNORECASE)
_COPIES: Final = re.compile(r"(?P<allele>.*?\d[^x]*?)\s*x\s*(?P<least>≥|>=)?\s*(?P<count>\d+|N)\Z")
_SUBALLELE: Final = re.compile(r"(\*\d+)\.\d+\Z")
_MOST_COPIES: Final = 20


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a diplotype stands for.

    Attributes:
        phenotype: none where the gene has no phenotypes in its table.
        activity_score: none for genes that are not scored, or if it is not known.
        at_least: the score is a lower bound (`*1x≥3`).
    """

    phenotype: str | None
    activity_score: float | None = None
    at_least: bool = False


def is_normal(table: GeneTable, allele: str) -> bool:
    """Whether an allele has the reference's kind of function, or is the reference."""
    function = table.functions.get(allele)
    if function is None:
        return any(item.name == allele and item.is_reference for item in table.alleles)
    return _NORMAL.search(function) is not None


def split_diplotype(text: str) -> list[str]:
    """The alleles of a written diplotype: `CYP2D6*1/*4` is `*1` and `*4`.

    Raises:
        ValueError: it is no diplotype.
    """
    parts = [re.sub(r"^[A-Z0-9-]+(?=\*)", "", part.strip()) for part in text.split("/")]
    if not 1 <= len(parts) <= 2 or not all(parts):
        raise ValueError("expected one allele, or two with '/' between them")
    return sorted(parts, key=name_order)


def meaning_of(table: GeneTable, alleles: Sequence[str]) -> Meaning:
    """What a pair of alleles stands for; the order does not matter.

    Args:
        table: of the gene.
        alleles: two names, or one where there is one chromosome.
    """
    if table.calling == "reported":
        return _scored(table, alleles)
    if not table.phenotypes:
        return Meaning(None)
    functions = [_function(table, name) for name in alleles]
    if any(function is None for function in functions):
        return Meaning(INDETERMINATE)
    found = table.phenotypes.get(tuple(sorted(function for function in functions if function)))
    return Meaning(INDETERMINATE) if found is None else Meaning(found.name, found.activity_score)


def _function(table: GeneTable, name: str) -> str | None:
    """The function of an allele, of a suballele (`*4.024`) as of its core allele."""
    plain = _SUBALLELE.sub(r"\1", name)
    return table.functions.get(name, table.functions.get(plain))


def _scored(table: GeneTable, alleles: Sequence[str]) -> Meaning:
    if len(alleles) != 2:
        return Meaning(INDETERMINATE)
    low = high = 0.0
    open_ended = False
    for name in alleles:
        for part in name.strip("[] ").split("+"):
            value, at_least = _copies(table, part.strip())
            if value is None:
                return Meaning(INDETERMINATE)
            low, high = low + value[0], high + value[1]
            open_ended = open_ended or (at_least and value[1] > 0)
    names = {_band(table, low), _band(table, high)}
    if open_ended:
        names.add(table.bands[-1].phenotype)
    phenotype = names.pop() if len(names) == 1 else INDETERMINATE
    unknown = low != high or (open_ended and phenotype == INDETERMINATE)
    return Meaning(phenotype, None if unknown else low, at_least=open_ended and not unknown)


def _band(table: GeneTable, score: float) -> str:
    return next((band.phenotype for band in table.bands if band.holds(score)), INDETERMINATE)


def _copies(table: GeneTable, text: str) -> tuple[tuple[float, float] | None, bool]:
    """The activity of all copies of one allele, and whether there may be more of them."""
    match = _COPIES.match(text)
    name, count, at_least = text, 1, False
    if match is not None:
        # xN is a number of copies that was not counted: a duplication has two at least.
        many = match["count"] == "N"
        name, count = match["allele"], 2 if many else int(match["count"])
        at_least = many or bool(match["least"])
    name = _SUBALLELE.sub(r"\1", name)
    value = table.values.get(name)
    if value is None or not 1 <= count <= _MOST_COPIES:
        return None, False
    return (value[0] * count, value[1] * count), at_least
