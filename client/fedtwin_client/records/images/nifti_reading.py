"""Reading NIfTI-1 and NIfTI-2 volumes as foreign bytes, into DICOM's patient coordinates.

The matrix of `sform` counts before that of `qform`; a file with neither does not say where it lies
and is refused. NIfTI's axes point right, front and head (nifti1.h); DICOM's left, back and head.
"""

import gzip
import io
import logging
import re
import zlib
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree

import nibabel
import numpy as np

from fedtwin_client.records.images.geometry import FARTHEST_MM, WIDEST_MM, Grid
from fedtwin_client.records.reading import UnusableError

# It mends a damaged header in memory and says so on standard error; the report says it in words.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

LARGEST_BYTES: Final = 2 * 1024**3
_TO_DICOM: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_TO_MM: Final = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}
_ENTITY: Final = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
_LARGEST_LABEL: Final = 65_535


@dataclass(frozen=True, kw_only=True, slots=True)
class Nifti:
    """A volume.

    Attributes:
        image: nibabel's image, whose pixels are not read yet.
        grid: where it lies; (column, row, slice) are the file's three axes in their order.
        voxel_mm3: volume of a voxel.
        remarks: what is worth a look.
        names: of labels, where the file holds a table of them.
    """

    image: Any
    grid: Grid
    voxel_mm3: float
    remarks: tuple[str, ...]
    names: dict[int, str]

    def values(self) -> np.ndarray:
        """(slices, rows, columns), scaled as the file says.

        Raises:
            UnusableError: the file is cut off or damaged.
        """
        try:
            values = np.asarray(self.image.dataobj)
        except Exception as error:  # whatever reading beyond the end may raise
            raise UnusableError("cut off or damaged: fewer voxels than its header says") from error
        values = values.reshape(values.shape[:3])
        if values.dtype.kind not in "biuf":
            raise UnusableError("voxels that are no numbers")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UnusableError("voxels that are not finite numbers")
        return np.ascontiguousarray(values.transpose(2, 1, 0))


def read_nifti(data: bytes) -> Nifti:
    """Read a volume, plain or gzipped.

    Raises:
        UnusableError: it is none, damaged, not three-dimensional, or does not say where it lies.
    """
    plain = _unpacked(data)
    try:
        kind = nibabel.Nifti2Image if plain[:4] in _SECOND else nibabel.Nifti1Image
        image = kind.from_bytes(plain)
        header: Any = image.header
        shape = tuple(int(size) for size in image.shape)
        unit = header.get_xyzt_units()[0]
        zooms = np.array(header.get_zooms()[:3], dtype=np.float64)
        codes = int(header["qform_code"]), int(header["sform_code"])
        forms = [
            header.get_qform() if codes[0] > 0 else None,
            header.get_sform() if codes[1] > 0 else None,
        ]
    except Exception as error:  # nibabel lets whatever a parser may meet through
        raise UnusableError("not readable as NIfTI: damaged or cut off") from error
    if len(shape) < 3 or min(shape) < 1 or any(size != 1 for size in shape[3:]):
        raise UnusableError("expected three dimensions, found a volume over time, or less")
    if int(np.prod(shape, dtype=object)) * 8 > LARGEST_BYTES:
        raise UnusableError("claims more than 2 GiB of voxels")
    affine, remarks = _affine(forms, zooms, unit)
    grid = Grid(
        shape=(shape[2], shape[1], shape[0]),
        affine=_TO_DICOM @ affine,
        spacing_mm=tuple(float(np.linalg.norm(affine[:3, axis])) for axis in (2, 1, 0)),  # type: ignore[arg-type]
        even=True,
    )
    return Nifti(
        image=image,
        grid=grid,
        voxel_mm3=float(abs(np.linalg.det(affine[:3, :3]))),
        remarks=tuple(remarks),
        names=_label_table(header),
    )


def labels_from(nifti: Nifti) -> np.ndarray:
    """The voxels as labels: (slices, rows, columns), whole numbers from 0 on.

    Raises:
        UnusableError: they are something else.
    """
    values = nifti.values()
    if values.min() < 0 or values.max() > _LARGEST_LABEL or (values != np.rint(values)).any():
        raise UnusableError("expected labels (whole numbers from 0 on), found an image")
    return values.astype(np.uint16)


