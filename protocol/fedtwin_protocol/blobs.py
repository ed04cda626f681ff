"""Large contents by their hash: kept once, fetched in chunks, resumed where they broke off.

A blob is only visible under its name when every byte is there and its SHA-256 is right. What has
arrived so far lies beside it as `<hash>.part` and survives a restart of either end.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from fedtwin_protocol.errors import WireError

CHUNK: Final = 1024 * 1024


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
        with draft.open("wb") as file:
            for frame in frames:
                digest.update(frame)
                file.write(frame)
                size += len(frame)
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
        return BlobReceiver(self.path(ref.sha256), ref)

    def remove(self, sha256s: Iterable[bytes]) -> None:
        """Remove blobs that nobody needs any more, and what has arrived of them."""
        for sha256 in sha256s:
            path = self.path(sha256)
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".part").unlink(missing_ok=True)


class BlobReceiver:
    """One blob on its way in; `offset` says which byte is expected next.

    Two peers may send the same content at the same time: the second writes a file of its own.
    """

    def __init__(self, target: Path, ref: BlobRef) -> None:
        self._target = target
        self._part = target.with_name(target.name + ".part")
        self._ref = ref
        self._alone = False
        self._digest = hashlib.sha256()
        self.offset = 0
        self._file = self._resume()

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
        if self.offset < self._ref.size:
            return False
        self._file.close()
        if self._digest.digest() != self._ref.sha256:
            self._drop()
            raise WireError("the content received does not have the promised SHA-256")
        self._part.replace(self._target)
        return True

    def close(self) -> None:
        """Stop for now; what has arrived stays for a later resume."""
        self._file.close()
        if self._alone:
            self._part.unlink(missing_ok=True)

    def _resume(self) -> BinaryIO:
        file: BinaryIO = self._part.open("ab+", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            self._alone = True
            self._part = self._part.with_name(f"{self._part.name}-{os.urandom(8).hex()}")
            return self._part.open("wb", buffering=0)
        if os.fstat(file.fileno()).st_size >= self._ref.size:
            file.truncate(0)
        file.seek(0)
        while data := file.read(CHUNK):
            self._digest.update(data)
            self.offset += len(data)
        return file

    def _drop(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)
