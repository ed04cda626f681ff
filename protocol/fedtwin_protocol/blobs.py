"""Large contents by their hash: kept once, fetched in chunks, resumed where they broke off.

A blob is only visible under its name when every byte is there and its SHA-256 is right. What has
arrived so far lies beside it as `<hash>.part`, with its length in `<hash>.part.at`, and survives a
restart of either end.
"""

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

from fedtwin_protocol.errors import WireError

CHUNK: Final = 1024 * 1024
MOST_SPARES: Final = 8
PART_KEPT: Final = timedelta(days=7)
DRAFT_KEPT: Final = timedelta(hours=1)
MOST_PREPARED: Final = 1024**3
PART: Final = ".part"
PROGRESS: Final = ".at"
_OFFSET: Final = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobRef:
    """A blob's SHA-256 (32 bytes) and its length in bytes."""

    sha256: bytes
    size: int


class BlobStore:
    """A folder of blobs.

    Args:
        folder: made if absent, readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def path(self, sha256: bytes) -> Path:
        """Where a complete blob lies, or would lie."""
        return self._folder / sha256.hex()

    def has(self, sha256: bytes) -> bool:
        """Whether the blob is complete."""
        return self.path(sha256).exists()

    def put(self, frames: Iterable[bytes | memoryview]) -> BlobRef:
        """Store frames that follow one another."""
        digest = hashlib.sha256()
        size = 0
        draft = self._folder / f"draft-{os.getpid()}-{os.urandom(8).hex()}"
        self.take_spare(draft)
        with draft.open("r+b" if draft.exists() else "wb") as file:
            for frame in frames:
                digest.update(frame)
                file.write(frame)
                size += len(frame)
            file.truncate()
        draft.replace(self.path(digest.digest()))
        return BlobRef(sha256=digest.digest(), size=size)

    def chunks(self, ref: BlobRef, offset: int) -> Iterator[tuple[int, memoryview]]:
        """Offsets and bytes from `offset` to the end; bytes hold until the next are asked for.

        Raises:
            WireError: the blob is not here, or the offset lies behind its end.
        """
        if not 0 <= offset <= ref.size or not self.has(ref.sha256):
            raise WireError("a blob was asked for that is not here, or from behind its end")
        with self.path(ref.sha256).open("rb", buffering=0) as file:
            file.seek(offset)
            buffer = memoryview(bytearray(CHUNK))
            while size := file.readinto(buffer):
                yield offset, buffer[:size]
                offset += size

    def receive(self, ref: BlobRef) -> "BlobReceiver":
        """Start or resume the receipt of a blob."""
        return BlobReceiver(self, ref)

    def remove(self, sha256s: Iterable[bytes]) -> None:
        """Remove blobs that nobody needs any more, and what has arrived of them."""
        for sha256 in sha256s:
            path = self.path(sha256)
            path.unlink(missing_ok=True)
            for ending in (PART, PART + PROGRESS):
                path.with_name(path.name + ending).unlink(missing_ok=True)

    def recycle(self, sha256s: Iterable[bytes]) -> None:
        """Remove blobs, and keep a few of their files for the next ones to be written into.

        Rounds bring contents of the same size again and again; to write over memory that the
        system already holds takes a fraction of the time that new memory takes.
        """
        done = set(sha256s)
        for sha256 in done:
            with suppress(FileNotFoundError):
                self.path(sha256).rename(self._folder / f"spare-{os.urandom(8).hex()}")
        self.remove(done)
        self._trim()

    def adopt(self, path: Path) -> None:
        """Keep a file that nobody needs any more, on the same disk, as `recycle` does."""
        with suppress(FileNotFoundError):
            path.rename(self._folder / f"spare-{os.urandom(8).hex()}")
        self._trim()

    def prepare(self, contents: int, size: int) -> None:
        """Have files at hand for so many contents of a size that will come soon.

        Does nothing where they would take more than 1 GiB together.
        """
        missing = min(contents, MOST_SPARES) - len(self._spares())
        if size * contents > MOST_PREPARED:
            return
        nothing = memoryview(bytes(CHUNK))
        for _ in range(missing):
            with (self._folder / f"spare-{os.urandom(8).hex()}").open("xb", buffering=0) as file:
                for offset in range(0, size, CHUNK):
                    file.write(nothing[: size - offset])

    def drop_spares(self) -> None:
        """Give the disk back what `recycle` kept."""
        for spare in self._spares():
            spare.unlink(missing_ok=True)

    def tidy(self, now: datetime, *, all_under_way: bool = False) -> None:
        """Remove what a process that was killed left half written, and old unfinished receipts.

        Args:
            now: the time.
            all_under_way: whether nobody refers to blobs for long, so that old ones may go, too.
        """
        rules = [("draft-*", DRAFT_KEPT), (f"*{PART}*", PART_KEPT)]
        if all_under_way:
            rules.append(("*", PART_KEPT))
        for pattern, kept in rules:
            oldest = (now - kept).timestamp()
            for path in self._folder.glob(pattern):
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)

    def take_spare(self, target: Path) -> None:
        """Turn a spare file into `target`, if there is one; what is in it means nothing."""
        for spare in self._spares():
            with suppress(FileNotFoundError):
                spare.rename(target)
                return

    def _trim(self) -> None:
        for spare in self._spares()[MOST_SPARES:]:
            spare.unlink(missing_ok=True)

    def _spares(self) -> list[Path]:
        return sorted(self._folder.glob("spare-*"))


class BlobReceiver:
    """One blob on its way in; `offset` says which byte is expected next.

    How much of the file counts stands in a file beside it, written after each chunk. Two peers may
    send the same content at the same time: the second writes a file of its own.
    """

    def __init__(self, store: BlobStore, ref: BlobRef) -> None:
        self._target = store.path(ref.sha256)
        self._part = self._target.with_name(self._target.name + PART)
        self._ref = ref
        self._digest = hashlib.sha256()
        self.offset = 0
        self._progress: BinaryIO | None = None
        self._file = self._resume(store)

    def append(self, offset: int, data: bytes | memoryview) -> bool:
        """Take the next chunk; true when the blob is complete and its hash is right.

        Raises:
            WireError: a gap, an overrun, or a content that does not have the promised hash
                (what was received is dropped).
        """
        if offset != self.offset or not data:
            raise WireError(f"expected the chunk at byte {self.offset}, got the one at {offset}")
        if offset + len(data) > self._ref.size:
            self._drop()
            raise WireError(f"more than the promised {self._ref.size} bytes were sent")
        rest = memoryview(data)
        while rest:  # a disk that fills up takes a part, and refuses only the rest
            rest = rest[self._file.write(rest) :]
        self._digest.update(data)
        self.offset += len(data)
        if self._progress is not None:
            os.pwrite(self._progress.fileno(), _OFFSET.pack(self.offset), 0)
        if self.offset < self._ref.size:
            return False
        self._file.truncate()
        if self._digest.digest() != self._ref.sha256:
            self._drop()
            raise WireError("the content received does not have the promised SHA-256")
        self._part.replace(self._target)
        self._forget_progress()
        self._file.close()
        return True

    def close(self) -> None:
        """Stop for now; what has arrived stays for a later resume."""
        if self._progress is None:
            self._part.unlink(missing_ok=True)
        else:
            self._progress.close()
        self._file.close()

    def _resume(self, store: BlobStore) -> BinaryIO:
        if not self._part.exists():
            store.take_spare(self._part)
        file: BinaryIO = self._part.open("r+b" if self._part.exists() else "x+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            self._part = self._part.with_name(f"{self._part.name}-{os.urandom(8).hex()}")
            return self._part.open("wb", buffering=0)
        place = os.open(self._progress_file(), os.O_RDWR | os.O_CREAT, 0o600)
        self._progress = os.fdopen(place, "r+b", buffering=0)
        noted = self._progress.read(_OFFSET.size)
        arrived = _OFFSET.unpack(noted)[0] if len(noted) == _OFFSET.size else 0
        if arrived >= self._ref.size:
            arrived = 0
        while self.offset < arrived and (data := file.read(min(CHUNK, arrived - self.offset))):
            self._digest.update(data)
            self.offset += len(data)
        return file

    def _progress_file(self) -> Path:
        return self._part.with_name(self._part.name + PROGRESS)

    def _forget_progress(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress_file().unlink(missing_ok=True)

    def _drop(self) -> None:
        self._part.unlink(missing_ok=True)
        self._forget_progress()
        self._file.close()
