"""The size that a compressed image claims by itself, read before anything is unpacked.

JPEG, lossless JPEG and JPEG-LS say it in their frame header (ISO/IEC 10918-1 B.2.2, 14495-1
C.2.2), JPEG 2000 in its SIZ marker (ISO/IEC 15444-1 A.5.1).
"""

import struct
from typing import Final

_START: Final = b"\xff\xd8"
_STARTS_2000: Final = b"\xff\x4f\xff\x51"
_FRAMES: Final = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of frame headers: SOF0 to SOF15 without DHT, JPG and DAC; SOF55 of JPEG-LS."""


def claimed_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns; none if it does not say, or is coded otherwise."""
    try:
        if frame.startswith(_START):
            return _jpeg(frame)
        place = frame.find(_STARTS_2000, 0, 4096)  # a JP2 file has boxes before it
        if place >= 0:
            right, bottom, left, top = struct.unpack_from(">4I", frame, place + 8)
            return bottom - top, right - left
    except (struct.error, IndexError):
        return None
    return None


def _jpeg(frame: bytes) -> tuple[int, int] | None:
    place = 2
    while frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            place += 1
            continue
        if marker in _FRAMES:
            rows, columns = struct.unpack_from(">HH", frame, place + 5)
            return rows, columns
        (length,) = struct.unpack_from(">H", frame, place + 2)
        place += 2 + length
    return None
