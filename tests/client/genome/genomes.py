"""VCF files for tests: all positions of some genes as the reference, but for what a test says."""

import gzip
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fedtwin_client.records.events import Event
from fedtwin_client.records.genome.gene_sets import gene_tables
from fedtwin_client.records.genome.vcf import GenomeOptions, variant_files
from fedtwin_client.records.people import People, one_person
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Desk, OpenSource

SHARED = Path(__file__).parents[4] / "shared"
EXAMPLES = SHARED / "data" / "pharmcat" / "examples"
NOW = datetime(2026, 11, 1, tzinfo=UTC)
SECRET = b"s" * 32
ONE = one_person("4711", "2026-01-02", None, "urn:mrn")
HEADER = "##fileformat=VCFv4.2\n##contig=<ID=chr10,length=133797422>\n"
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t"


def desk(quarantine: Path | None = None) -> Desk:
    """Of an import that nothing is stored of."""
    reading = Reading(
        source="genome", zone=ZoneInfo("UTC"), now=NOW, tally=Tally(quarantine=quarantine)
    )
    return Desk(reading=reading, pseudonyms=Pseudonyms(SECRET), known={})


def reference_lines(genes: str, but: str = "") -> list[str]:
    """Lines of all positions of genes, homozygous for the reference.

    Args:
        genes: symbols, separated by spaces.
        but: rsids whose lines are left out.
    """
    return [
        line(table.chromosome, locus.position, locus.reference, ",".join(locus.alternatives))
        for gene in genes.split()
        for table in [gene_tables(None)[gene]]
        for locus in table.loci
        if locus.rsid not in but.split()
    ]


def line(
    chromosome: str,
    position: int,
    reference: str,
    alternatives: str,
    genotype: str = "0/0",
    **fields: str,
) -> str:
    """One line; `fields`: id, filter, info, format."""
    return "\t".join(
        [
            *(chromosome, str(position), fields.get("id", "."), reference, alternatives, "."),
            *(fields.get("filter", "PASS"), fields.get("info", "."), fields.get("format", "GT")),
            genotype,
        ]
    )


def write(
    folder: Path,
    lines: Sequence[str],
    *,
    header: str = HEADER,
    samples: str = "S1",
    name: str = "one.vcf",
) -> Path:
    """A VCF file; gzipped if its name says so."""
    text = header + COLUMNS + samples + "\n" + "".join(f"{text}\n" for text in lines)
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    return path


def called(
    path: Path, people: People = ONE, **options: Any
) -> tuple[dict[str, dict[str, Event]], Tally]:
    """Events by gene and part (`diplotype`, `phenotype`, `activity-score`), and the account."""
    return events_of(variant_files([path], people, gene_tables(None), GenomeOptions(**options)))


def events_of(opening: OpenSource) -> tuple[dict[str, dict[str, Event]], Tally]:
    """Events of all versions by the last part of their origin."""
    lent = desk()
    found: dict[str, dict[str, Event]] = {}
    for version in opening(lent).versions():
        part = version.origin.rpartition("/")[2]
        for event in version.events:
            assert event.source.startswith(version.origin + "#")
            found.setdefault(part, {})[event.source.partition("#")[2]] = event
    return found, lent.reading.tally


TWO = ("chr10", 94775367, "A", "G"), ("chr10", 94781859, "G", "A"), ("chr10", 94842866, "A", "G")


def heterozygous_two(**fields: str) -> list[str]:
    """CYP2C19 *1/*2, every other position as the reference."""
    lines = reference_lines("CYP2C19", but="rs12769205 rs4244285 rs3758581")
    for place, genotype in zip(TWO, ("0/1", "0/1", "1/1"), strict=True):
        lines.append(line(*place, genotype, **fields))
    return lines
