"""DICOM Segmentation objects (PS3.3 A.51): structures with codes, outlined in a series.

Binary segments are measured: voxels times the area of a pixel times the distance of the planes.
Fractional ones are put aside: where their border lies is a choice that nobody has made here.
"""

import re
from collections import Counter
from typing import Final

import numpy as np
from pydicom import Dataset
from pydicom.sr._snomed_dict import mapping as snomed_mapping

from fedtwin_client.records.events import Event
from fedtwin_client.records.images.dicom_reading import (
    LARGEST_BYTES,
    attribute,
    decoded,
    identifier,
    items_of,
    text_of,
    whole,
)
from fedtwin_client.records.images.dicom_series import described
from fedtwin_client.records.images.geometry import WIDEST_MM, Frame, Grid, frames_of
from fedtwin_client.records.images.structures import composed, volume_event
from fedtwin_client.records.reading import Reading, Times, UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Version

_SNOMED: Final = "SCT"
_SNOMED_RT: Final = frozenset({"SRT", "SNM3", "99SDM"})
"""What DICOM called SNOMED before (PS3.16, 8.1.1); its codes have equals in SNOMED CT (Annex O)."""
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,15}\Z")
_CLOSEST_MM: Final = 1e-4
_NEAR: Final = 0.1
"""Part of a voxel by which planes may lie beside those of the series that was outlined."""


def segmentation_version(
    dataset: Dataset, origin: str, subject: int, times: Times, reading: Reading, place: Place
) -> Version:
    """The volumes of a segmentation's structures.

    Raises:
        UnusableError: it is not binary, or does not say what it outlines and where.
    """
    pixels, frames, numbers, gap = _planes(dataset)
    codes = segment_codes(dataset)
    voxels: Counter[int] = Counter()
    for plane, number in zip(pixels, numbers, strict=True):
        voxels[number] += int(np.count_nonzero(plane))
    voxel_mm3 = gap * frames[0].spacing[0] * frames[0].spacing[1]
    reading.tally.read["structure"] += len(codes.keys() | voxels.keys())
    events: list[Event] = []
    for number, code in sorted(codes.items()):
        if not voxels[number]:
            reading.tally.skip("a structure with no voxel in the segmentation", place)
            continue
        volume = voxels[number] * voxel_mm3
        events.append(volume_event(origin, number, subject, times, code, volume))
    for number in sorted(voxels.keys() - codes.keys()):
        reading.tally.put_aside("a segment without a code", place, f"segment {number}")
    return Version(origin=origin, updated=None, events=events)


def segment_codes(dataset: Dataset) -> dict[int, str]:
    """The code of each segment that has one.

    Raises:
        UnusableError: a segment's number comes twice.
    """
    found: dict[int, str] = {}
    for segment in items_of(dataset, "SegmentSequence"):
        number = whole(segment, "SegmentNumber")
        if number in found:
            raise UnusableError("two segments of one number")
        kind = _first(segment, "SegmentedPropertyTypeCodeSequence")
        scheme, code = _code(kind)
        if not code:
            continue
        if scheme != _SNOMED:
            found[number] = f"{scheme}//{code}"
            continue
        region = _first(segment, "AnatomicRegionSequence")
        written = composed(
            code,
            _code(_first(kind, "SegmentedPropertyTypeModifierCodeSequence"))[1],
            _code(region)[1],
            _code(_first(region, "AnatomicRegionModifierSequence"))[1],
        )
        found[number] = f"SNOMED//{written}"
    return found


def outlined_series(dataset: Dataset) -> str:
    """The UID of the series that was outlined; empty if it is not said."""
    referenced = _first(dataset, "ReferencedSeriesSequence")
    return "" if referenced is None else identifier(referenced, "SeriesInstanceUID")


def check_fit(dataset: Dataset, grid: Grid) -> None:
    """Refuse a segmentation that does not lie on the planes of its series.

    Raises:
        UnusableError: another size, spacing, place or direction.
    """
    back = np.linalg.inv(grid.affine)
    size = (whole(dataset, "Rows"), whole(dataset, "Columns"))
    for frame in frames_of(dataset):
        steps = np.stack([frame.rows * frame.spacing[1], frame.columns * frame.spacing[0]], axis=1)
        place = (back @ np.append(frame.position, 1.0))[:3]
        fits = (
            size == grid.shape[1:]
            and np.abs(back[:3, :3] @ steps - np.eye(3)[:, :2]).max() < _NEAR / 10
            and np.abs(place - [0, 0, np.rint(place[2])]).max() < _NEAR
            and -_NEAR < place[2] < grid.shape[0] - 1 + _NEAR
        )
        if not fits:
            raise UnusableError(
                "it does not fit the series that it outlines: another size, spacing, place or "
                "direction"
            )


