"""Opening what the image store keeps: a series as one volume.

For planning and for anything else that needs the pixels; nothing of it leaves the node.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom import Dataset

from fedtwin_client.at_rest.keyring import keyring_of
from fedtwin_client.records.images.dicom_reading import (
    LARGEST_BYTES,
    attribute,
    check_pixels,
    decoded,
    read_dataset,
    text_of,
    whole,
)
from fedtwin_client.records.images.dicom_series import described
from fedtwin_client.records.images.geometry import Frame, Grid, frames_of, grid_of
from fedtwin_client.records.images.nifti_reading import read_nifti
from fedtwin_client.records.images.store import FOLDER, ImageStore
from fedtwin_client.records.reading import UnusableError
from fedtwin_protocol.errors import RecordError

_HOUNSFIELD: Final = "[hnsf'U]"
"""UCUM's Hounsfield unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """A series as numbers.

    Attributes:
        values: (slices, rows, columns), 32-bit floats, in `unit`; slices in order along the
            normal of the images.
        grid: where they lie in the patient.
        unit: UCUM, Hounsfield units in CT; none where the scanner's numbers have none.
        modality: DICOM's term.
        remarks: what to know before it is used: uneven gaps, images that are left out.
    """

    values: np.ndarray
    grid: Grid
    unit: str | None
    modality: str
    remarks: tuple[str, ...]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Between slices, rows and columns."""
        return self.grid.spacing_mm

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), from (column, row, slice) to millimetres in the patient (left, back, head)."""
        return self.grid.affine


def images_of(store: Path) -> ImageStore:
    """The images beside the timelines of a node, for reading.

    Args:
        store: the folder of the node's records.

    Raises:
        ConfigurationError: the site key is not at hand.
    """
    return ImageStore(folder=store / FOLDER, keyring=keyring_of(store))


def open_series(store: Path, series: str, *, with_names: bool = False) -> Volume:
    """Open a series.

    Args:
        store: the folder of the node's records.
        series: its name, which stands in its event's source after `dicom:series/`.
        with_names: also open one in whose pixels people's names may stand.

    Raises:
        RecordError: there is none, it is no volume, or names may stand in its pixels.
        ConfigurationError: the site key is not at hand.
    """
    images = images_of(store)
    subject = images.whose(series)
    about = images.about(subject, series)
    assert about is not None
    if about["flags"] and not with_names:
        raise RecordError(
            f"names may stand in the pixels of series {series}: {'; '.join(about['flags'])}; look "
            "at it, and open it with_names if it is to be used"
        )
    try:
        if about["kind"] == "nifti":
            return _nifti_volume(images.read(subject, series, f"{series}.nii"), about)
        if about["kind"] != "dicom":
            raise UnusableError("it is a label map: open it with open_labels")
        return _dicom_volume(datasets_of(images, subject, series), about)
    except UnusableError as error:
        raise RecordError(f"series {series} is no volume: {error.reason}") from error


def grid_of_series(images: ImageStore, subject: int, series: str) -> Grid | None:
    """Where a series lies, without its pixels; none if it is not here, or no volume."""
    about = images.about(subject, series)
    if about is None:
        return None
    try:
        if about["kind"] == "nifti":
            return read_nifti(images.read(subject, series, f"{series}.nii")).grid
        if about["kind"] != "dicom":
            return None
        placed = [
            (frame, whole(dataset, "Rows"), whole(dataset, "Columns"))
            for dataset in datasets_of(images, subject, series)
            for frame in frames_of(dataset)
        ]
        return grid_of([frame for frame, _, _ in placed], placed[0][1], placed[0][2])[0]
    except UnusableError:
        return None


def datasets_of(images: ImageStore, subject: int, series: str) -> list[Dataset]:
    """The DICOM files of a series.

    Raises:
        UnusableError: one is damaged.
        RecordError: one that was left in its place is gone.
    """
    return [
        read_dataset(images.read(subject, series, name))
        for name in images.names(subject, series)
        if name.endswith((".dcm", ".link"))
    ]


def _dicom_volume(datasets: list[Dataset], about: Mapping[str, Any]) -> Volume:
    datasets, remarks = _alike(datasets)
    rows, columns = whole(datasets[0], "Rows"), whole(datasets[0], "Columns")
    if whole(datasets[0], "SamplesPerPixel", 1) != 1:
        raise UnusableError("images in colour")
    frames = [(dataset, frame) for dataset in datasets for frame in frames_of(dataset)]
    if len(frames) * rows * columns * 4 > LARGEST_BYTES:
        raise UnusableError("more than 2 GiB of pixels")
    grid, order = grid_of([frame for _, frame in frames], rows, columns)
    places = {(id(frames[index][0]), frames[index][1].index): k for k, index in enumerate(order)}
    values = np.empty(grid.shape, dtype=np.float32)
    for dataset in datasets:
        check_pixels(dataset)
        pixels = decoded(dataset)
        for frame in frames_of(dataset):
            plane = pixels if pixels.ndim == 2 else pixels[frame.index]
            values[places[id(dataset), frame.index]] = _scaled(plane, frame)
    if not grid.even:
        remarks.append("the gaps between its images are not even: images may be missing")
    if len(frames) == 1:
        remarks.append("a single image: the distance between slices is not known")
    return Volume(
        values=values,
        grid=grid,
        unit=_unit(datasets[0], about["modality"]),
        modality=about["modality"],
        remarks=tuple(remarks),
    )


def _alike(datasets: list[Dataset]) -> tuple[list[Dataset], list[str]]:
    """The images of the commonest size and direction; localizers are left out, and said so."""
    kinds: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        told = [text_of(dataset, name) for name in ("Rows", "Columns")]
        directions = described(attribute(dataset, "ImageOrientationPatient"))
        told.append(str([round(part, 3) for part in directions]))
        kinds.setdefault(" ".join(told), []).append(dataset)
    if not kinds:
        raise UnusableError("none of its images is here")
    largest = max(kinds.values(), key=len)
    others = len(datasets) - len(largest)
    if 2 * others >= len(datasets):
        raise UnusableError("images of several sizes or directions, none of which prevails")
    return largest, [f"{others} images of another size or direction are left out"] if others else []


def _scaled(plane: np.ndarray, frame: Frame) -> np.ndarray:
    return plane.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)


def _unit(dataset: Dataset, modality: str) -> str | None:
    kind = text_of(dataset, "RescaleType").upper()
    if modality == "CT" and kind in {"", "HU"}:
        return _HOUNSFIELD
    return None


def _nifti_volume(data: bytes, about: Mapping[str, Any]) -> Volume:
    nifti = read_nifti(data)
    return Volume(
        values=nifti.values().astype(np.float32),
        grid=nifti.grid,
        unit=_HOUNSFIELD if about["modality"] == "CT" else None,
        modality=about["modality"],
        remarks=(),
    )
