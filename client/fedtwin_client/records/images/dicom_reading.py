"""Reading one DICOM file as foreign bytes: what can be wrong with it, in words.

Nothing is allocated on the word of a header: an image's claimed size is checked against what the
file holds, and against a limit, before any pixel is touched.
"""

import io
import re
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final

import pydicom
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID

from fedtwin_client.records.images.codestreams import claimed_size
from fedtwin_client.records.reading import UnusableError

LARGEST_BYTES: Final = 2 * 1024**3
"""Of a file, and of the pixels that one instance unpacks to."""
DIRECTORY_CLASS: Final = "1.2.840.10008.1.3.10"
SEGMENTATION_CLASS: Final = "1.2.840.10008.5.1.4.1.1.66.4"
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*\Z")
_UNCOMPRESSED: Final = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
)
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_RLE: Final = "1.2.840.10008.1.2.5"
_JPEG: Final = (b"\xff\xd8",)
_STARTS: Final = {
    **{f"1.2.840.10008.1.2.4.{number}": _JPEG for number in (50, 51, 57, 70, 80, 81)},
    **{
        f"1.2.840.10008.1.2.4.{number}": (b"\xff\x4f", b"\x00\x00\x00\x0cjP") for number in (90, 91)
    },
}
JPEG_SYNTAXES: Final = frozenset(_STARTS)
"""JPEG, JPEG-LS and JPEG 2000."""
TRANSFER_SYNTAXES: Final = (*sorted(_UNCOMPRESSED), _RLE, *_STARTS)
"""Those that can be read."""
_NOT_DECODED: Final = "its pixels cannot be decoded: damaged, or in a compression not known here"
_LONGEST_META: Final = 65_536
_LONG: Final = {b"OB", b"OW", b"SQ", b"UN", b"UT"}
"""Representations whose length takes four bytes."""
_SAMPLES: Final = {1, 3, 4}
_BITS: Final = {1, 8, 16, 32}


def read_dataset(data: bytes) -> Dataset:
    """Read a DICOM file (PS3.10).

    Raises:
        UnusableError: it is none, or damaged.
    """
    return _read(io.BytesIO(data), len(data), pixels=True)


def read_header(path: Path) -> Dataset:
    """Read a DICOM file but for its pixels.

    Raises:
        UnusableError: it is none, or damaged, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size, pixels=False)
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from error


def _read(file: BinaryIO, size: int, *, pixels: bool) -> Dataset:
    if size > LARGEST_BYTES:
        raise UnusableError("larger than 2 GiB")
    start = file.read(_LONGEST_META)
    if start[128:132] != b"DICM":
        raise UnusableError("not a DICOM file: no 'DICM' after its first 128 bytes")
    syntax = _syntax(start)
    if syntax == _DEFLATED:
        raise UnusableError("a deflated dataset is not read; send it uncompressed")
    if syntax not in TRANSFER_SYNTAXES:
        shown = syntax if _UID.match(syntax) and len(syntax) <= 64 else "none"
        raise UnusableError(f"transfer syntax {shown} is not known")
    file.seek(0)
    try:
        with warnings.catch_warnings(action="ignore"):
            return pydicom.dcmread(file, stop_before_pixels=not pixels)
    except Exception as error:  # pydicom lets whatever a parser may meet through
        raise UnusableError("not readable as DICOM: damaged or cut off") from error


def _syntax(start: bytes) -> str:
    """The transfer syntax, before anything is unpacked by it; empty if there is none.

    The file's own header is always in explicit little endian (PS3.10 section 7.1).
    """
    place = 132
    while start[place : place + 2] == b"\x02\x00" and len(start) >= place + 12:
        long = start[place + 4 : place + 6] in _LONG
        width, at = ("<I", place + 8) if long else ("<H", place + 6)
        (length,) = struct.unpack_from(width, start, at)
        value = at + struct.calcsize(width)
        if start[place + 2 : place + 4] == b"\x10\x00":
            return start[value : value + length].decode("ascii", "replace").strip("\0 ")
        place = value + length
    return ""


def attribute(dataset: Dataset, keyword: str) -> Any:
    """The value of an attribute; none if it is absent, empty or damaged."""
    try:
        value = dataset.get(keyword)
    except Exception:  # a value of another kind than its VR says
        return None
    return None if value is None or value == "" else value


def items_of(dataset: Dataset, keyword: str) -> Sequence:
    """The items of a sequence; none if it is absent, or its VR says that it is something else."""
    value = attribute(dataset, keyword)
    return value if isinstance(value, Sequence) else Sequence()


def parts_of(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an attribute that may have several, as texts."""
    value = attribute(dataset, keyword)
    return list(map(str, value)) if isinstance(value, MultiValue) else [str(value or "")]


def text_of(dataset: Dataset, keyword: str) -> str:
    """The text of an attribute; empty if there is none."""
    value = attribute(dataset, keyword)
    return "" if value is None else str(value).strip().strip("\0")


