"""`fedtwin client records fhir`, `fhir-server` and `fhir-key`: FHIR from files and servers."""

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedtwin.client_patients import DEFAULT_HOME, EvenOlder, Folder
from fedtwin.paper import console, now, say
from fedtwin.reading_bar import reading_bar

Systems = Annotated[
    list[str] | None,
    typer.Option(
        "--identifier-system",
        help="Whose number makes the pseudonym; several: the first that a patient has. Without it "
        "Patient.id does.",
    ),
]
Zone = Annotated[str, typer.Option(help="Time zone of dates without one.")]


class KeyKind(StrEnum):
    """How a key signs."""

    ES384 = "ES384"
    RS384 = "RS384"


class Level(StrEnum):
    """Whose records an export holds."""

    PATIENT = "patient"
    SYSTEM = "system"


def register(records: typer.Typer) -> None:
    """Put this module's commands among those of `fedtwin client records`."""
    records.command("fhir")(fhir)
    records.command("fhir-server")(fhir_server)
    records.command("fhir-key")(fhir_key)


def fhir(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: NDJSON or bundles.")],
    home: Folder = DEFAULT_HOME,
    server: Annotated[str, typer.Option(help="A name for where they come from.")] = "fhir",
    zone: Zone = "UTC",
    identifier_system: Systems = None,
    even_older: EvenOlder = False,
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
            even_older=even_older,
        )
    say(*report.lines())


def fhir_server(
    url: Annotated[str, typer.Argument(help="The server's base address, https.")],
    home: Folder = DEFAULT_HOME,
    name: Annotated[str, typer.Option(help="Of the server at this site.")] = "fhir",
    client_id: Annotated[
        str | None,
        typer.Option(help="That the server gave this node; without it no token is asked for."),
    ] = None,
    scopes: Annotated[str, typer.Option(help="Asked for with the token.")] = "system/*.read",
    group: Annotated[str | None, typer.Option(help="Only this group's patients.")] = None,
    level: Annotated[Level, typer.Option(help="All patients, or all there is.")] = Level.PATIENT,
    kinds: Annotated[
        list[str] | None, typer.Option("--type", help="A resource type; several times.")
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="Only these of a type, Type?name=value; several times."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only what changed after: a time, or 'last'.")
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Fetch by paged search: the server has no export.")
    ] = False,
    page: Annotated[int, typer.Option(help="Resources a page of a search.", min=1)] = 500,
    ca: Annotated[
        Path | None, typer.Option(help="The CA that vouches for the server, PEM.")
    ] = None,
    proxy: Annotated[str | None, typer.Option(help="http://host:port on the way.")] = None,
    zone: Zone = "UTC",
    identifier_system: Systems = None,
) -> None:
    """Fetch records from a FHIR server and import them; run again, it goes on where it was.

    Example: fedtwin client records fhir-server https://fhir.st-olav.example/r4 --client-id fedtwin
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.fhir_import import FhirServer, import_from_server
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.fhir.server.web import Clock

    place = NodeHome(folder=home)
    secret = site_secret(place)
    wanted = FhirServer(
        url=url,
        name=name,
        client_id=client_id,
        scopes=scopes,
        ca=ca,
        proxy=proxy,
        search=search,
        group=group,
        patients=level is Level.PATIENT,
        types=tuple(kinds or ()),
        filters=tuple(filters or ()),
        since=since,
        page=page,
        systems=tuple(identifier_system or ()),
        zone=zone,
    )
    with console.status("asking the server") as status:
        lines = import_from_server(
            place, secret, wanted, Clock(now=now, wait=time.sleep), status.update
        )
    say(*lines)


def fhir_key(
    home: Folder = DEFAULT_HOME,
    name: Annotated[str, typer.Option(help="Of the server at this site.")] = "fhir",
    algorithm: Annotated[KeyKind, typer.Option(help="As the server asks for.")] = KeyKind.ES384,
    show: Annotated[bool, typer.Option("--show", help="Print the one there is.")] = False,
) -> None:
    """Make this node's key for a FHIR server, and print the public part to register there (JWKS).

    Example: fedtwin client records fhir-key --name epic
    """
    from fedtwin_client.fhir_import import make_fhir_key, read_fhir_key
    from fedtwin_client.node.home import NodeHome

    place = NodeHome(folder=home)
    place.settings()
    key = read_fhir_key(place, name) if show else make_fhir_key(place, name, algorithm.value)
    say(json.dumps(key.jwks(), indent=1))
