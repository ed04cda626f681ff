"""Where images lie in the patient: frames of DICOM instances, put in order, as one grid.

Positions are millimetres in DICOM's patient coordinates: x to the left, y to the back, z to the
head (DICOM PS3.3 C.7.6.2.1.1). Index (i, j, k) means column, row, slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydicom import Dataset

from fedtwin_client.records.images.dicom_reading import attribute, items_of, text_of, whole
from fedtwin_client.records.images.dicom_series import described
from fedtwin_client.records.reading import UnusableError

FARTHEST_MM: Final = 1e6
"""Beyond it no scanner places an image; numbers of any size would overflow in what follows."""
WIDEST_MM: Final = 1000.0
"""Of a pixel, and between planes."""
_SAME_DIRECTION: Final = 1e-3
_SAME_PLACE_MM: Final = 1e-3
_SAME_SPACING: Final = 0.01
"""Part by which gaps between slices may differ and still be called even."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One plane of pixels.

    Attributes:
        index: which frame of its instance.
        position: of the centre of the first pixel, (3,) mm.
        rows: unit vector along which columns count, (3,).
        columns: unit vector along which rows count, (3,).
        spacing: between rows and between columns, mm.
        slope, intercept: from stored values to the modality's (Hounsfield units in CT).
    """

    index: int
    position: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    spacing: tuple[float, float]
    slope: float
    intercept: float

    @property
    def normal(self) -> np.ndarray:
        """Unit vector out of the plane, (3,)."""
        return np.cross(self.rows, self.columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A volume's places.

    Attributes:
        shape: (slices, rows, columns).
        affine: (4, 4) from (column, row, slice) to millimetres in the patient.
        spacing_mm: between slices, rows, columns.
        even: whether all gaps between slices are the same to a hundredth.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    even: bool


def frames_of(dataset: Dataset) -> list[Frame]:
    """The planes of an instance; several in a multi-frame one.

    Raises:
        UnusableError: it does not say where they lie.
    """
    return [_frame(dataset, index) for index in range(whole(dataset, "NumberOfFrames", 1))]


def grid_of(frames: Sequence[Frame], rows: int, columns: int) -> tuple[Grid, list[int]]:
    """Put planes in order along their normal.

    Returns:
        The grid, and the order: positions in `frames`, from the first slice on.

    Raises:
        UnusableError: planes are not parallel, of different spacing, or two lie in one place.
    """
    first = frames[0]
    for frame in frames:
        turned = np.abs(frame.rows - first.rows).max() + np.abs(frame.columns - first.columns).max()
        if turned > _SAME_DIRECTION:
            raise UnusableError("images that are not parallel to one another")
        if not np.allclose(frame.spacing, first.spacing, rtol=1e-4, atol=0):
            raise UnusableError("images of different pixel spacing")
    along = np.array([float(first.normal @ frame.position) for frame in frames])
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    if len(gaps) and gaps.min() < _SAME_PLACE_MM:
        raise UnusableError("several images in one place (a series over time, or of echoes)")
    gap = float(np.median(gaps)) if len(gaps) else 1.0
    even = bool(np.all(np.abs(gaps - gap) <= _SAME_SPACING * gap))
    start = frames[order[0]].position
    step = first.normal * gap
    if len(gaps):  # planes need not lie straight behind one another (a tilted gantry)
        step = (frames[order[-1]].position - start) / len(gaps) if even else step
    affine = np.eye(4)
    affine[:3, 0] = first.rows * first.spacing[1]
    affine[:3, 1] = first.columns * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = start
    grid = Grid(
        shape=(len(frames), rows, columns),
        affine=affine,
        spacing_mm=(gap, *first.spacing),
        even=even,
    )
    return grid, [int(place) for place in order]


def _frame(dataset: Dataset, index: int) -> Frame:
    def numbers(group: str, keyword: str, count: int) -> np.ndarray | None:
        found = described(_group_value(dataset, index, group, keyword))
        ok = len(found) == count and all(np.isfinite(found))
        return np.array(found) if ok else None

    position = numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    directions = numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    if position is None or directions is None or spacing is None:
        raise UnusableError("no Image Position, Image Orientation or Pixel Spacing")
    if np.abs(position).max() > FARTHEST_MM:
        raise UnusableError("an impossible Image Position")
    rows, columns = directions[:3], directions[3:]
    lengths = np.linalg.norm(rows), np.linalg.norm(columns)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(rows @ columns) > 0.01:
        raise UnusableError("an Image Orientation that is not two perpendicular unit vectors")
    if spacing.min() <= 0 or spacing.max() > WIDEST_MM:
        raise UnusableError("an impossible Pixel Spacing")
    slope, intercept = (
        _scale(dataset, index, "RescaleSlope", 1.0),
        _scale(dataset, index, "RescaleIntercept", 0.0),
    )
    return Frame(
        index=index,
        position=position,
        rows=rows,
        columns=columns,
        spacing=(float(spacing[0]), float(spacing[1])),
        slope=slope,
        intercept=intercept,
    )


def _scale(dataset: Dataset, index: int, keyword: str, otherwise: float) -> float:
    value = _group_value(dataset, index, "PixelValueTransformationSequence", keyword)
    if value is None:
        return otherwise
    found = described([value])
    if not found or not np.isfinite(found[0]) or (keyword == "RescaleSlope" and found[0] == 0):
        raise UnusableError(f"{keyword} is no number that can be used")
    return found[0]


def _group_value(dataset: Dataset, index: int, group: str, keyword: str) -> Any:
    """A value of a frame: its own functional group, the shared one, or the instance's."""
    for sequence, place in (
        ("PerFrameFunctionalGroupsSequence", index),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        groups = items_of(dataset, sequence)
        if place < len(groups):
            inner = items_of(groups[place], group)
            if len(inner):
                value = attribute(inner[0], keyword)
                if value is not None:
                    return value
    return attribute(dataset, keyword)


def frame_of_reference(dataset: Dataset) -> str:
    """The Frame of Reference UID; empty if there is none."""
    return text_of(dataset, "FrameOfReferenceUID")
