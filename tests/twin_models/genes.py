"""Genotypes for tests: the reference everywhere, but for what a test says."""

from pathlib import Path

from fedtwin_twins.genes.calling import GeneCall, call_gene
from fedtwin_twins.genes.genotypes import Genotype
from fedtwin_twins.genes.tables import built_in_tables

SHARED = Path(__file__).parents[3] / "shared"


def call(gene: str, missing: str = "", *, combinations: bool = False, **variants: str) -> GeneCall:
    """Call a gene.

    Args:
        gene: its symbol.
        combinations: name combined and partial alleles.
        missing: rsids that are not covered, separated by spaces.
        variants: rsid to genotype: `A/G`, `A|G`, `A|G@7` for phase set 7, or one base.
    """
    table = built_in_tables()[gene]
    by_rsid = {locus.rsid: locus for locus in table.loci}
    given = {locus.position: Genotype((locus.reference, locus.reference)) for locus in table.loci}
    for rsid, text in variants.items():
        bases, _, phase_set = text.partition("@")
        alleles = tuple(
            None if base == "." else base for base in bases.replace("|", "/").split("/")
        )
        given[by_rsid[rsid].position] = Genotype(alleles, "|" in bases, phase_set or None)
    for rsid in missing.split():
        del given[by_rsid[rsid].position]
    return call_gene(table, given, combinations=combinations)