def cleaned(nifti: Nifti, values: np.ndarray) -> bytes:
    """The volume as it is kept: voxels and place alone, none of the header's texts."""
    affine = _TO_DICOM @ nifti.grid.affine
    # The first format counts voxels along an axis in 16 bits.
    make: Any = nibabel.Nifti1Image if max(values.shape) < 2**15 else nibabel.Nifti2Image
    fresh = make(values.transpose(2, 1, 0), affine, dtype=values.dtype)
    fresh.header.set_xyzt_units("mm")
    return bytes(fresh.to_bytes())


def on_grid(labels: np.ndarray, own: Grid, other: Grid) -> np.ndarray | None:
    """Labels turned so that their axes run as those of another grid; none if they do not fit.

    Args:
        labels: (slices, rows, columns).
        own: where they lie.
        other: where the series lies that they are about.
    """
    steps = np.linalg.inv(other.affine) @ own.affine  # from own indices to the other's
    turn = np.rint(steps[:3, :3])
    if np.abs(steps[:3, :3] - turn).max() > 0.02 or (np.abs(turn).sum(axis=0) != 1).any():
        return None
    if (np.abs(turn).sum(axis=1) != 1).any():
        return None
    axes = [int(np.argmax(np.abs(turn[row]))) for row in range(3)]  # own axis of each other axis
    moved = labels.transpose(2, 1, 0).transpose(axes)
    start = steps[:3, 3].copy()
    for row, axis in enumerate(axes):
        if turn[row, axis] < 0:
            moved = np.flip(moved, axis=row)
            start[row] -= moved.shape[row] - 1
    turned = moved.transpose(2, 1, 0)
    if turned.shape != other.shape or np.abs(start).max() > 0.1:
        return None
    return np.ascontiguousarray(turned)


_SECOND: Final = (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
"""sizeof_hdr of NIfTI-2: 540, in either byte order."""


def _unpacked(data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            plain = packed.read(LARGEST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnusableError("cut off or damaged: its gzip does not unpack") from error
    if len(plain) > LARGEST_BYTES:
        raise UnusableError("unpacks to more than 2 GiB")
    return plain


def _affine(
    forms: list[np.ndarray | None], zooms: np.ndarray, unit: str
) -> tuple[np.ndarray, list[str]]:
    qform, sform = forms
    affine = sform if sform is not None else qform
    if affine is None:
        raise UnusableError("it does not say where it lies (qform_code and sform_code are 0)")
    affine = np.array(affine, dtype=float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UnusableError("a matrix of its place (qform, sform) that is not invertible")
    remarks = []
    if unit not in _TO_MM:
        remarks.append("no unit of length in the header: millimetres are meant, as NIfTI advises")
    if qform is not None and sform is not None and np.abs(qform - sform).max() > 0.01:
        remarks.append("qform and sform disagree; sform counts")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(lengths, zooms, rtol=0.01):
        raise UnusableError("its matrix and its voxel sizes (pixdim) disagree")
    affine[:3] *= _TO_MM.get(unit, 1.0)
    if np.linalg.norm(affine[:3, :3], axis=0).max() > WIDEST_MM:
        raise UnusableError("impossible voxel sizes")
    if np.abs(affine[:3, 3]).max() > FARTHEST_MM:
        raise UnusableError("an impossible place")
    return affine, remarks


def _label_table(header: Any) -> dict[int, str]:
    """The table of labels in an extension, as Caret and TotalSegmentator write it."""
    names: dict[int, str] = {}
    for extension in header.extensions:
        raw = extension.content.strip(b"\0 \n")  # as it lies there, never unpacked by its kind
        if b"<LabelTable" not in raw or _ENTITY.search(raw):
            continue
        try:
            labels = list(ElementTree.fromstring(raw).iter("Label"))  # noqa: S314 - no entities
            names |= {int(label.attrib["Key"]): (label.text or "").strip() for label in labels}
        except (ElementTree.ParseError, KeyError, ValueError):
            continue
    return names
