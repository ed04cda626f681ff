"""Files of a server on this node's disk: written as they come, gone on with after a break.

Downloads hold patients' records: they lie in a folder that only the node's user can read, are
encrypted where the node's files are, and are removed once they are imported.
"""

import gzip
import json
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol, cast

import httpx

from fedtwin_client.at_rest.files import SealedWriter, open_file, read_whole, write_whole
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.at_rest.room import how_to_mend
from fedtwin_client.records.fhir.server.addresses import shown
from fedtwin_client.records.fhir.server.web import (
    Answer,
    Web,
    is_distrust,
    refusal,
    retry_after,
    unreachable,
)
from fedtwin_protocol.errors import ConfigurationError, RecordError

_TRIES: Final = 6
_MOST_TRIES: Final = 1000
_LONGEST_WAIT_S: Final = 60.0
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_GONE: Final = frozenset({404, 410})
_DENIED: Final = frozenset({401, 403})
_RANGE: Final = re.compile(r"bytes (\d+)-")
_GZIPPED: Final = b"\x1f\x8b"
_NDJSON: Final = "application/fhir+ndjson"


class _Unpacked(gzip.GzipFile):
    """The text of a gzipped file; closes that, too."""

    def __init__(self, behind: BinaryIO) -> None:
        super().__init__(fileobj=behind)
        self._behind = behind

    def close(self) -> None:
        super().close()
        self._behind.close()


class _Writer(Protocol):
    length: int

    def write(self, text: bytes) -> None: ...

    def close(self) -> None: ...

    def leave(self) -> None: ...