def labels_of(dataset: Dataset) -> tuple[np.ndarray, Grid]:
    """Segments as one label map: (slices, rows, columns), and where they lie.

    Raises:
        UnusableError: segments overlap, or it cannot be used.
    """
    pixels, frames, numbers, gap = _planes(dataset)
    along = np.array([float(frames[0].normal @ frame.position) for frame in frames])
    places = np.rint((along - along.min()) / gap).astype(int)
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if (int(places.max()) + 1) * rows * columns * 2 > LARGEST_BYTES:
        raise UnusableError("planes so far apart that they make more than 2 GiB of voxels")
    labels = np.zeros((int(places.max()) + 1, rows, columns), dtype=np.uint16)
    for plane, number, index in zip(pixels, numbers, places, strict=True):
        inside = plane != 0
        if (labels[index][inside] != 0).any():
            raise UnusableError("segments overlap, which a label map cannot hold")
        labels[index][inside] = number
    first = frames[int(np.argmin(along))]
    affine = np.eye(4)
    affine[:3, 0] = first.rows * first.spacing[1]
    affine[:3, 1] = first.columns * first.spacing[0]
    affine[:3, 2] = first.normal * gap
    affine[:3, 3] = first.position
    spacing = (gap, *first.spacing)
    return labels, Grid(shape=labels.shape, affine=affine, spacing_mm=spacing, even=True)


def _planes(dataset: Dataset) -> tuple[np.ndarray, list[Frame], list[int], float]:
    """Pixels (frames, rows, columns), where each plane lies, its segment, and the planes' distance.

    Raises:
        UnusableError: it is not binary, or does not say where it lies.
    """
    if text_of(dataset, "SegmentationType").upper() != "BINARY":
        raise UnusableError("a segmentation that is not BINARY: where it ends is not said")
    frames = frames_of(dataset)
    groups = items_of(dataset, "PerFrameFunctionalGroupsSequence")
    if len(groups) != len(frames):
        raise UnusableError("frames that do not say of which segment they are")
    numbers = [_segment_number(group) for group in groups]
    pixels = decoded(dataset)
    pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
    if pixels.shape[0] != len(frames):
        raise UnusableError("another number of frames than its header says")
    return pixels, frames, numbers, _gap(dataset, frames)


def _gap(dataset: Dataset, frames: list[Frame]) -> float:
    """The distance of planes: as written, and as they lie, which must agree."""
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    measures = _first(shared, "PixelMeasuresSequence")
    written = described([attribute(measures, "SpacingBetweenSlices")] if measures else [])
    along = np.unique(np.round([float(frames[0].normal @ f.position) for f in frames], 3))
    between = written[0] if written and np.isfinite(written[0]) and written[0] > 0 else 0.0
    if not between and len(along) > 1:
        between = float(np.diff(along).min())
    if not between:
        thick = described([attribute(measures, "SliceThickness")] if measures else [])
        between = thick[0] if thick and np.isfinite(thick[0]) and thick[0] > 0 else 0.0
    if not between:
        raise UnusableError("the distance of its planes is not said")
    if not _CLOSEST_MM <= between <= WIDEST_MM:
        raise UnusableError("an impossible distance of its planes")
    steps = (along - along[0]) / between
    if np.abs(steps - np.rint(steps)).max() > _NEAR:
        raise UnusableError("planes that are not evenly apart, as it says they are")
    return between


def _segment_number(group: Dataset) -> int:
    named = _first(group, "SegmentIdentificationSequence")
    number = 0 if named is None else whole(named, "ReferencedSegmentNumber")
    if not 0 < number <= 65_535:
        raise UnusableError("frames that do not say of which segment they are")
    return number


def _first(dataset: Dataset | None, keyword: str) -> Dataset | None:
    """The first item of a sequence."""
    items = [] if dataset is None else items_of(dataset, keyword)
    return items[0] if len(items) else None


def _code(item: Dataset | None) -> tuple[str, str]:
    """Scheme and code; empty where there is none that can be used."""
    if item is None:
        return "", ""
    scheme, code = text_of(item, "CodingSchemeDesignator"), text_of(item, "CodeValue")
    if scheme in _SNOMED_RT and (equal := snomed_mapping["SRT"].get(code)):
        scheme, code = _SNOMED, equal
    return (scheme, code) if _WORD.match(scheme) and _WORD.match(code) else ("", "")
