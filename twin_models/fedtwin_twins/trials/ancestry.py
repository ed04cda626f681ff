"""How common alleles are, by ancestry: a dated table, and the mix of ancestries in a population.

Ancestries are the superpopulations of the 1000 Genomes Project. They say where alleles are common;
they say nothing else about a person. A virtual patient has one ancestry: admixture is not modelled.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal

TABLE: Final = "allele_frequencies_2026-11-28.csv"
"""The table that is used; its name carries its date."""
Ancestry = Literal["AFR", "AMR", "EAS", "EUR", "SAS"]
ANCESTRIES: Final[Mapping[str, str]] = {
    "AFR": "African",
    "AMR": "admixed American",
    "EAS": "East Asian",
    "EUR": "European",
    "SAS": "South Asian",
}
REST: Final = "rest"
"""In the table: what the other alleles leave."""


@dataclass(frozen=True, slots=True)
class AlleleFrequencies:
    """The alleles of one gene in one ancestry.

    Attributes:
        gene: HGNC symbol.
        ancestry: one of `ANCESTRIES`.
        alleles: names, as the gene's table has them.
        frequencies: of each; their sum is 1.
        sources: where each is from.
    """

    gene: str
    ancestry: str
    alleles: tuple[str, ...]
    frequencies: tuple[float, ...]
    sources: tuple[str, ...]


def frequencies_of(gene: str, ancestry: str) -> AlleleFrequencies:
    """How common the alleles of a gene are.

    Raises:
        ValueError: the table has nothing about this gene in this ancestry.
    """
    table = built_in_frequencies()
    found = table.get((gene, ancestry))
    if found is None:
        there = sorted(one for name, one in table if name == gene)
        known = f"of {gene} there are {', '.join(there)}" if there else f"it has {_genes(table)}"
        raise ValueError(
            f"the allele frequencies ({TABLE}) say nothing about {gene} in {ancestry}: {known}"
        )
    return found


def _genes(table: Mapping[tuple[str, str], AlleleFrequencies]) -> str:
    return ", ".join(sorted({gene for gene, _ in table}))


@cache
def built_in_frequencies() -> Mapping[tuple[str, str], AlleleFrequencies]:
    """The table that comes with this package, by gene and ancestry."""
    return parse_frequencies((files(__package__) / "tables" / TABLE).read_text(encoding="utf-8"))


def parse_frequencies(text: str) -> Mapping[tuple[str, str], AlleleFrequencies]:
    """Read a table: CSV with gene, allele, ancestry, frequency, source, note.

    Args:
        text: one row in each gene and ancestry may have `rest` as its frequency.

    Raises:
        ValueError: frequencies are no shares, or do not add up to 1.
    """
    rows: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for row in csv.DictReader(text.splitlines()):
        key = (row["gene"], row["ancestry"])
        rows.setdefault(key, []).append((row["allele"], row["frequency"], row["source"]))
    return {key: _checked(key, found) for key, found in rows.items()}


def _checked(key: tuple[str, str], rows: list[tuple[str, str, str]]) -> AlleleFrequencies:
    where = f"{key[0]} in {key[1]}"
    names = tuple(name for name, _, _ in rows)
    if len(set(names)) != len(names):
        raise ValueError(f"expected every allele of {where} once")
    given = [float(share) for _, share, _ in rows if share != REST]
    rests = len(rows) - len(given)
    left = 1 - sum(given)
    if rests > 1 or min((*given, 0.0)) < 0 or left < -1e-9 or (rests == 0 and left > 1e-9):
        raise ValueError(f"expected frequencies of {where} with sum 1, found {1 - left:.4f}")
    shares = tuple(max(left, 0.0) if share == REST else float(share) for _, share, _ in rows)
    return AlleleFrequencies(*key, names, shares, tuple(source for _, _, source in rows))
