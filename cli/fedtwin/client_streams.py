"""`fedtwin client records openmhealth`, `apple-health` and `glucose`: what patients wear."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedtwin.client_patients import EvenOlder
from fedtwin.paper import console, data_folder, now, say

Folder = Annotated[
    Path, typer.Option("--home", envvar="FEDTWIN_CLIENT_HOME", help="The node's folder.")
]
System = Annotated[
    str | None,
    typer.Option(help="Whose numbers patients have, as for 'records fhir'; else this source's."),
]
DEFAULT_HOME = data_folder("client")


class Unit(StrEnum):
    """Units of glucose."""

    MASS = "mg/dL"
    MOLES = "mmol/L"


class Dates(StrEnum):
    """How dates such as 03-04-2024 are meant."""

    DAY_FIRST = "day-first"
    MONTH_FIRST = "month-first"


def register(records: typer.Typer) -> None:
    """Put this module's commands among those of `fedtwin client records`."""
    records.command("openmhealth")(openmhealth)
    records.command("apple-health")(apple_health)
    records.command("glucose")(glucose)


def openmhealth(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: JSON, NDJSON, .gz.")],
    home: Folder = DEFAULT_HOME,
    patient: Annotated[
        str | None, typer.Option(help="Whose points all are; else each one's user_id says so.")
    ] = None,
    system: System = None,
    zone: Annotated[str, typer.Option(help="Time zone of times without one.")] = "UTC",
) -> None:
    """Import Open mHealth and IEEE 1752.1 data points; what was not used is counted.

    Example: fedtwin client records openmhealth points/ --system http://st-olav.example/mrn
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.wearables.openmhealth_files import openmhealth_files
    from fedtwin_client.records.wearables.point_lines import point_recipe
    from fedtwin_client.store.imports import import_source

    place = NodeHome(folder=home)
    secret = site_secret(place)
    with _progress() as told:
        report = import_source(
            openmhealth_files(paths, patient=patient, system=system, progress=told),
            place.records,
            secret=secret,
            now=now(),
            source="openmhealth",
            zone=zone,
            recipe=point_recipe("openmhealth", patient, system, zone),
        )
    say(*report.lines())


def apple_health(
    export: Annotated[Path, typer.Argument(help="export.xml, or the export.zip it comes in.")],
    patient: Annotated[str, typer.Option(help="Whose export it is: the patient's number.")],
    home: Folder = DEFAULT_HOME,
    system: System = None,
    prefer: Annotated[
        list[str] | None,
        typer.Option(
            help="A source that comes first where two count at once; several, best first."
        ),
    ] = None,
    even_older: EvenOlder = False,
) -> None:
    """Import an Apple Health export; a newer one replaces it. What was not used is counted.

    Example: fedtwin client records apple-health export.zip --patient 4711 --prefer 'Apple Watch'
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.wearables.apple_health import apple_health_file
    from fedtwin_client.store.imports import import_source

    place = NodeHome(folder=home)
    secret = site_secret(place)
    with _progress() as told:
        opening = apple_health_file(
            export, patient=patient, system=system, prefer=prefer or (), progress=told
        )
        report = import_source(
            opening,
            place.records,
            secret=secret,
            now=now(),
            source="apple-health",
            zone="UTC",
            even_older=even_older,
        )
    say(*report.lines())


def glucose(
    file: Annotated[
        Path, typer.Argument(help="Dexcom Clarity, LibreView, CareLink, or id,time,gl.")
    ],
    zone: Annotated[str, typer.Option(help="Time zone of the sensor's clock.")],
    home: Folder = DEFAULT_HOME,
    patient: Annotated[
        str | None, typer.Option(help="Whose readings they are, where no column says so.")
    ] = None,
    system: System = None,
    unit: Annotated[Unit | None, typer.Option(help="Of glucose, if the file names none.")] = None,
    dates: Annotated[
        Dates | None, typer.Option(help="How 03-04-2024 is meant, if no date of the file tells.")
    ] = None,
    highest: Annotated[
        float | None,
        typer.Option(help="What 'High' is above, mg/dL; else as the maker says.", min=1),
    ] = None,
) -> None:
    """Import readings of a glucose sensor; exports may overlap. What was not used is counted.

    Example: fedtwin client records glucose clarity.csv --patient 4711 --zone Europe/Oslo
    """
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.wearables.glucose_files import GlucoseOptions, glucose_file
    from fedtwin_client.store.imports import import_source

    place = NodeHome(folder=home)
    secret = site_secret(place)
    options = GlucoseOptions(
        patient=patient,
        system=system,
        unit=None if unit is None else unit.value,
        day_first=None if dates is None else dates is Dates.DAY_FIRST,
        highest=highest,
    )
    with _progress() as told:
        report = import_source(
            glucose_file(file, options, told),
            place.records,
            secret=secret,
            now=now(),
            source="glucose-sensor",
            zone=zone,
        )
    say(*report.lines())


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar while records are read, and a sign of life while they are sorted in."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("reading", total=None)

        def told(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        yield told
