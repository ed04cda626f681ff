"""`fedtwin client records dicom` and `nifti`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.paper import console, data_folder, now, say

if TYPE_CHECKING:
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.images.dicom_series import Whose
    from fedtwin_client.records.source import OpenSource

Folder = Annotated[
    Path, typer.Option("--home", envvar="FEDTWIN_CLIENT_HOME", help="The node's folder.")
]
System = Annotated[
    str | None,
    typer.Option(help="Whose numbers patients have, where a file names no issuer."),
]
Issuers = Annotated[
    list[str] | None,
    typer.Option("--issuer", help="ISSUER=SYSTEM: an Issuer of Patient ID, as known here."),
]
Zone = Annotated[str, typer.Option(help="Time zone of times without one.")]
DEFAULT_HOME = data_folder("client")


def add_image_commands(records: typer.Typer) -> None:
    """Put the commands of this module below `fedtwin client records`."""
    records.command("dicom")(dicom)
    records.command("nifti")(nifti)


def dicom(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders and DICOMDIR files.")],
    home: Folder = DEFAULT_HOME,
    patient: Annotated[
        str | None, typer.Option(help="The patient's number, where files hold none.")
    ] = None,
    identifier_system: System = None,
    issuer: Issuers = None,
    zone: Zone = "UTC",
    link: Annotated[
        bool, typer.Option("--link", help="Leave the images where they are, and keep the way.")
    ] = False,
) -> None:
    """Import DICOM images: one event a series; headers are de-identified, pixels encrypted.

    Example: fedtwin client records dicom /mnt/export --identifier-system http://st-olav.example/mrn
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.images.dicom_files import dicom_files
    from fedtwin_client.store.images import image_store

    place = NodeHome(folder=home)
    place.settings()
    whose = _whose(place, identifier_system, issuer, patient)
    with console.status("reading headers") as status:

        def told(done: int, total: int) -> None:
            status.update(f"keeping images: {done:,} of {total:,} files")

        images = image_store(place.records)
        opening = dicom_files(paths, images, whose, link=link, told=told)
        lines = _imported(place, opening, "dicom", zone)
    say(*lines)


def nifti(
    files: Annotated[list[Path], typer.Argument(help="NIfTI files of one patient and one time.")],
    patient: Annotated[str, typer.Option(help="The patient's number.")],
    date: Annotated[str, typer.Option(help="When it was taken, 2026-03-01; never made up.")],
    home: Folder = DEFAULT_HOME,
    reported: Annotated[
        str | None, typer.Option(help="When it became known; without it, with the image.")
    ] = None,
    identifier_system: System = None,
    zone: Zone = "UTC",
    modality: Annotated[
        str | None, typer.Option(help="For images: CT, MR, PT ...; without it, label maps.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="What labels mean: totalsegmentator, totalsegmentator-mr, a CSV file, or "
            "file-names; without it, the file's own table."
        ),
    ] = None,
    of: Annotated[
        str | None, typer.Option("--of", help="The series that a label map outlines, by its name.")
    ] = None,
) -> None:
    """Import NIfTI images and label maps; of these, the volume of each structure.

    Example: fedtwin client records nifti liver.nii.gz --patient 4711 --date 2026-03-01
    --labels file-names
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.records.images.nifti import NiftiOptions, nifti_files
    from fedtwin_client.records.people import one_person
    from fedtwin_client.store.images import image_store
    from fedtwin_client.store.whose import whose_numbers

    place = NodeHome(folder=home)
    place.settings()
    people = one_person(patient, date, reported, whose_numbers(place.records, identifier_system))
    options = NiftiOptions(modality=modality, labels=labels, segments=of)
    opening = nifti_files(files, image_store(place.records), people, options)
    with console.status("reading volumes"):
        lines = _imported(place, opening, "nifti", zone)
    say(*lines)


def _imported(place: "NodeHome", opening: "OpenSource", source: str, zone: str) -> list[str]:
    from fedtwin_client.assemble import site_secret
    from fedtwin_client.store.imports import import_source

    secret = site_secret(place)
    report = import_source(
        opening, place.records, secret=secret, now=now(), source=source, zone=zone
    )
    return report.lines()


def _whose(
    place: "NodeHome", system: str | None, issuers: list[str] | None, patient: str | None
) -> "Whose":
    """How patients of DICOM files are known here.

    Raises:
        typer.BadParameter: an --issuer without '='.
        RecordError: a patient is named, and nobody says whose number it is.
    """
    from fedtwin_client.records.images.dicom_series import Whose
    from fedtwin_client.store.whose import whose_numbers

    pairs = [text.partition("=") for text in issuers or []]
    if any(not name or not known for name, _, known in pairs):
        raise typer.BadParameter("expected --issuer ISSUER=SYSTEM")
    if patient is not None:
        system = whose_numbers(place.records, system)
    named = {name: known for name, _, known in pairs}
    return Whose(system=system, issuers=named, patient=patient)
