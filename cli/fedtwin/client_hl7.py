"""`fedtwin client records hl7`."""

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.client_patients import DEFAULT_HOME, EvenOlder, Folder
from fedtwin.paper import console, now, say


def hl7(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders of HL7 v2 messages.")],
    home: Folder = DEFAULT_HOME,
    feed: Annotated[str, typer.Option(help="A name for where they come from.")] = "hl7",
    zone: Annotated[str, typer.Option(help="Time zone of times without one.")] = "UTC",
    authority: Annotated[
        str | None, typer.Option(help="Whose patient numbers count (PID-3, assigning authority).")
    ] = None,
    number_type: Annotated[
        str, typer.Option(help="Which type of patient number counts (HL7 table 0203).")
    ] = "MR",
    identifier_system: Annotated[
        str | None,
        typer.Option(help="System of these numbers, as other sources name it, to meet in one."),
    ] = None,
    merges: Annotated[
        bool,
        typer.Option(
            "--merges", help="Believe this feed that two numbers are one patient (A18, A40 ...)."
        ),
    ] = False,
    encoding: Annotated[
        str, typer.Option(help="Character set of messages that name none (MSH-18).")
    ] = "utf-8",
    even_older: EvenOlder = False,
) -> None:
    """Import HL7 v2 messages from files; what was not used is counted with its reason.

    Example: fedtwin client records hl7 archive/ --feed lab --zone Europe/Oslo --authority HOSP
    """
    from rich.progress import Progress

    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.hl7.files import find_messages, hl7_files
    from fedtwin_client.records.hl7.lines import hl7_recipe
    from fedtwin_client.records.hl7.patients import Whose
    from fedtwin_client.store.imports import import_source

    place = NodeHome(folder=home)
    secret = site_secret(place)
    whose = Whose(authority=authority, kind=number_type, system=identifier_system, merges=merges)
    size = sum(file.stat().st_size for file in find_messages(paths))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("reading", total=size)
        opening = hl7_files(
            paths,
            feed,
            whose,
            encoding=encoding,
            progress=lambda read: progress.advance(bar, read),
        )
        report = import_source(
            opening,
            place.records,
            secret=secret,
            now=now(),
            source=feed,
            zone=zone,
            recipe=hl7_recipe(feed, whose, zone, encoding),
            even_older=even_older,
        )
    say(*report.lines())
