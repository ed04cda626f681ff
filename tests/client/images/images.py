"""DICOM and NIfTI files for tests, made here; and a desk that stores no event."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import nibabel
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage

from fedtwin_client.records.events import Event
from fedtwin_client.records.images.dicom_series import Whose
from fedtwin_client.records.images.store import ImageStore
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Desk, OpenSource

SHARED = Path(__file__).parents[4] / "shared" / "data" / "imaging_totalseg"
SECRET = b"s" * 32
SYSTEM = "http://st-olav.example/mrn"
WHOSE = Whose(system=SYSTEM)
NOW = datetime(2026, 11, 1, tzinfo=UTC)
SERIES = "1.2.3.4.5"
SIZE = 32


def desk(source: str = "dicom", quarantine: Path | None = None) -> Desk:
    tally = Tally(quarantine=quarantine)
    reading = Reading(source=source, zone=ZoneInfo("UTC"), now=NOW, tally=tally)
    return Desk(reading=reading, pseudonyms=Pseudonyms(SECRET), known={})


def store_in(folder: Path) -> ImageStore:
    return ImageStore(folder=folder / "images", keyring=None)


def read(opening: OpenSource, at: Desk | None = None) -> tuple[list[Event], Tally]:
    """All events of a source, and its account."""
    at = at or desk()
    events = [event for version in opening(at).versions() for event in version.events]
    return events, at.reading.tally


def series_of(event: Event) -> str:
    """The series' name in the image store."""
    return event.source.partition("#")[0].rpartition("/")[2]


def ct(number: int = 0, **changes: object) -> FileDataset:
    """A CT image at `number` x 2 mm; `changes` are attributes by keyword, None takes one out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{100 + number}"
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    pixels = np.full((SIZE, SIZE), 1000 + number, dtype=np.uint16)
    pixels[:4, :4] = 7
    values: dict[str, object] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"1.2.3.{100 + number}",
        "StudyInstanceUID": "1.2.3.4",
        "SeriesInstanceUID": SERIES,
        "FrameOfReferenceUID": "1.2.3.9",
        "Modality": "CT",
        "BodyPartExamined": "LIVER",
        "PatientID": "4711",
        "PatientName": "Muster^Petra",
        "PatientBirthDate": "19500101",
        "StudyDescription": "CT of Petra Muster",
        "AcquisitionDate": "20260301",
        "AcquisitionTime": f"0800{number:02d}",
        "TimezoneOffsetFromUTC": "+0100",
        "ContentDate": "20260301",
        "ContentTime": "081500",
        "InstanceNumber": number + 1,
        "ImagePositionPatient": [-10.0, -20.0, 2.0 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.25],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "Rows": SIZE,
        "Columns": SIZE,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(made, keyword, value)
    return made


def written(folder: Path, *images: FileDataset) -> Path:
    """A folder with images, the first called 0.dcm."""
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def _item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def coded(code: str, scheme: str = "SCT", **more: object) -> Items:
    return Items([_item(CodeValue=code, CodingSchemeDesignator=scheme, **more)])


def segmentation(
    planes: Sequence[tuple[int, int, np.ndarray]], segments: Sequence[Dataset], **changes: object
) -> FileDataset:
    """A segmentation of the series of `ct`.

    Args:
        planes: segment, number of the image as in `ct`, and mask (rows, columns).
        segments: the items of its Segment Sequence.
        changes: as for `ct`.
    """
    frames = [
        _item(
            PlanePositionSequence=Items([_item(ImagePositionPatient=[-10.0, -20.0, 2.0 * number])]),
            SegmentIdentificationSequence=Items([_item(ReferencedSegmentNumber=segment)]),
        )
        for segment, number, _ in planes
    ]
    shared = _item(
        PixelMeasuresSequence=Items(
            [_item(PixelSpacing=[0.5, 0.25], SliceThickness=3.0, SpacingBetweenSlices=2.0)]
        ),
        PlaneOrientationSequence=Items([_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]),
    )
    bits = np.concatenate([mask.ravel() for *_, mask in planes]).astype(np.uint8)
    packed = np.packbits(bits, bitorder="little").tobytes()
    values: dict[str, object] = {
        "SOPClassUID": SegmentationStorage,
        "SOPInstanceUID": "1.2.3.900",
        "SeriesInstanceUID": "1.2.3.4.9",
        "Modality": "SEG",
        "SegmentationType": "BINARY",
        "SegmentSequence": Items(segments),
        "ReferencedSeriesSequence": Items([_item(SeriesInstanceUID=SERIES)]),
        "SharedFunctionalGroupsSequence": Items([shared]),
        "PerFrameFunctionalGroupsSequence": Items(frames),
        "NumberOfFrames": len(planes),
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "RescaleSlope": None,
        "RescaleIntercept": None,
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "PixelSpacing": None,
        "PixelData": packed + b"\0" * (len(packed) % 2),
    }
    made = ct(0, **(values | changes))
    made.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3.900"
    return made


def segment(number: int, code: str, **more: object) -> Dataset:
    """An item of a Segment Sequence."""
    modifier, scheme = more.pop("modifier", None), str(more.pop("scheme", "SCT"))
    inner = (
        {}
        if modifier is None
        else {"SegmentedPropertyTypeModifierCodeSequence": coded(str(modifier), scheme)}
    )
    return _item(
        SegmentNumber=number,
        SegmentLabel="what Petra Muster has",
        SegmentedPropertyTypeCodeSequence=coded(code, scheme, **inner),
        **more,
    )


def nifti(path: Path, values: np.ndarray, affine: np.ndarray, **fields: object) -> Path:
    """A NIfTI file.

    Args:
        path: where.
        values: (x, y, z).
        affine: to right, front, head; mm.
        fields: of the header.
    """
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    data = image.to_bytes()
    header = nibabel.Nifti1Header(data[:348])
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + data[348:])
    return path
