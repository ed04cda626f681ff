"""Lines of a text file one by one, with their numbers, gzipped (BGZF too) or not."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from fedtwin_client.records.lines import Progress
from fedtwin_protocol.errors import RecordError

_LONGEST_LINE = 64 * 1024 * 1024
_LINES_AT_ONCE = 4096
_GZIP = b"\x1f\x8b"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The lines of a file, unpacked, and the file on the disk that tells how far that is."""
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        yield cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw, raw


def numbered_lines(
    path: Path, longest: int = _LONGEST_LINE, progress: Progress | None = None
) -> Iterator[tuple[int, bytes]]:
    """Lines of a text file, gzipped or not, from 1.

    Args:
        path: of the file.
        longest: bytes of a line.
        progress: is told how many bytes more of it were read, as they lie on the disk.

    Raises:
        RecordError: there is no such file, it cannot be read to its end, or a line is too long.
    """
    if not path.is_file():
        raise RecordError(f"expected a file, found none at {path}")
    number = told = 0
    try:
        with _opened(path) as (file, raw):
            while line := file.readline(longest + 1):
                number += 1
                if len(line) > longest:
                    raise RecordError(
                        f"line {number} of {path} is longer than {longest // 1024:,} KiB; is it "
                        "the right file?"
                    )
                yield number, line
                if progress is not None and number % _LINES_AT_ONCE == 0:
                    progress(raw.tell() - told)
                    told = raw.tell()
            if progress is not None:
                progress(raw.tell() - told)
    except EOFError as error:
        raise RecordError(
            f"{path} ends in the middle, after line {number}; copy it again"
        ) from error
    except (OSError, zlib.error) as error:
        raise RecordError(f"cannot read {path} after line {number}: {error}") from error
