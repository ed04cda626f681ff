"""Chunks of large contents travel as raw frames beside the messages of the stream.

A frame is one zero byte, the content's SHA-256 (32 bytes), the offset of the chunk's first byte
(8 bytes, little-endian) and the chunk's bytes. No protobuf message begins with a zero byte (that
would be field number 0), so the two are told apart by the first byte; a chunk is thus neither
packed into a message nor taken out of one, which would copy it four times more.
"""

import struct
from dataclasses import dataclass
from typing import Final

from fedtwin_protocol.errors import WireError

LARGEST_CHUNK: Final = 1024 * 1024
_HEAD: Final = struct.Struct("<x32sQ")
_MARK: Final = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A part of a content.

    Attributes:
        sha256: of the whole content.
        offset: of the first byte.
        data: at most 1 MiB.
    """

    sha256: bytes
    offset: int
    data: bytes | memoryview

    def to_frame(self) -> bytes:
        """The chunk as it travels."""
        return b"".join((_HEAD.pack(self.sha256, self.offset), self.data))


def is_chunk(frame: bytes) -> bool:
    """Whether a frame is a chunk; else it is a message."""
    return bool(frame) and frame[0] == _MARK


def chunk_from_frame(frame: bytes) -> Chunk:
    """Read a chunk; its data are a view of the frame.

    Raises:
        WireError: it is too short to be one, or too long to be accepted.
    """
    size = len(frame) - _HEAD.size
    if not 0 <= size <= LARGEST_CHUNK:
        raise WireError(
            f"a chunk's frame of {len(frame)} bytes came; expected {_HEAD.size} to "
            f"{_HEAD.size + LARGEST_CHUNK}"
        )
    sha256, offset = _HEAD.unpack_from(frame)
    return Chunk(sha256=sha256, offset=offset, data=memoryview(frame)[_HEAD.size :])
