"""`fedtwin client records omop`: records out of a hospital's database."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from fedtwin.paper import console, data_folder, now, say

Folder = Annotated[
    Path, typer.Option("--home", envvar="FEDTWIN_CLIENT_HOME", help="The node's folder.")
]
DEFAULT_HOME = data_folder("client")


def omop(
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE",
            help="Folder or .zip of CSV or Parquet, .duckdb file, postgresql://user@host/database.",
        ),
    ],
    home: Folder = DEFAULT_HOME,
    name: Annotated[str, typer.Option(help="A name for the database.")] = "omop",
    zone: Annotated[str, typer.Option(help="Time zone of times without one.")] = "UTC",
    identifier_system: Annotated[
        str | None,
        typer.Option(help="Whose number person_source_value is; without it person_id counts."),
    ] = None,
    schema: Annotated[str | None, typer.Option(help="Of the clinical tables.")] = None,
    vocabulary_schema: Annotated[
        str | None, typer.Option(help="Of the vocabularies, if another.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Of the server; without it ~/.pgpass is asked.")
    ] = None,
    timeout: Annotated[
        int, typer.Option(help="Seconds the server may work on one question.", min=1)
    ] = 3600,
    without: Annotated[
        list[str] | None, typer.Option(help="A table that is not there; what was read of it stays.")
    ] = None,
    delay: Annotated[
        list[str] | None, typer.Option(help="TABLE=DAYS until rows of a table became known.")
    ] = None,
) -> None:
    """Import an OMOP database, CDM 5.3 or 5.4; what was not used is counted with its reason.

    Example: fedtwin client records omop postgresql://reader@cdm.example/omop --schema cdm
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.omop.places import Way, omop_place
    from fedtwin_client.records.omop.source import Wishes, omop_source
    from fedtwin_client.records.source import check_source_name
    from fedtwin_client.store.imports import import_source

    node = NodeHome(folder=home)
    secret = site_secret(node)
    check_source_name(name)
    way = Way(
        schema=schema,
        vocabulary_schema=vocabulary_schema,
        password_file=password_file,
        timeout_s=timeout,
    )
    with console.status("reading") as status:
        wishes = Wishes(
            identifier_system=identifier_system,
            without=frozenset(without or ()),
            delays=_delays(delay or []),
            progress=lambda words: status.update(f"reading {words}"),
        )
        source = omop_source(omop_place(place, way), wishes)
        report = import_source(
            source, node.records, secret=secret, now=now(), source=name, zone=zone
        )
    say(*report.lines())


def _delays(written: list[str]) -> dict[str, timedelta]:
    found = {}
    for text in written:
        table, _, days = text.partition("=")
        if not days.isdecimal() or len(days) > 5:
            raise typer.BadParameter(
                f"expected TABLE=DAYS such as condition_occurrence=30, found '{text}'",
                param_hint="--delay",
            )
        found[table] = timedelta(days=int(days))
    return found
