"""`fedtwin client records meds` and `records export`: MEDS data sets in and out."""

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.client_patients import DEFAULT_HOME, Folder
from fedtwin.paper import console, now, say


def meds(
    folder: Annotated[Path, typer.Argument(help="With 'data' and 'metadata'.")],
    home: Folder = DEFAULT_HOME,
    name: Annotated[str, typer.Option(help="Of the data set at this site.")] = "data-set",
) -> None:
    """Import a MEDS data set; what was not used is counted with its reason.

    Example: fedtwin client records meds mimic-meds/ --name mimic
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.meds import meds_data
    from fedtwin_client.records.source import check_source_name
    from fedtwin_client.store.imports import import_source

    check_source_name(name)
    place = NodeHome(folder=home)
    opening = meds_data(folder, name)
    secret = site_secret(place)
    with console.status("reading"):
        report = import_source(
            opening, place.records, secret=secret, now=now(), source=f"meds:{name}", zone="UTC"
        )
    say(*report.lines())


def export(
    folder: Annotated[Path, typer.Argument(help="New or empty.")], home: Folder = DEFAULT_HOME
) -> None:
    """Write the timelines as a MEDS data set, unencrypted, for use within the hospital.

    Example: fedtwin client records export /secure/timelines-meds
    """
    from rich.progress import Progress

    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.store.export import export_meds
    from fedtwin_client.store.staging import BUCKETS
    from fedtwin_client.store.timeline import Timeline

    timeline = Timeline.open(NodeHome(folder=home).records)
    with Progress(console=console, transient=True) as progress:
        line = progress.add_task("writing", total=BUCKETS)
        events, patients = export_meds(
            timeline, folder, now(), lambda done: progress.update(line, completed=done)
        )
    say(
        f"{events:,} events of {patients:,} patients are in {folder}",
        "It is not encrypted and speaks of patients by pseudonym: keep it within the hospital.",
    )
