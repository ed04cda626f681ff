"""Files of lines, read in pieces of whole lines, so that memory stays flat whatever a file holds.

A line ends with a line feed. One that is longer than the limit is never held: its number and its
beginning are told, and it is passed over.
"""

import gzip
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

LONGEST_LINE: Final = 16 * 1024 * 1024
PIECE: Final = 20 * 1024 * 1024
_SHOWN: Final = 800_000  # bytes: more characters than a quarantine keeps, which then says so
_NEAR: Final = 1 << 15
_STEP: Final = 1 << 18  # what fits the processor's cache

Progress = Callable[[int], None]
"""Is told how many bytes of a file more have been read, as they lie on the disk."""
OpenFile = Callable[[Path], BinaryIO]
"""Opens a file for reading: unpacked, decrypted."""


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Whole lines that follow one another.

    Attributes:
        first: the number of the first line, from 1.
        data: the lines; only the last of a file may lack its line feed. Of a line that is too
            long, its beginning.
        too_long: whether it is one line that is longer than the limit.
    """

    first: int
    data: bytes
    too_long: bool = False

    @cached_property
    def feeds(self) -> NDArray[np.int64]:
        """Where each line feed stands."""
        lengths = np.fromiter(map(len, io.BytesIO(self.data)), dtype=np.int64)
        ends = np.cumsum(lengths) - 1
        return ends if self.data.endswith(b"\n") else ends[:-1]

    def each(self) -> Iterator[tuple[int, bytes]]:
        """Every line with its number."""
        start, number = 0, self.first
        while start < len(self.data):
            end = self.data.find(b"\n", start) + 1 or len(self.data)
            yield number, self.data[start:end]
            start, number = end, number + 1


def read_lines(
    file: Path,
    progress: Progress | None = None,
    *,
    opened: OpenFile | None = None,
    piece: int = PIECE,
    longest: int = LONGEST_LINE,
) -> Iterator[Lines]:
    """All lines of a file.

    Args:
        file: to read.
        progress: is told of every piece.
        opened: opens it; none: as `open_plain` does.
        piece: bytes to read at once.
        longest: bytes of the longest line that is held.

    Raises:
        OSError, EOFError, zlib.error: the file cannot be read to its end.
    """
    with _opened(file, opened) as (stream, raw):
        number, rest, told = 1, b"", 0
        seen = stream is raw and opened is None
        while data := stream.read(piece + (_to_line_end(raw, piece) if seen else 0)):
            if progress is not None:
                progress(raw.tell() - told)
                told = raw.tell()
            end = data.rfind(b"\n") + 1
            if not end:
                rest += data
            else:
                whole, rest = _cut(rest, data, end)
                for lines in _whole(number, whole, longest):
                    yield lines
                    number += len(lines.feeds) or 1
            if len(rest) > longest:
                yield Lines(first=number, data=rest[:_SHOWN], too_long=True)
                number += 1
                rest = _after_line(stream, piece)
        yield from _whole(number, rest, longest)


@contextmanager
def _opened(file: Path, opened: OpenFile | None) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """What is read, and the file on the disk that tells how far that is."""
    if opened is not None:
        with opened(file) as stream:
            yield stream, stream
        return
    with file.open("rb") as raw:
        packed = file.suffix == ".gz"
        yield cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if packed else raw, raw


def begins_with(file: Path, word: bytes, opened: OpenFile | None = None) -> bool:
    """Whether a word comes in the first bytes of a file; as `holds`."""
    with _opened(file, opened) as (stream, _):
        return word in stream.read(_STEP)


def holds(file: Path, word: bytes, opened: OpenFile | None = None) -> bool:
    """Whether a word comes anywhere in a file.

    Args:
        file: to read.
        word: at least one byte; it may stand across the ends of lines.
        opened: opens it; none: as `open_plain` does.

    Raises:
        OSError, EOFError, zlib.error: the file cannot be read to its end.
    """
    kept = len(word) - 1
    with _opened(file, opened) as (stream, _):
        end = b""
        while data := stream.read(_STEP):
            # Python searches twice as fast from behind: there it passes over whole words at a time.
            if data.rfind(word) >= 0 or word in end + data[:kept]:
                return True
            end = (end + data[-kept:])[-kept:] if kept else b""
    return False


def open_plain(file: Path) -> BinaryIO:
    """A file to be read; `.gz` is unpacked."""
    return cast("BinaryIO", gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")


def _whole(number: int, data: bytes, longest: int) -> Iterator[Lines]:
    """Whole lines, each that is too long by itself."""
    if not data:
        return
    lines = Lines(first=number, data=data)
    if len(data) <= longest:
        yield lines
        return
    ends = lines.feeds + 1 if data.endswith(b"\n") else np.append(lines.feeds + 1, len(data))
    starts = np.concatenate([[0], ends[:-1]])
    done, place = 0, 0
    for row in np.flatnonzero(ends - starts > longest).tolist():
        start, end = int(starts[row]), int(ends[row])
        if start > place:
            yield Lines(first=number + done, data=data[place:start])
        shown = data[start : min(end, start + _SHOWN)].partition(b"\n")[0]
        yield Lines(first=number + row, data=shown, too_long=True)
        done, place = row + 1, end
    if not place:
        yield lines
    elif place < len(data):
        yield Lines(first=number + done, data=data[place:])


def _to_line_end(raw: BinaryIO, piece: int) -> int:
    """Bytes to the end of the line in which a piece ends, if it is near: saves copies of pieces."""
    near = os.pread(raw.fileno(), _NEAR, raw.tell() + piece)
    return near.find(b"\n") + 1


def _cut(rest: bytes, data: bytes, end: int) -> tuple[bytes, bytes]:
    """Whole lines, and what comes after them."""
    if not rest and end == len(data):
        return data, b""
    with memoryview(data) as view:
        return b"".join((rest, view[:end])), bytes(view[end:])


def _after_line(stream: BinaryIO, piece: int) -> bytes:
    """Pass over the rest of a line; what was read of the lines after it."""
    while data := stream.read(piece):
        end = data.find(b"\n") + 1
        if end:
            return data[end:]
    return b""
