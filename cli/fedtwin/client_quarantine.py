"""`fedtwin client records quarantine` and `replay`: what imports put aside, and its way back."""

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.client_patients import DEFAULT_HOME, Folder
from fedtwin.paper import console, now, say


def register(records: typer.Typer) -> None:
    """Put this module's commands among those of `fedtwin client records`."""
    records.command("quarantine")(quarantine)
    records.command("replay")(replay)


def quarantine(
    name: Annotated[str | None, typer.Argument(help="A file; without it they are listed.")] = None,
    home: Folder = DEFAULT_HOME,
    export: Annotated[
        Path | None,
        typer.Option(help="Write its lines there, unencrypted, to be mended and replayed."),
    ] = None,
) -> None:
    """What imports put aside, with the reasons; it speaks of patients.

    Example: fedtwin client records quarantine 20260301T080000Z-000001.ndjson --export mend.ndjson
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.store import quarantine as aside

    place = NodeHome(folder=home)
    place.settings()
    if name is None:
        if export is not None:
            raise typer.BadParameter("name the quarantine file whose lines are to be written")
        say(*aside.listed(place.records))
    elif export is None:
        say(*aside.lines_of(place.records, name))
    else:
        count = aside.export(place.records, name, export)
        say(
            f"{count} lines are in {export}, not encrypted: mend what stands in 'raw', remove the "
            "lines that cannot be mended, then run",
            f"  fedtwin client records replay {export}",
            "and delete the file.",
        )


def replay(
    lines: Annotated[Path, typer.Argument(help="Mended lines of 'records quarantine --export'.")],
    home: Folder = DEFAULT_HOME,
    merges: Annotated[
        bool, typer.Option("--merges", help="Follow HL7 v2 messages that two numbers are one.")
    ] = False,
) -> None:
    """Read mended lines as the import or door that put them aside does; what is wrong stays aside.

    Example: fedtwin client records replay mend.ndjson
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.store.quarantine import replay as replay_lines

    place = NodeHome(folder=home)
    secret = site_secret(place)
    with console.status("reading"):
        done = replay_lines(place.records, lines, secret, now(), merges=merges)
    say(*done.lines())