class _PlainWriter:
    """A file that is not encrypted, added to at its end."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._file = path.open("ab")
        self.length = path.stat().st_size

    def write(self, text: bytes) -> None:
        self._file.write(text)

    def close(self) -> None:
        self._file.close()

    def leave(self) -> None:
        with suppress(OSError):  # what is still to be written comes again
            self._file.close()


class Contents(NamedTuple):
    """What a file holds.

    Attributes:
        lines: that hold something.
        whole: whether the last one is whole.
    """

    lines: int
    whole: bool


class Folder:
    """The downloads of one server.

    Args:
        path: of the folder; made where there is none.
        keyring: the node's; none: nothing is encrypted.

    Raises:
        RecordError: the folder cannot be made.
    """

    def __init__(self, path: Path, keyring: Keyring | None) -> None:
        self.path = path
        self.keyring = keyring
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"cannot make {path}: {error.strerror}") from error

    def open(self, path: Path) -> BinaryIO:
        """A file's text, whether it is encrypted or not, and whether it came gzipped or not."""
        file = open_file(path, self.keyring)
        # NDJSON begins with neither; some servers send files gzipped, and do not say so.
        if cast("BufferedReader", file).peek(2)[:2] != _GZIPPED:
            return file
        return cast("BinaryIO", _Unpacked(file))

    def files(self, pattern: str) -> list[Path]:
        """Whole files, by name."""
        return sorted(self.path.glob(pattern))

    def read(self, name: str) -> bytes | None:
        """A short file; none if there is none, or it does not open (it is then made anew)."""
        try:
            return read_whole(self.path / name, self.keyring)
        except (OSError, ConfigurationError):
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a short file in one step.

        Raises:
            RecordError: the disk refuses.
        """
        try:
            write_whole(self.path / name, data, self.keyring)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def empty(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def contents(self, path: Path) -> Contents:
        """What a file holds, one resource a line."""
        lines, last = 0, b""
        try:
            with self.open(path) as file:
                for line in file:
                    if line.strip():
                        lines, last = lines + 1, line
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return Contents(lines, whole=False)
        return Contents(lines, whole=not last or last.endswith(b"\n") or _is_json(last))

    def part(self, name: str) -> _Writer:
        """Begin a file, or go on with what there is of it.

        Raises:
            RecordError: the disk refuses.
        """
        path = self.path / f"{name}.part"
        try:
            if self.keyring is None:
                return _PlainWriter(path)
            return SealedWriter(path, self.keyring, name=name, resume=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def drop_part(self, name: str) -> None:
        """Forget what there is of a file."""
        (self.path / f"{name}.part").unlink(missing_ok=True)

    def finish_part(self, name: str) -> Path:
        """Give a file that is whole its name."""
        return (self.path / f"{name}.part").replace(self.path / name)


class Download:
    """One file of a server.

    Args:
        web: to the server.
        folder: to write it to.
        url: where it lies.
        name: that it gets.
        authorised: whether the token goes with the request, if the address is the server's own.
    """

    def __init__(self, web: Web, folder: Folder, url: str, name: str, *, authorised: bool) -> None:
        self._web = web
        self._folder = folder
        self._url = url
        self._name = name
        self._authorised = authorised
        self._renewed = False

    def fetch(self) -> Iterator[int]:
        """Fetch it, from where it broke off before.

        Yields:
            The size of each piece that came, in bytes.

        Raises:
            GoneError: the server has it no longer.
            RecordError: the server refuses, never gives it whole, or the disk is full.
        """
        failures = farthest = 0
        for _ in range(_MOST_TRIES):
            writer = self._folder.part(self._name)
            if writer.length > farthest:
                failures, farthest = 0, writer.length
                self._renewed = False  # a long file may outlive more than one token
            try:
                yield from self._pieces(writer, writer.length)
                writer.close()
                self._folder.finish_part(self._name)
                return
            except _AgainError as error:
                writer.leave()
                wait_s = error.wait_s
                failures += 1
                if failures >= _TRIES:
                    raise error.reason from error
            except OSError as error:
                writer.leave()
                raise _unwritable(self._folder.path, error) from error
            except BaseException:
                writer.leave()
                raise
            self._web.clock.wait(min(2.0**failures, _LONGEST_WAIT_S) if wait_s is None else wait_s)
        raise RecordError(f"{shown(self._url)} broke off {_MOST_TRIES} times")

    def _pieces(self, writer: _Writer, start: int) -> Iterator[int]:
        headers = {"Accept": _NDJSON, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        packed = False
        try:
            opened = self._web.stream(self._url, headers=headers, authorised=self._authorised)
            with opened as response:
                self._check(response, start)
                # What comes packed cannot be gone on with: the break is not counted in its bytes.
                packed = response.headers.get("content-encoding", "identity") != "identity"
                for number, piece in enumerate(response.iter_bytes()):
                    if not start and not number and piece.lstrip()[:1] == b"<":
                        raise GoneError("a web page came in its place")
                    writer.write(piece)
                    yield len(piece)
        except httpx.RequestError as error:
            if is_distrust(error):
                raise unreachable(self._url, error) from error
            if packed:
                self._folder.drop_part(self._name)
            raise _AgainError(unreachable(self._url, error), None) from error

    def _check(self, response: httpx.Response, start: int) -> None:
        """Refuse an answer that does not begin where it should.

        Raises:
            _AgainError: ask again.
            RecordError: asking again does not help.
        """
        status = response.status_code
        if status in {200, 206}:
            if start and not _begins(response, start):
                self._folder.drop_part(self._name)
                raise _AgainError(RecordError(f"{shown(self._url)} gives no part of a file"), 0.0)
            return
        headers = {name.lower(): value for name, value in response.headers.items()}
        answer = Answer(url=self._url, status=status, headers=headers, body=b"")
        if status == 416 and start:
            self._folder.drop_part(self._name)
            raise _AgainError(refusal(answer), 0.0)
        if status == 401 and not self._renewed and self._web.tokens is not None:
            self._renewed = True
            self._web.tokens.renew()
            raise _AgainError(refusal(answer), 0.0)
        if status in _TRANSIENT:
            raise _AgainError(refusal(answer), retry_after(headers, self._web.clock.now()))
        # A link to elsewhere is a permission by itself, and ends with its time.
        if status in _GONE or (status in _DENIED and not self._web.gets_token(self._url)):
            raise GoneError(f"status {status}")
        raise refusal(answer)


class GoneError(Exception):
    """A file that the server does not give out any more, with what it gave instead."""


class _AgainError(Exception):
    def __init__(self, reason: RecordError, wait_s: float | None) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.wait_s = wait_s


def _unwritable(path: Path, error: OSError) -> RecordError:
    mend = how_to_mend(error, path, "mend that and run the command again")
    return RecordError(
        f"cannot write to {path}: {error.strerror}; nothing was imported: {mend}; it goes on where "
        "it was"
    )


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _begins(response: httpx.Response, start: int) -> bool:
    found = _RANGE.match(response.headers.get("content-range", ""))
    return response.status_code == 206 and found is not None and int(found[1]) == start
