"""Words beside the pixels of a compressed image: comments, and what cameras write of a picture.

A JPEG frame may hold comments and application segments: EXIF and XMP say when and where a picture
was taken, and whose camera it was. None of it is needed to decode the frame; what is needed stays:
JFIF, ICC profiles, and the colour transforms of Adobe and of JPEG-LS (ISO/IEC 10918-1 B.2.4.5 and
B.2.4.6, 14495-2). JPEG 2000 has comments alone (ISO/IEC 15444-1 A.9.2). What stands between the
scans of a frame, or its tiles, is left.
"""

import struct
from collections.abc import Callable
from typing import Final

from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames

_JPEG: Final = b"\xff\xd8"
_JPEG_2000: Final = b"\xff\x4f"
_COMMENT: Final = 0xFE
_APPLICATION: Final = range(0xE0, 0xF0)
_NEEDED: Final = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xE8: b"", 0xEE: b"Adobe"}
_SCAN: Final = 0xDA
_COMMENT_2000: Final = 0x64
_TILE_2000: Final = 0x90


def clean_frames(dataset: Dataset) -> None:
    """Take the words out of all compressed frames of an image, in place.

    Args:
        dataset: whose pixels were checked, and are JPEG of some kind.
    """
    number = int(dataset.get("NumberOfFrames") or 1)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=number))
    clean = [without_words(frame) for frame in frames]
    if clean == frames:
        return
    dataset.PixelData = encapsulate(clean)
    dataset["PixelData"].VR = "OB"
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:  # places of the frames as they were
            delattr(dataset, keyword)


def without_words(frame: bytes) -> bytes:
    """A frame without comments and what else is not needed to decode it.

    Args:
        frame: JPEG, JPEG-LS or a JPEG 2000 codestream; others stay as they are, and so does what
            cannot be taken apart.
    """
    if frame.startswith(_JPEG):
        return _without(frame, _SCAN, _is_words)
    if frame.startswith(_JPEG_2000):
        return _without(frame, _TILE_2000, lambda marker, _: marker == _COMMENT_2000)
    return frame


def _is_words(marker: int, body: bytes) -> bool:
    if marker in _APPLICATION:
        return marker not in _NEEDED or not body.startswith(_NEEDED[marker])
    return marker == _COMMENT


def _without(frame: bytes, last: int, goes: Callable[[int, bytes], bool]) -> bytes:
    """The segments before the image itself, but for some."""
    kept = [frame[:2]]
    place = 2
    while len(frame) >= place + 4 and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == last:
            break
        if marker == 0xFF:  # fill bytes may stand before a marker
            place += 1
            continue
        (length,) = struct.unpack_from(">H", frame, place + 2)
        segment = frame[place : place + 2 + length]
        if length < 2 or len(segment) < 2 + length:
            return frame
        if not goes(marker, segment[4:]):
            kept.append(segment)
        place += 2 + length
    return b"".join([*kept, frame[place:]])
