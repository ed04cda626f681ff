"""Other files at rest: short ones as one box, long ones as boxes that follow one another.

A long file is a first line, then for each piece its length (4 bytes) and its box. Each box knows
its number and whether it is the last, so that pieces cannot be moved, left out or cut off unseen.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

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
    """

    def __init__(self, path: Path, keyring: Keyring, name: str | None = None) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(handle, "wb")
        self._file.write(_FIRST)
        self._name = name or path.name
        self._key = keyring.for_purpose(f"file {self._name}")[0]
        self._waiting = bytearray()
        self._number = 0

    def write(self, text: str | bytes) -> None:
        """Add text."""
        self._waiting += text.encode() if isinstance(text, str) else text
        while len(self._waiting) >= _PIECE:
            self._put(bytes(self._waiting[:_PIECE]), last=False)
            del self._waiting[:_PIECE]

    def close(self) -> None:
        """Write the last piece."""
        if self._file.closed:
            return
        self._put(bytes(self._waiting), last=True)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _put(self, data: bytes, *, last: bool) -> None:
        box = close_box(self._key, data, _about(self._name, self._number, last))
        self._file.write(_LENGTH.pack(len(box)) + box)
        self._number += 1


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
