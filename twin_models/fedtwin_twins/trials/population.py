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


class Population(Part):
    """Who takes part in a trial."""

    ancestry: Annotated[
        dict[Ancestry, Annotated[float, Field(gt=0, le=1)]],
        Field(min_length=1, description="share of each 1000 Genomes superpopulation; sum 1"),
    ]
    covariates: Annotated[
        tuple[Covariate, ...], Field(description="marginals; or none, if rows are handed in")
    ] = ()
    correlations: Annotated[
        tuple[Correlation, ...], Field(description="of the normal numbers behind two covariates")
    ] = ()
    genes: Annotated[
        tuple[str, ...], Field(description="HGNC symbols of the genes that are drawn")
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
            ("conditions", [one.name for one in self.conditions]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{kind}: {twice[0]} is there twice")
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
    if (rows is None) == (not population.covariates):
        raise ValueError("expected covariates in the plan, or rows handed in, and not both")
    names = tuple(population.ancestry)
    shares = np.array([population.ancestry[name] for name in names])
    ancestry = streams.choices("ancestry", shares / shares.sum())
    each = [names[place] for place in ancestry]
    if rows is None:
        drawn = draw_covariates(population.covariates, population.correlations, each, streams)
        units: Mapping[str, str] = {one.name: one.unit for one in population.covariates}
    else:
        drawn, units = draw_rows(rows, streams), rows.units
    conditions, covariates = draw_conditions(population.conditions, drawn, streams)
    return VirtualPatients(
        numbers=np.arange(streams.first, streams.first + streams.count),
        ancestries=names,
        ancestry=ancestry,
        covariates=covariates,
        units=units,
        genotypes=draw_genotypes(population.genes, names, ancestry, streams),
        conditions=conditions,
    )
