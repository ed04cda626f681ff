"""`fedtwin client records …`: a hospital's records in, and what becomes of them."""

from pathlib import Path
from typing import Annotated

import typer

from fedtwin import client_fhir, client_quarantine, client_streams
from fedtwin.client_codes import add_code_commands
from fedtwin.client_databases import omop
from fedtwin.client_genes import add_gene_commands
from fedtwin.client_hl7 import hl7
from fedtwin.client_images import add_image_commands
from fedtwin.client_live import live
from fedtwin.client_meds import export, meds
from fedtwin.client_patients import DEFAULT_HOME, EvenOlder, Folder, erase, merged, unmerge
from fedtwin.client_tables import propose, view
from fedtwin.paper import console, now, say

records = typer.Typer(
    help="Read the hospital's records.\n\nExample: fedtwin client records fhir export/",
    rich_markup_mode=None,
)
records.command("erase")(erase)
records.command("merged")(merged)
records.command("unmerge")(unmerge)
client_fhir.register(records)
client_quarantine.register(records)
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


@records.command("table")
def records_table(
    table: Annotated[
        Path, typer.Argument(help="CSV or Parquet; FHIR files if the mapping names a view.")
    ],
    mapping: Annotated[Path, typer.Option(help="What its columns mean, YAML.")],
    home: Folder = DEFAULT_HOME,
    even_older: EvenOlder = False,
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
        report = import_table(
            table, mapping, place.records, secret=secret, now=now(), even_older=even_older
        )
    say(*report.lines())