def whole(dataset: Dataset, keyword: str, otherwise: int = 0) -> int:
    """A whole number; `otherwise` where there is none.

    Raises:
        UnusableError: it is no whole number.
    """
    value = attribute(dataset, keyword)
    try:
        return otherwise if value is None else int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnusableError(f"{keyword} is no whole number") from error


def identifier(dataset: Dataset, keyword: str) -> str:
    """A UID; empty if there is none.

    Raises:
        UnusableError: it is not a UID.
    """
    written = text_of(dataset, keyword)
    if written and (len(written) > 64 or not _UID.match(written)):
        raise UnusableError(f"{keyword} is not a UID")
    return written


def either(*candidates: str) -> str:
    """The first that is not empty."""
    return next((text for text in candidates if text), "")


def instance_uid(dataset: Dataset) -> str:
    """The SOP Instance UID, of the dataset or else of the file's own header.

    Raises:
        UnusableError: there is none, or it is not a UID.
    """
    meta = dataset.file_meta
    uid = either(
        identifier(dataset, "SOPInstanceUID"), identifier(meta, "MediaStorageSOPInstanceUID")
    )
    if not uid:
        raise UnusableError("no SOP Instance UID")
    return uid


def class_uid(dataset: Dataset) -> UID:
    """The SOP Class UID, of the dataset or else of the file's own header; empty if there is none.

    Raises:
        UnusableError: it is not a UID.
    """
    meta = dataset.file_meta
    written = either(
        identifier(dataset, "SOPClassUID"), identifier(meta, "MediaStorageSOPClassUID")
    )
    return UID(written)


def check_pixels(dataset: Dataset) -> None:
    """Refuse an image whose pixels are not what its header says.

    Raises:
        UnusableError: it is cut off, claims an impossible size, or is coded otherwise than it says.
    """
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    frames = whole(dataset, "NumberOfFrames", 1)
    samples, bits = whole(dataset, "SamplesPerPixel", 1), whole(dataset, "BitsAllocated")
    if rows < 1 or columns < 1 or frames < 1 or samples not in _SAMPLES or bits not in _BITS:
        raise UnusableError("impossible Rows, Columns, frames, samples or bits of a pixel")
    expected = (rows * columns * samples * frames * bits + 7) // 8
    if expected > LARGEST_BYTES:
        raise UnusableError("claims to unpack to more than 2 GiB of pixels")
    pixels = attribute(dataset, "PixelData")
    if not isinstance(pixels, bytes):
        raise UnusableError("no Pixel Data, or cut off within it")
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax in _UNCOMPRESSED:
        if text_of(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
            expected = expected * 2 // 3  # colours at half the width: PS3.3 C.7.6.3.1.2
        if len(pixels) < expected:
            raise UnusableError("cut off: fewer pixels than Rows x Columns x frames")
        return
    found = _frames(pixels, frames)
    starts = _STARTS.get(syntax)
    if starts and not all(frame.startswith(starts) for frame in found):
        raise UnusableError("pixels coded otherwise than the transfer syntax says")
    if starts and any(claimed_size(frame) not in {None, (rows, columns)} for frame in found):
        raise UnusableError("compressed pixels of another size than Rows x Columns")


def decoded(dataset: Dataset) -> Any:
    """The pixels as an array: (rows, columns), or with frames first, samples last.

    Raises:
        UnusableError: they cannot be decoded.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return dataset.pixel_array
    except Exception as error:  # decoders in C let through what they like
        raise UnusableError(_NOT_DECODED) from error


def _frames(pixels: bytes, frames: int) -> list[bytes]:
    try:
        found = list(generate_frames(pixels, number_of_frames=frames))
    except Exception as error:  # items that run over the end
        raise UnusableError("compressed pixels that are damaged or cut off") from error
    if len(found) != frames:
        raise UnusableError("another number of compressed frames than the header says")
    return found


def find_dicom(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Files to read, in order, and those that a DICOMDIR names and that are not there.

    Args:
        paths: files, folders, and DICOMDIR files, which stand for the files that they name.

    Raises:
        UnusableError: a DICOMDIR cannot be read.
        OSError: a path is not there.
    """
    found: list[Path] = []
    absent: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.is_file())
        elif path.name.upper() == "DICOMDIR":
            for file in _named_in(path):
                (found if file.is_file() else absent).append(file)
        else:
            path.stat()
            found.append(path)
    return list(dict.fromkeys(found)), absent


def _named_in(directory: Path) -> list[Path]:
    dataset = read_dataset(directory.read_bytes())
    named = []
    for record in items_of(dataset, "DirectoryRecordSequence"):
        parts = parts_of(record, "ReferencedFileID")
        if not any(part in {"", ".", ".."} or "/" in part for part in parts):
            named.append(directory.parent.joinpath(*parts))
    return named
