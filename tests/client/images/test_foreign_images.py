"""Images that are well formed and say what no scanner does: refused in words, never a traceback."""

import io
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from fedtwin_client.records.images.dicom_files import dicom_files
from fedtwin_client.records.images.dicom_reading import find_dicom
from fedtwin_client.records.images.dicom_segmentation import labels_of
from fedtwin_client.records.images.label_maps import open_labels
from fedtwin_client.records.images.nifti import NiftiOptions, nifti_files
from fedtwin_client.records.images.nifti_reading import read_nifti
from fedtwin_client.records.images.volumes import open_series
from fedtwin_client.records.people import one_person
from fedtwin_client.records.reading import UnusableError
from fedtwin_protocol.errors import RecordError

from .images import (
    SYSTEM,
    WHOSE,
    ct,
    desk,
    read,
    segment,
    segmentation,
    series_of,
    store_in,
    written,
)

ONE = one_person("4711", "2026-03-01", None, SYSTEM)
MASK = np.eye(32, dtype=bool)
SEQUENCES = (
    *("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"),
    *("SegmentSequence", "ReferencedSeriesSequence"),
)


def as_numbers(dataset: Dataset, keyword: str) -> None:
    """Make a sequence or a text into a number: explicit VR lets a file say so."""
    element = pydicom.DataElement(pydicom.datadict.tag_for_keyword(keyword), "US", 3)
    dataset[element.tag] = element


@pytest.mark.parametrize("keyword", SEQUENCES)
def test_a_sequence_that_is_a_number(tmp_path: Path, keyword: str) -> None:
    made = segmentation([(1, 0, MASK), (1, 1, MASK)], [segment(1, "10200004")])
    as_numbers(made, keyword)
    events, tally = read(
        dicom_files([written(tmp_path / "in", ct(0), ct(1), made)], store_in(tmp_path), WHOSE)
    )
    assert events[0].code == "DICOM//CT"
    assert len(events) + sum(tally.reasons.values()) + sum(tally.notes.values()) >= 2


@pytest.mark.parametrize("keyword", ["ImageType", "ImageOrientationPatient", "BodyPartExamined"])
def test_a_text_that_is_a_number(tmp_path: Path, keyword: str) -> None:
    made = ct(0)
    as_numbers(made, keyword)
    (event,), _ = read(dicom_files([written(tmp_path / "in", made)], store_in(tmp_path), WHOSE))
    if keyword == "ImageOrientationPatient":
        with pytest.raises(RecordError, match="Image Orientation"):
            open_series(tmp_path, series_of(event))
    else:
        assert open_series(tmp_path, series_of(event)).values.shape == (1, 32, 32)


def test_directions_that_are_words(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", ct(0))
    data = (folder / "0.dcm").read_bytes()
    assert data.count(b"1.0\\0.0\\0.0") == 1
    (folder / "0.dcm").write_bytes(data.replace(b"1.0\\0.0\\0.0", b"x.0\\0.0\\0.0"))
    (event,), _ = read(dicom_files([folder], store_in(tmp_path), WHOSE))
    with pytest.raises(RecordError, match="Image Orientation"):
        open_series(tmp_path, series_of(event))


def test_a_dicomdir_whose_records_are_numbers(tmp_path: Path) -> None:
    made = ct(0)
    as_numbers(made, "DirectoryRecordSequence")
    made.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    assert find_dicom([tmp_path / "DICOMDIR"]) == ([], [])


@pytest.mark.parametrize(
    ("reason", "distance", "position"),
    [
        ("impossible distance", 1e-9, 2.0),
        ("impossible distance", 1e300, 2.0),
        ("impossible Image Position", 2.0, 1e300),
        ("more than 2 GiB", 1e-3, 9e5),
    ],
)
def test_planes_that_no_scanner_makes(reason: str, distance: float, position: float) -> None:
    made = segmentation([(1, 0, MASK), (1, 1, MASK)], [segment(1, "10200004")])
    made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = distance
    place: Any = made.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
    place.ImagePositionPatient = [-10.0, -20.0, position]
    with pytest.raises(UnusableError, match=reason):
        labels_of(made)


def test_a_segmentation_opened_as_a_series(tmp_path: Path) -> None:
    made = segmentation([(1, 0, MASK), (1, 1, MASK)], [segment(1, "10200004")])
    events, _ = read(
        dicom_files([written(tmp_path / "in", ct(0), ct(1), made)], store_in(tmp_path), WHOSE)
    )
    with pytest.raises(RecordError, match="it is a label map"):
        open_series(tmp_path, series_of(events[1]))
    with pytest.raises(RecordError, match="it holds images"):
        open_labels(tmp_path, series_of(events[0]))


@pytest.mark.parametrize("kind", ["int64", "uint64", "float64"])
def test_nifti_images_of_wide_numbers(tmp_path: Path, kind: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(kind)
    path = tmp_path / "x.nii"
    nibabel.Nifti1Image(values, np.eye(4), dtype=kind).to_filename(path)
    opening = nifti_files([path], store_in(tmp_path), ONE, NiftiOptions(modality="MR"))
    (event,), _ = read(opening, desk("nifti"))
    volume = open_series(tmp_path, series_of(event))
    assert np.array_equal(volume.values, values.transpose(2, 1, 0))


def test_a_nifti_image_that_is_longer_than_the_first_format_can_say(tmp_path: Path) -> None:
    values = np.zeros((40_000, 1, 1), dtype=np.uint8)
    path = tmp_path / "x.nii"
    nibabel.Nifti2Image(values, np.eye(4)).to_filename(path)
    opening = nifti_files([path], store_in(tmp_path), ONE, NiftiOptions(modality="MR"))
    (event,), _ = read(opening, desk("nifti"))
    assert open_series(tmp_path, series_of(event)).values.shape == (1, 1, 40_000)


def nifti_with(affine: np.ndarray, extension: bytes = b"") -> bytes:
    image = nibabel.Nifti1Image(np.ones((2, 2, 2), dtype=np.uint8), affine)
    if extension:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(2, extension))
    return bytes(image.to_bytes())


def test_an_extension_is_not_unpacked_by_what_it_says_it_is() -> None:
    """A DICOM dataset in an extension is nothing that is read here, damaged or not."""
    packed = io.BytesIO()
    made = ct(0)
    made.save_as(packed, enforce_file_format=True)
    for content in (b"no DICOM" * 4, packed.getvalue()[:300]):
        assert read_nifti(nifti_with(np.eye(4), content)).names == {}


@pytest.mark.parametrize(
    ("reason", "size", "place"), [("voxel sizes", 5000.0, 0.0), ("impossible place", 1.0, 1e9)]
)
def test_nifti_volumes_that_no_scanner_makes(reason: str, size: float, place: float) -> None:
    affine = np.diag([size, size, size, 1.0])
    affine[0, 3] = place
    with pytest.raises(UnusableError, match=reason):
        read_nifti(nifti_with(affine))
