"""`fedtwin client records …`: a hospital's records in, and what becomes of them."""

from pathlib import Path
from typing import Annotated

import typer

from fedtwin import client_streams
from fedtwin.client_codes import add_code_commands
from fedtwin.client_databases import omop
from fedtwin.client_genes import add_gene_commands
from fedtwin.client_hl7 import hl7
from fedtwin.client_images import add_image_commands
from fedtwin.client_live import live
from fedtwin.client_meds import export, meds
from fedtwin.client_patients import DEFAULT_HOME, Folder, erase, quarantine
from fedtwin.client_tables import propose, view
from fedtwin.paper import console, now, say
from fedtwin.reading_bar import reading_bar

records = typer.Typer(
    help="Read the hospital's records.\n\nExample: fedtwin client records fhir export/",
    rich_markup_mode=None,
)
records.command("erase")(erase)
records.command("quarantine")(quarantine)
records.command("live")(live)
records.command("hl7")(hl7)
records.command("omop")(omop)
records.command("propose")(propose)
records.command("view")(view)
records.command("meds")(meds)
records.command("export")(export)
add_gene_commands(records)
add_image_commands(records)
add_code_commands(records)
client_streams.register(records)


@records.command("fhir")
def records_fhir(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: NDJSON or bundles.")],
    home: Folder = DEFAULT_HOME,
    server: Annotated[str, typer.Option(help="A name for where they come from.")] = "fhir",
    zone: Annotated[str, typer.Option(help="Time zone of dates without one.")] = "UTC",
    identifier_system: Annotated[
        str | None,
        typer.Option(help="Whose number makes the pseudonym; without it Patient.id does."),
    ] = None,
) -> None:
    """Import FHIR R4 records; what was not used is counted with its reason.

    Example: fedtwin client records fhir export/ --server epic
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.store.imports import import_fhir

    place = NodeHome(folder=home)
    secret = site_secret(place)
    with reading_bar(paths) as progress:
        report = import_fhir(
            paths,
            place.records,
            secret=secret,
            now=now(),
            server=server,
            identifier_system=identifier_system,
            zone=zone,
            progress=progress,
        )
    say(*report.lines())


@records.command("table")
def records_table(
    table: Annotated[
        Path, typer.Argument(help="CSV or Parquet; FHIR files if the mapping names a view.")
    ],
    mapping: Annotated[Path, typer.Option(help="What its columns mean, YAML.")],
    home: Folder = DEFAULT_HOME,
) -> None:
    """Import a table with a mapping file; what was not used is counted with its reason.

    Example: fedtwin client records table visits.csv --mapping visits.yaml
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.store.imports import import_table

    place = NodeHome(folder=home)
    secret = site_secret(place)
    with console.status("reading"):
        report = import_table(table, mapping, place.records, secret=secret, now=now())
    say(*report.lines())
