"""What is known of a pharmacogene: its positions, named alleles, functions and phenotypes.

A table is one JSON file for each gene (format `fedtwin-gene-table/1`, written by
scripts/gene_tables.py); those that come with this package are in `tables/`, with version, source
and licence in each. A site may hand in newer ones.

How a gene is called:

- `diplotype`: two named alleles, each a full set of bases (PharmVar star alleles);
- `variants`: every variant by itself, the lowest activity of each strand counts (DPYD; Amstutz
  2018, doi 10.1002/cpt.911);
- `reported`: never from positions, only from a reported diplotype with copy numbers (CYP2D6).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, cast

FORMAT: Final = "fedtwin-gene-table/1"
BUILD: Final = "GRCh38"
Calling = Literal["diplotype", "variants", "reported"]
_WOBBLES: Final = {
    **{"R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC"},
    **{"B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT"},
}
_LARGEST: Final = 8_000_000


@dataclass(frozen=True, slots=True)
class Locus:
    """A position of a gene, as VCF writes it: leftmost, with as few bases as can be.

    Attributes:
        position: of the first base, from 1.
        rsid: of dbSNP, if it has one.
        reference: the bases of the reference genome.
        alternatives: the bases that named alleles have instead.
    """

    position: int
    rsid: str | None
    reference: str
    alternatives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NamedAllele:
    """A haplotype with a name.

    Attributes:
        name: such as `*2`.
        shown_as: the core allele that it is reported as; mostly its name.
        bases: what defines it, by position; IUPAC letters and `A or AG` stand for several.
        is_reference: every position has the reference genome's bases.
    """

    name: str
    shown_as: str
    bases: Mapping[int, str]
    is_reference: bool


@dataclass(frozen=True, slots=True)
class Phenotype:
    """What a pair of functions means; the score is there for genes that are scored."""

    name: str
    activity_score: float | None


@dataclass(frozen=True, slots=True)
class PairedVariants:
    """Two variants that are read together, the first as a stand-in (DPYD HapB3: exon, intron)."""

    stand_in: int
    decisive: int
    both: str
    decisive_alone: str


@dataclass(frozen=True, slots=True)
class Band:
    """Scores below a bound, or up to and with it, have a phenotype; neither: all the rest."""

    phenotype: str
    below: float | None = None
    up_to: float | None = None

    def holds(self, score: float) -> bool:
        """Whether the band reaches up to a score."""
        if self.below is not None:
            return score < self.below
        return self.up_to is None or score <= self.up_to


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneTable:
    """All about one gene.

    Attributes:
        gene: HGNC symbol.
        hgnc: HGNC number.
        version: date of the definitions.
        source: where they are from.
        chromosome: with `chr`.
        calling: how the gene is called.
        loci: positions, in order.
        alleles: named alleles, the reference first.
        functions: of named alleles; an activity value as text for genes that are scored.
        phenotypes: by sorted functions; one function where there is one chromosome.
        essential: alleles that must be told from normal ones before a phenotype is given.
        undocumented_as_reference: bases that no allele has are read as the reference.
        reference_bases: what is known of the reference around the positions.
        paired: two variants that are read together.
        one_position: position and base to allele, for a phenotype where no diplotype fits.
        values: for reported genes: lowest and highest activity of each allele; none: unknown.
        bands: for reported genes: phenotypes by score.
    """

    gene: str
    hgnc: int
    version: str
    source: str
    chromosome: str
    calling: Calling
    loci: tuple[Locus, ...] = ()
    alleles: tuple[NamedAllele, ...] = ()
    functions: Mapping[str, str] = field(default_factory=dict)
    phenotypes: Mapping[tuple[str, ...], Phenotype] = field(default_factory=dict)
    essential: tuple[str, ...] = ()
    undocumented_as_reference: bool = False
    reference_bases: Mapping[int, str] = field(default_factory=dict)
    paired: PairedVariants | None = None
    one_position: tuple[int, Mapping[str, str]] | None = None
    values: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    bands: tuple[Band, ...] = ()


def possible_bases(text: str) -> frozenset[str]:
    """The bases that a definition allows: one, those of an IUPAC letter, or `A or AG`."""
    if " or " in text:
        return frozenset(text.split(" or "))
    return frozenset(_WOBBLES.get(text, (text,)))


@cache
def built_in_tables() -> Mapping[str, GeneTable]:
    """The tables that come with this package, by gene."""
    folder = files(__package__) / "tables"
    found = [
        parse_table(item.read_text(encoding="utf-8"), item.name)
        for item in folder.iterdir()
        if item.name.endswith(".json")
    ]
    return {table.gene: table for table in sorted(found, key=lambda table: table.gene)}


def parse_table(text: str, where: str) -> GeneTable:
    """Read one table.

    Args:
        text: JSON of the format `fedtwin-gene-table/1`.
        where: its name, for the error.

    Raises:
        ValueError: it is something else, or not in itself consistent.
    """
    if len(text) > _LARGEST:
        raise ValueError(f"expected a gene table of at most {_LARGEST} characters: {where}")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON in {where}: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ValueError(
            f"expected a gene table of the format {FORMAT} in {where}; "
            "scripts/gene_tables.py writes it from PharmCAT's definitions"
        )
    if raw.get("build") != BUILD:
        raise ValueError(f"expected positions of {BUILD} in {where}, found {raw.get('build')}")
    try:
        table = _table(raw)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(f"cannot read {where} at {type(error).__name__} {error}") from error
    _check(table, where)
    return table


def _table(raw: dict[str, Any]) -> GeneTable:
    loci = tuple(
        Locus(int(position), rsid, str(reference), tuple(map(str, alternatives)))
        for position, rsid, reference, alternatives in raw.get("loci", ())
    )
    calling = raw["calling"]
    if calling not in {"diplotype", "variants", "reported"}:
        raise ValueError(f"calling '{calling}'")
    one = raw.get("one_position")
    return GeneTable(
        gene=str(raw["gene"]),
        hgnc=int(raw["hgnc"]),
        version=str(raw["version"]),
        source=str(raw["source"]),
        chromosome=str(raw["chromosome"]),
        calling=cast(Calling, calling),
        loci=tuple(sorted(loci, key=lambda locus: locus.position)),
        alleles=tuple(_allele(item, loci) for item in raw.get("alleles", ())),
        functions=dict(raw.get("functions", {})),
        phenotypes={
            tuple(key): Phenotype(str(name), None if score is None else float(score))
            for key, name, score in raw.get("phenotypes", ())
        },
        essential=tuple(raw.get("essential", ())),
        undocumented_as_reference=bool(raw.get("undocumented_as_reference", False)),
        reference_bases=_bases(raw.get("reference_bases", ()), loci),
        paired=_paired(raw["paired"]) if "paired" in raw else None,
        one_position=None if one is None else (int(one["position"]), dict(one["alleles"])),
        values={name: _range(value) for name, value in raw.get("values", {}).items()},
        bands=tuple(Band(**item) for item in raw.get("bands", ())),
    )


def _allele(item: dict[str, Any], loci: tuple[Locus, ...]) -> NamedAllele:
    reference = bool(item.get("reference", False))
    bases = {int(position): str(base) for position, base in item.get("bases", {}).items()}
    if reference:
        bases = {locus.position: locus.reference for locus in loci}
    name = str(item["name"])
    return NamedAllele(name, str(item.get("shown_as", name)), bases, reference)


def _bases(windows: Any, loci: tuple[Locus, ...]) -> dict[int, str]:
    found = {}
    starts = [*windows, *((locus.position, locus.reference) for locus in loci)]
    for start, text in starts:
        found.update({int(start) + index: base for index, base in enumerate(text)})
    return found


def _paired(item: dict[str, Any]) -> PairedVariants:
    stand_in, decisive = item["positions"]
    return PairedVariants(int(stand_in), int(decisive), str(item["both"]), str(item["intronic"]))


def _range(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    low, high = value if isinstance(value, list) else (value, value)
    return float(low), float(high)


def _check(table: GeneTable, where: str) -> None:
    if table.calling == "reported":
        if not table.values or not table.bands:
            raise ValueError(f"expected values and bands of {table.gene} in {where}")
        return
    known = {locus.position: {locus.reference, *locus.alternatives} for locus in table.loci}
    positions = set(known)
    if len(positions) != len(table.loci) or not positions:
        raise ValueError(f"expected every position of {table.gene} once in {where}")
    if sum(allele.is_reference for allele in table.alleles) != 1:
        raise ValueError(f"expected one reference allele of {table.gene} in {where}")
    for allele in table.alleles:
        unknown = sorted(set(allele.bases) - positions)
        if unknown:
            raise ValueError(
                f"{allele.name} of {table.gene} has position {unknown[0]}, which {where} "
                "does not list among its loci"
            )
        for position, text in allele.bases.items():
            # A definition that no genotype can meet would hide its allele without a word.
            if strange := sorted(possible_bases(text) - known[position]):
                raise ValueError(
                    f"{allele.name} of {table.gene} has {strange[0]} at {position}, where {where} "
                    f"lists {', '.join(sorted(known[position]))} among its loci"
                )
    names = {allele.name for allele in table.alleles}
    unknown_names = [name for name in table.essential if name not in names]
    if unknown_names:
        raise ValueError(f"{where} has no allele {unknown_names[0]} that it calls essential")
