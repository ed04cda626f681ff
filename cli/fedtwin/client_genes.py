"""`fedtwin client records genome`, `pharmcat` and `polygenic`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.paper import console, data_folder, now, say
from fedtwin.reading_bar import bytes_bar

if TYPE_CHECKING:
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.people import People
    from fedtwin_client.records.report import ImportReport
    from fedtwin_client.records.source import OpenSource

Folder = Annotated[
    Path, typer.Option("--home", envvar="FEDTWIN_CLIENT_HOME", help="The node's folder.")
]
Patient = Annotated[
    str | None, typer.Option(help="The number of the patient whose one sample it is.")
]
Date = Annotated[
    str | None, typer.Option(help="When that sample was taken, 2026-03-01; never made up.")
]
Reported = Annotated[
    str | None, typer.Option(help="When the result became known; without it, with the sample.")
]
Samples = Annotated[
    Path | None,
    typer.Option(help="For several samples: CSV with sample,patient,date (and reported)."),
]
System = Annotated[
    str | None,
    typer.Option(help="Whose number the patient's is; if only one kind is known here, none."),
]
Zone = Annotated[str, typer.Option(help="Time zone of dates without one.")]
Tables = Annotated[
    Path | None, typer.Option(help="A folder of newer gene tables; see docs/sources/genome.md.")
]
Filtered = Annotated[
    bool, typer.Option("--keep-filtered", help="Also use lines whose FILTER is not PASS.")
]
Vcf = Annotated[list[Path], typer.Argument(help="VCF 4 files, plain or gzipped.")]
DEFAULT_HOME = data_folder("client")


def add_gene_commands(records: typer.Typer) -> None:
    """Put the commands of this module below `fedtwin client records`."""
    for command in (genome, pharmcat, polygenic):
        records.command(command.__name__)(command)


def genome(
    files: Vcf,
    home: Folder = DEFAULT_HOME,
    patient: Patient = None,
    date: Date = None,
    reported: Reported = None,
    samples: Samples = None,
    identifier_system: System = None,
    zone: Zone = "UTC",
    tables: Tables = None,
    least_depth: Annotated[
        int, typer.Option(min=0, help="Genotypes with fewer reads are not used; 0 asks for none.")
    ] = 0,
    keep_filtered: Filtered = False,
    combinations: Annotated[
        bool,
        typer.Option("--combinations", help="Name combined alleles where no named ones fit."),
    ] = False,
) -> None:
    """Call the genes that drugs depend on from VCF files (GRCh38).

    Example: fedtwin client records genome 4711.vcf.gz --patient 4711 --date 2026-03-01
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.genome.gene_sets import gene_tables
    from fedtwin_client.records.genome.vcf import GenomeOptions, variant_files

    place = NodeHome(folder=home)
    people = _people(place, patient, date, reported, samples, identifier_system)
    options = GenomeOptions(
        least_depth=least_depth, keep_filtered=keep_filtered, combinations=combinations
    )
    genes = gene_tables(tables)
    with bytes_bar(_size(files)) as told:
        report = _imported(place, variant_files(files, people, genes, options, told), zone)
    say(*report.lines())


def pharmcat(
    files: Annotated[
        list[Path],
        typer.Argument(help="PharmCAT's report.tsv or phenotype.json, or reported calls (TSV)."),
    ],
    home: Folder = DEFAULT_HOME,
    patient: Patient = None,
    date: Date = None,
    reported: Reported = None,
    samples: Samples = None,
    identifier_system: System = None,
    zone: Zone = "UTC",
    tables: Tables = None,
) -> None:
    """Import genes that were called elsewhere: PharmCAT's reports, reported diplotypes.

    Example: fedtwin client records pharmcat 4711.report.tsv --patient 4711 --date 2026-03-01
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.genome.gene_reports import gene_reports
    from fedtwin_client.records.genome.gene_sets import gene_tables

    place = NodeHome(folder=home)
    people = _people(place, patient, date, reported, samples, identifier_system)
    _import(place, gene_reports(files, people, gene_tables(tables)), zone, "reading")


def polygenic(
    files: Vcf,
    score: Annotated[
        Path, typer.Option(help="A scoring file of the PGS Catalog, best harmonised (hmPOS).")
    ],
    home: Folder = DEFAULT_HOME,
    patient: Patient = None,
    date: Date = None,
    reported: Reported = None,
    samples: Samples = None,
    identifier_system: System = None,
    zone: Zone = "UTC",
    palindromes: Annotated[
        str, typer.Option(help="A/T and C/G variants: frequency, keep or drop.")
    ] = "frequency",
    least_coverage: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of the weights below which it is put aside."),
    ] = 0.75,
    keep_filtered: Filtered = False,
) -> None:
    """Make a polygenic score of each patient from VCF files.

    Example: fedtwin client records polygenic 4711.vcf.gz --score PGS000018_hmPOS_GRCh38.txt.gz
    --patient 4711 --date 2026-03-01
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.genome.polygenic import PolygenicOptions, polygenic_scores
    from fedtwin_twins.genes.polygenic import Palindromes

    if palindromes not in set(Palindromes):
        raise typer.BadParameter(f"expected frequency, keep or drop, found {palindromes}")
    place = NodeHome(folder=home)
    people = _people(place, patient, date, reported, samples, identifier_system)
    options = PolygenicOptions(
        palindromes=Palindromes(palindromes),
        least_coverage=least_coverage,
        keep_filtered=keep_filtered,
    )
    with bytes_bar(_size(files)) as told:
        opening = polygenic_scores(files, score, people, options, told)
        report = _imported(place, opening, zone)
    say(*report.lines())


def _import(place: "NodeHome", opening: "OpenSource", zone: str, doing: str) -> None:
    with console.status(doing):
        report = _imported(place, opening, zone)
    say(*report.lines())


def _imported(place: "NodeHome", opening: "OpenSource", zone: str) -> "ImportReport":
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.store.imports import import_source

    secret = site_secret(place)
    return import_source(
        opening, place.records, secret=secret, now=now(), source="genome", zone=zone
    )


def _size(files: Sequence[Path]) -> int:
    """Bytes of files; one that is not there is told of when it is read."""
    return sum(file.stat().st_size for file in files if file.is_file())


def _people(
    place: "NodeHome",
    patient: str | None,
    date: str | None,
    reported: str | None,
    samples: Path | None,
    system: str | None,
) -> "People":
    """Whose samples they are, as the options say.

    Raises:
        typer.BadParameter: neither or both of --patient and --samples.
    """
    from fedtwin_client.records.people import one_person, read_people
    from fedtwin_client.store.whose import whose_numbers

    if (patient is None) == (samples is None):
        raise typer.BadParameter("give --patient and --date, or --samples")
    whose = whose_numbers(place.records, system)
    if samples is not None:
        if date or reported:
            raise typer.BadParameter("with --samples, dates stand in its file")
        return read_people(samples, whose)
    assert patient is not None
    return one_person(patient, date, reported, whose)
