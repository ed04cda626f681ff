"""Images and label maps under coverage-guided fuzzing; run by test_targets.py, one at a time.

    python images.py NAME SECONDS FOLDER

Whatever the bytes are, a source yields versions or ends with a RecordError, events are finite, and
what was kept opens as a volume or is refused in words.
"""

import io
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import atheris
import nibabel
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

with atheris.instrument_imports(include=["fedtwin_client.records", "nibabel"]):
    from fedtwin_client.records.images.dicom_files import dicom_files
    from fedtwin_client.records.images.label_maps import open_labels
    from fedtwin_client.records.images.nifti import NiftiOptions, nifti_files
    from fedtwin_client.records.images.store import ImageStore
    from fedtwin_client.records.images.volumes import open_series

from fedtwin_client.records.people import People, Person
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Desk, OpenSource
from fedtwin_protocol.errors import RecordError

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from client.images.images import WHOSE, ct, segment, segmentation  # noqa: E402 - found beside this file
from loop import Target, fuzz  # noqa: E402

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ONE = People(one=Person(patient="1", date="2026-01-01"), by_sample={}, system="mrn")
SMALL: dict[str, Any] = {"Rows": 4, "Columns": 4, "PixelData": bytes(range(32))}


def dicom_bytes(dataset: Any) -> bytes:
    """A dataset as a file."""
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def nifti_bytes(kind: Any, values: Any, extension: tuple[int, bytes] | None = None) -> bytes:
    """A volume as a file."""
    image = kind(values, np.diag([1.0, 1.0, 2.0, 1.0]), dtype=values.dtype)
    if extension:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(*extension))
    return bytes(image.to_bytes())


def outlined() -> Any:
    """A small segmentation of the series that stands beside it."""
    mask = np.eye(32, dtype=bool)
    return segmentation([(1, 0, mask), (1, 1, mask)], [segment(1, "10200004")])


def listed() -> Any:
    """A DICOMDIR that names one file."""
    made = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3.7"
    record = Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["IM"]
    made.DirectoryRecordSequence = Sequence([record])
    return made


LABELS = b'<CaretExtension><LabelTable><Label Key="1">liver</Label></LabelTable></CaretExtension>'
CUBE = np.ones((3, 4, 5), dtype=np.uint8)
NIFTI = [
    nifti_bytes(nibabel.Nifti1Image, CUBE, (0, LABELS)),
    nifti_bytes(nibabel.Nifti2Image, CUBE.astype(np.float32)),
    nifti_bytes(nibabel.Nifti1Image, CUBE, (2, b"\x10\x00\x10\x00\x02\x00\x00\x00A ")),
    nifti_bytes(nibabel.Nifti1Image, CUBE.astype(np.int64)),
]
SEEDS = {
    "dicom": [dicom_bytes(ct(1)), dicom_bytes(ct(0, **SMALL))],
    "dicom-segmentation": [dicom_bytes(outlined())],
    "dicomdir": [dicom_bytes(listed())],
    "nifti": NIFTI,
    "nifti-labels": NIFTI,
}


def take(opening: Callable[[], OpenSource], folder: Path) -> None:
    """Import, look at every event, and open what was kept."""
    reading = Reading(source="fuzz", zone=ZoneInfo("UTC"), now=NOW, tally=Tally(quarantine=None))
    desk = Desk(reading=reading, pseudonyms=Pseudonyms(b"s" * 32), known={})
    kept = set()
    for version in opening()(desk).versions():
        for event in version.events:
            assert event.time is None or event.time <= NOW
            assert event.numeric_value is None or abs(event.numeric_value) < float("inf")
            kept.add(event.source.partition("#")[0].rpartition("/")[2])
    for series in sorted(kept):
        for look in (partial(open_series, with_names=True), open_labels):
            try:
                look(folder, series)
            except RecordError:
                continue


def dicom(folder: Path, *, beside: int) -> Target:
    """Takes bytes as a DICOM file, into a store that holds some good images."""
    good = folder / "good"
    good.mkdir()
    images = ImageStore(folder=folder / "images", keyring=None)
    path = folder / "x.dcm"
    for number in range(beside):
        path.write_bytes(dicom_bytes(ct(number)))
        take(lambda: dicom_files([path], images, WHOSE), folder)
        shutil.copytree(folder / "images", good, dirs_exist_ok=True)

    def target(data: bytes) -> None:
        shutil.rmtree(folder / "images", ignore_errors=True)
        shutil.copytree(good, folder / "images")
        path.write_bytes(data)
        take(lambda: dicom_files([path], images, WHOSE), folder)

    return target


def directory(folder: Path) -> Target:
    """Takes bytes as a DICOMDIR, beside one of the files that it may name."""
    (folder / "IM").write_bytes(dicom_bytes(ct(0)))
    path = folder / "DICOMDIR"

    def target(data: bytes) -> None:
        shutil.rmtree(folder / "images", ignore_errors=True)
        path.write_bytes(data)
        images = ImageStore(folder=folder / "images", keyring=None)
        take(lambda: dicom_files([path], images, WHOSE), folder)

    return target


def nifti(folder: Path, *, options: NiftiOptions) -> Target:
    """Takes bytes as a NIfTI file."""
    path = folder / "liver.nii"

    def target(data: bytes) -> None:
        shutil.rmtree(folder / "images", ignore_errors=True)
        path.write_bytes(data)
        images = ImageStore(folder=folder / "images", keyring=None)
        take(lambda: nifti_files([path], images, ONE, options), folder)

    return target


TARGETS: dict[str, Callable[[Path], Target]] = {
    "dicom": partial(dicom, beside=0),
    "dicom-segmentation": partial(dicom, beside=2),
    "dicomdir": directory,
    "nifti": partial(nifti, options=NiftiOptions(modality="CT")),
    "nifti-labels": partial(nifti, options=NiftiOptions()),
}

if __name__ == "__main__":
    fuzz(TARGETS, SEEDS)
