"""Other files at rest: short ones as one box, long ones as boxes that follow one another.

A long file is a first line, then for each piece its length (4 bytes) and its box. Each box knows
its number and whether it is the last, so that pieces cannot be moved, left out or cut off unseen.
"""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from fedtwin_client.at_rest.boxes import BoxError, close_box, open_box
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_protocol.errors import ConfigurationError

_FIRST: Final = b"fedtwin-sealed-1\n"
_LENGTH: Final = struct.Struct("<I")
_PIECE: Final = 64 * 1024
_LARGEST: Final = 64 * 1024 * 1024


def is_sealed(path: Path) -> bool:
    """Whether a file is one of ours, encrypted."""
    with path.open("rb") as file:
        return file.read(len(_FIRST)) == _FIRST


class SealedWriter:
    """Writes text into an encrypted file, piece by piece.

    Args:
        path: made anew, with rights 0600.
        keyring: the node's.
        name: that the file will have, if it is written under another.
        resume: go on with a file that was not closed, after its last whole piece.

    Attributes:
        length: bytes of text that the whole pieces hold.
    """

    def __init__(
        self, path: Path, keyring: Keyring, name: str | None = None, *, resume: bool = False
    ) -> None:
        self._number = _whole_pieces(path) if resume and path.exists() else 0
        kept = 0 if self._number else os.O_TRUNC
        handle = os.open(path, os.O_RDWR | os.O_CREAT | kept, 0o600)
        self._file = os.fdopen(handle, "r+b")
        try:
            if not self._number:
                self._file.write(_FIRST)
            self._file.seek(0, os.SEEK_END)
        except OSError:
            self.leave()
            raise
        self._name = name or path.name
        self._key = keyring.for_purpose(f"file {self._name}")[0]
        self._waiting = bytearray()
        self.length = self._number * _PIECE

    def write(self, text: str | bytes) -> None:
        """Add text."""
        self._waiting += text.encode() if isinstance(text, str) else text
        while len(self._waiting) >= _PIECE:
            self._put(bytes(self._waiting[:_PIECE]), last=False)
            self.length += _PIECE
            del self._waiting[:_PIECE]

    def close(self) -> None:
        """Write the last piece."""
        if self._file.closed:
            return
        try:
            self._put(bytes(self._waiting), last=True)
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self.leave()

    def leave(self) -> None:
        """Close the file unfinished, to be gone on with after its last whole piece."""
        with suppress(OSError):  # of a full disk, once more
            self._file.close()

    def _put(self, data: bytes, *, last: bool) -> None:
        box = close_box(self._key, data, _about(self._name, self._number, last))
        self._file.write(_LENGTH.pack(len(box)) + box)
        self._number += 1


class _Pieces(io.RawIOBase):
    """The text of an encrypted file as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        taken = min(len(view), len(self._rest))
        view[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken


def open_file(path: Path, keyring: Keyring | None) -> BinaryIO:
    """A file's text as a stream of bytes, whether it is encrypted or not.

    Raises:
        ConfigurationError: while reading: it does not open, was changed, or was cut off.
    """
    if keyring is not None and is_sealed(path):
        return io.BufferedReader(_Pieces(read_sealed(path, keyring)), _PIECE)
    return path.open("rb")


def seal_whole(path: Path, data: bytes, keyring: Keyring, name: str) -> None:
    """Write an encrypted file under one name that it will have under another.

    Raises:
        OSError: it cannot be written.
    """
    writer = SealedWriter(path, keyring, name=name)
    try:
        writer.write(data)
        writer.close()
    finally:
        writer.leave()


def write_whole(path: Path, data: bytes, keyring: Keyring | None) -> None:
    """Write a short file in one step, readable by its owner alone, encrypted with a keyring.

    Raises:
        OSError: it cannot be written; it is then what it was.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    try:
        if keyring is not None:
            seal_whole(draft, data, keyring, path.name)
        else:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def read_whole(path: Path, keyring: Keyring | None) -> bytes:
    """A short file's content, whether it is encrypted or not.

    Raises:
        OSError: there is none, or it cannot be read.
        ConfigurationError: it does not open with this node's keys.
    """
    with open_file(path, keyring) as file:
        return file.read()


def _whole_pieces(path: Path) -> int:
    """How many whole pieces an unfinished file holds; what follows them is cut off."""
    with path.open("r+b") as file:
        if file.read(len(_FIRST)) != _FIRST:
            return 0
        number, end = 0, len(_FIRST)
        size = os.fstat(file.fileno()).st_size
        while True:
            length = file.read(_LENGTH.size)
            following = end + _LENGTH.size
            following += _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else size + 1
            if following > size:
                break
            number, end = number + 1, following
            file.seek(end)
        file.truncate(end)
    return number


def read_sealed(path: Path, keyring: Keyring) -> Iterator[bytes]:
    """The pieces of an encrypted file.

    Raises:
        ConfigurationError: it does not open, was changed, or was cut off.
    """
    keys = keyring.for_purpose(f"file {path.name}")
    with path.open("rb") as file:
        file.read(len(_FIRST))
        number, last = 0, False
        while not last:
            length = file.read(_LENGTH.size)
            size = _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else _LARGEST + 1
            box = file.read(size) if size <= _LARGEST else b""
            box = box if len(box) == size else b""
            data, last = _opened(path, keys, box, number)
            yield data
            number += 1
        if file.read(1):
            raise ConfigurationError(f"{path} has more in it than was written: it was changed")


def _opened(path: Path, keys: list[bytes], box: bytes, number: int) -> tuple[bytes, bool]:
    for key in keys:
        for last in (False, True):
            try:
                return open_box(key, box, _about(path.name, number, last)), last
            except BoxError:
                continue
    raise ConfigurationError(
        f"{path} does not open from piece {number} on: it was cut off or changed, or the keys are "
        "another node's"
    )


def _about(name: str, number: int, last: bool) -> str:
    return f"{name} {number}{' end' if last else ''}"
