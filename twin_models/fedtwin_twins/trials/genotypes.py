"""Diplotypes of virtual patients by Hardy-Weinberg, and what they mean.

Both alleles are drawn independently of each other with the frequencies of the patient's ancestry
(Hardy 1908, doi 10.1126/science.28.706.49). Copy number is part of an allele's name, as CPIC writes
it: CYP2D6 `*5` is the deletion, `*1x2` two copies on one chromosome. Genes are drawn independently:
linkage between genes on one chromosome (CYP2C9 and CYP2C19) is not modelled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtwin_twins.genes.genotypes import name_order
from fedtwin_twins.genes.phenotypes import meaning_of
from fedtwin_twins.genes.tables import built_in_tables
from fedtwin_twins.trials.ancestry import frequencies_of
from fedtwin_twins.trials.streams import Integers, Streams


@dataclass(frozen=True, kw_only=True, slots=True)
class Genotypes:
    """One gene of some patients.

    Attributes:
        gene: HGNC symbol.
        diplotypes: the different diplotypes there are, sorted alleles with `/` between.
        phenotypes: of each of `diplotypes`, by the gene's table; `Indeterminate` where an allele's
            function is not known, empty where the gene has no phenotypes.
        scores: activity score of each; NaN where there is none.
        index: which one each patient has, (patients,).
    """

    gene: str
    diplotypes: tuple[str, ...]
    phenotypes: tuple[str, ...]
    scores: tuple[float, ...]
    index: Integers

    def diplotype(self) -> list[str]:
        """Of each patient."""
        return [self.diplotypes[place] for place in self.index]

    def phenotype(self) -> list[str]:
        """Of each patient."""
        return [self.phenotypes[place] for place in self.index]

    def count(self, allele: str) -> Integers:
        """How many chromosomes carry an allele, (patients,); copies on one count once."""
        each = np.array([name.split("/").count(allele) for name in self.diplotypes], dtype=np.int64)
        return each[self.index]

    def take(self, places: NDArray[np.int64]) -> "Genotypes":
        """The same of some of the patients."""
        return Genotypes(
            gene=self.gene,
            diplotypes=self.diplotypes,
            phenotypes=self.phenotypes,
            scores=self.scores,
            index=self.index[places],
        )


def draw_genotypes(
    genes: Sequence[str], ancestries: Sequence[str], index: Integers, streams: Streams
) -> Mapping[str, Genotypes]:
    """Draw diplotypes.

    Args:
        genes: HGNC symbols.
        ancestries: that occur.
        index: place in `ancestries` of each patient, (patients,).
        streams: of these patients.

    Raises:
        ValueError: the table of frequencies lacks a gene in an ancestry.
    """
    return {gene: _draw(gene, ancestries, index, streams) for gene in genes}


def _draw(gene: str, ancestries: Sequence[str], index: Integers, streams: Streams) -> Genotypes:
    tables = [frequencies_of(gene, ancestry) for ancestry in ancestries]
    names = sorted({name for table in tables for name in table.alleles}, key=name_order)
    shares = np.zeros((len(tables), len(names)))
    for row, table in enumerate(tables):
        for name, share in zip(table.alleles, table.frequencies, strict=True):
            shares[row, names.index(name)] = share
    pair = [streams.choices(f"gene {gene}", shares[index], strand) for strand in (0, 1)]
    low, high = np.minimum(*pair), np.maximum(*pair)
    found, place = np.unique(low * len(names) + high, return_inverse=True)
    couples = [(names[code // len(names)], names[code % len(names)]) for code in found]
    meanings = [meaning_of(built_in_tables()[gene], couple) for couple in couples]
    return Genotypes(
        gene=gene,
        diplotypes=tuple("/".join(couple) for couple in couples),
        phenotypes=tuple(meaning.phenotype or "" for meaning in meanings),
        scores=tuple(
            float("nan") if meaning.activity_score is None else meaning.activity_score
            for meaning in meanings
        ),
        index=place.astype(np.int64),
    )
