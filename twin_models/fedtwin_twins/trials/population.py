"""A population of virtual patients: what is known of each before the trial begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from fedtwin_twins.trials.adherence import Adherence
from fedtwin_twins.trials.ancestry import Ancestry, frequencies_of
from fedtwin_twins.trials.conditions import Condition, Flags, draw_conditions
from fedtwin_twins.trials.covariates import (
    Correlation,
    Covariate,
    Rows,
    correlation_root,
    draw_covariates,
    draw_rows,
)
from fedtwin_twins.trials.dropout import Dropout
from fedtwin_twins.trials.genotypes import Genotypes, draw_genotypes
from fedtwin_twins.trials.parts import Part
from fedtwin_twins.trials.streams import Floats, Integers, Streams


class GeneCovariate(Part):
    """A covariate that follows from a diplotype, for models that ask for a number."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    gene: str
    by_phenotype: Annotated[
        dict[str, float],
        Field(default_factory=dict, description="the number for each phenotype that occurs"),
    ]
    by_allele: Annotated[
        dict[str, float],
        Field(default_factory=dict, description="the sum over both chromosomes; others count 0"),
    ]

    @model_validator(mode="after")
    def _one_way(self) -> "GeneCovariate":
        if bool(self.by_phenotype) == bool(self.by_allele):
            raise ValueError(f"{self.name}: expected by_phenotype or by_allele")
        return self

    def values(self, found: Genotypes) -> Floats:
        """Of each patient, (patients,).

        Raises:
            ValueError: a phenotype occurs for which there is no number.
        """
        if self.by_allele:
            counted = [share * found.count(allele) for allele, share in self.by_allele.items()]
            return np.asarray(np.sum(counted, axis=0), dtype=np.float64)
        there = {found.phenotypes[place] for place in found.index}
        if unknown := sorted(there - set(self.by_phenotype)):
            raise ValueError(
                f"{self.name}: by_phenotype has no number for {self.gene} '{unknown[0]}', which "
                "occurs in this population"
            )
        return np.array([self.by_phenotype[one] for one in found.phenotype()], dtype=np.float64)


class RowsFile(Part):
    """Covariates of real patients in a CSV file, to draw whole rows from."""

    file: Annotated[str, Field(min_length=1, description="CSV, beside the plan or absolute")]
    units: Annotated[
        dict[str, str], Field(min_length=1, description="UCUM of every column that is read")
    ]
    sha256: Annotated[
        str | None, Field(pattern=r"^[0-9a-f]{64}$", description="refuse any other file")
    ] = None
    source: Annotated[str, Field(min_length=3)]


class Population(Part):
    """Who takes part in a trial."""

    ancestry: Annotated[
        dict[Ancestry, Annotated[float, Field(gt=0, le=1)]],
        Field(min_length=1, description="share of each 1000 Genomes superpopulation; sum 1"),
    ]
    covariates: Annotated[
        tuple[Covariate, ...], Field(description="marginals; or none, if there are rows")
    ] = ()
    rows: Annotated[
        RowsFile | None, Field(description="real patients to draw from, in place of marginals")
    ] = None
    correlations: Annotated[
        tuple[Correlation, ...], Field(description="of the normal numbers behind two covariates")
    ] = ()
    genes: Annotated[
        tuple[str, ...], Field(description="HGNC symbols of the genes that are drawn")
    ] = ()
    gene_covariates: Annotated[
        tuple[GeneCovariate, ...],
        Field(description="numbers that models ask for in place of genes"),
    ] = ()
    conditions: tuple[Condition, ...] = ()
    adherence: Adherence = Adherence(taken_share=1.0)
    dropout: Dropout = Dropout(share=0.0, by_day=1.0)

    @model_validator(mode="after")
    def _adds_up(self) -> "Population":
        total = sum(self.ancestry.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"ancestry: expected shares with sum 1, found {total:g}")
        for kind, names in (
            ("covariates", [one.name for one in self.covariates]),
            ("genes", list(self.genes)),
            ("gene_covariates", [one.name for one in self.gene_covariates]),
            ("conditions", [one.name for one in self.conditions]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{kind}: {twice[0]} is there twice")
        for one in self.gene_covariates:
            if one.gene not in self.genes:
                raise ValueError(f"gene_covariates: {one.name} needs {one.gene} among the genes")
        if (self.rows is None) == (not self.covariates):
            raise ValueError("expected covariates or rows, and not both")
        correlation_root(self.covariates, self.correlations)
        for gene in self.genes:
            for ancestry in self.ancestry:
                frequencies_of(gene, ancestry)
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtualPatients:
    """A batch of virtual patients before randomisation; nothing in here comes later.

    Attributes:
        numbers: of each patient within the replicate, (patients,).
        ancestries: names that `ancestry` points at.
        ancestry: of each patient, (patients,).
        covariates: by name, (patients,) each.
        units: UCUM, by covariate.
        genotypes: by gene.
        conditions: by name, (patients,) each.
    """

    numbers: Integers
    ancestries: tuple[str, ...]
    ancestry: Integers
    covariates: Mapping[str, Floats]
    units: Mapping[str, str]
    genotypes: Mapping[str, Genotypes]
    conditions: Mapping[str, Flags]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, places: Integers) -> "VirtualPatients":
        """Some of them, by place."""
        return VirtualPatients(
            numbers=self.numbers[places],
            ancestries=self.ancestries,
            ancestry=self.ancestry[places],
            covariates={name: column[places] for name, column in self.covariates.items()},
            units=self.units,
            genotypes={gene: found.take(places) for gene, found in self.genotypes.items()},
            conditions={name: flags[places] for name, flags in self.conditions.items()},
        )


def draw_population(
    population: Population, streams: Streams, rows: Rows | None = None
) -> VirtualPatients:
    """Draw virtual patients.

    Args:
        population: who takes part.
        streams: the chance of these patients.
        rows: covariates of real patients to draw from, instead of marginals.

    Raises:
        ValueError: the plan names a covariate that there is not, or rows and marginals are given.
    """
    if (rows is None) != (population.rows is None):
        raise ValueError("expected rows to be handed in if the plan draws from rows, and only then")
    names = tuple(population.ancestry)
    shares = np.array([population.ancestry[name] for name in names])
    ancestry = streams.choices("ancestry", shares / shares.sum())
    each = [names[place] for place in ancestry]
    if rows is None:
        drawn = draw_covariates(population.covariates, population.correlations, each, streams)
        units: Mapping[str, str] = {one.name: one.unit for one in population.covariates}
    else:
        drawn, units = draw_rows(rows, streams), rows.units
    genotypes = draw_genotypes(population.genes, names, ancestry, streams)
    for one in population.gene_covariates:
        drawn[one.name] = one.values(genotypes[one.gene])
    units = {**units, **{one.name: "1" for one in population.gene_covariates}}
    conditions, covariates = draw_conditions(population.conditions, drawn, streams)
    return VirtualPatients(
        numbers=streams.numbers,
        ancestries=names,
        ancestry=ancestry,
        covariates=covariates,
        units=units,
        genotypes=genotypes,
        conditions=conditions,
    )
