"""HL7 v2 files as a source: one message or many, batches (FHS, BHS), any line ends, also gzipped.

Files are read as they come, so that memory stays flat however large they are; a message above the
limit is put aside without being held. Frames of MLLP and byte-order marks are taken off.
"""

import codecs
import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, cast

from fedtwin_client.records.hl7.events import Hl7Reader
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.hl7.text import read_message, shown_message
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version, check_source_name
from fedtwin_protocol.errors import RecordError

ENDINGS = (".hl7", ".hl7v2", ".er7", ".hl7.gz", ".hl7v2.gz", ".er7.gz")
LARGEST = 16 * 1024 * 1024
"""Bytes of a message, or of a line."""
_CHUNK = 1024 * 1024
_ENDS = re.compile(rb"\r\n|\r|\n")
_SHOWN = 800_000  # bytes: more characters than a quarantine keeps, which then says so
_STRIPPED = b"\x0b\x1c\x00 \t"
_BOM = b"\xef\xbb\xbf"
_WIDE = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
         (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_BATCH = (b"FHS", b"BHS", b"BTS", b"FTS")


def hl7_files(
    paths: Sequence[Path],
    feed: str,
    whose: Whose,
    *,
    encoding: str = "utf-8",
    progress: Callable[[int], None] | None = None,
) -> OpenSource:
    """HL7 v2 messages in files.

    Args:
        paths: files, and folders that are searched for files with the endings of HL7.
        feed: a name for where the messages come from; the records of two feeds do not meet.
        whose: which of a patient's numbers counts.
        encoding: of messages that name no character set.
        progress: called with the number of bytes that were read since the last call.

    Raises:
        RecordError: there is no such file, or a name is none.
    """
    check_source_name(feed)
    check_encoding(encoding)
    files = find_messages(paths)
    return lambda desk: Hl7Files(files, feed, whose, encoding, desk, progress)


def check_encoding(encoding: str) -> None:
    """Refuse the name of a character set that is none.

    Raises:
        RecordError: Python knows none of that name that turns bytes into text.
    """
    try:
        b"A".decode(encoding)
    except (LookupError, ValueError, TypeError) as error:
        raise RecordError(
            f"expected a character set such as 'utf-8' or 'latin-1', found '{encoding}'"
        ) from error


def find_messages(paths: Sequence[Path]) -> list[Path]:
    """All files among files and folders, sorted, each once.

    Raises:
        RecordError: a path does not exist, or a folder holds no such file.
    """
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found |= {file for file in path.rglob("*") if _is_message(file)}
        elif path.is_file():
            found.add(path)
        else:
            raise RecordError(f"expected a file or a folder of HL7 messages, found no {path}")
    if not found:
        listed = ", ".join(str(path) for path in paths)
        raise RecordError(f"found no file ending in {', '.join(ENDINGS)} in {listed}")
    return sorted(found)


def _is_message(file: Path) -> bool:
    return file.name.lower().endswith(ENDINGS) and file.is_file()


class Hl7Files(ByNumber):
    """Reads files of messages, each message once.

    Attributes:
        title: what is imported, in words.
        resends: a result may come anew under its old times.
    """

    resends: Literal[True] = True

    def __init__(
        self,
        files: Sequence[Path],
        feed: str,
        whose: Whose,
        encoding: str,
        desk: Desk,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.title = f"{len(files)} HL7 v2 files from {feed}"
        self._files = files
        self._encoding = encoding
        self._tally = desk.reading.tally
        self._tally.tell_apart(files)
        self._reading = desk.reading
        self._reader = Hl7Reader(desk.reading, desk.pseudonyms, whose)
        self._progress = progress
        self._seen: set[bytes] = set()

    def versions(self) -> Iterator[Version]:
        """What every message makes.

        Raises:
            RecordError: a file cannot be read, or none holds a message.
        """
        for file in self._files:
            for place, data in messages_of(file, self._tally, self._progress):
                digest = hashlib.blake2b(data, digest_size=12).digest()
                if digest in self._seen:
                    self._tally.read["message"] += 1
                    self._tally.skip("a message that comes twice", place)
                    continue
                self._seen.add(digest)
                try:
                    message = read_message(data, place, self._encoding)
                except UnusableError as error:
                    self._tally.read["message"] += 1
                    self._reading.unusable(error, place, shown_message(data))
                    continue
                yield from self._reader.read(message)
        if not self._seen:
            listed = ", ".join(str(file) for file in self._files[:5])
            raise RecordError(
                f"found no HL7 message in {listed}{self._tally.commonest()}; nothing was imported"
            )


def messages_of(
    file: Path, tally: Tally, progress: Callable[[int], None] | None = None
) -> Iterator[tuple[Place, bytes]]:
    """Every message of a file with its place, as bytes.

    Raises:
        RecordError: the file cannot be opened, or is damaged below the level of lines.
    """
    try:
        yield from _Cutter(tally.name_of(file), tally).messages(_chunks(file, progress))
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise RecordError(f"cannot read {file}: {error}; nothing was imported") from error


@dataclass(slots=True)
class _Cutter:
    """Cuts lines into messages, and checks what batches say of how many there are."""

    file: str
    tally: Tally
    start: int = 0
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    count: int = 0
    batches: dict[bytes, int] = field(default_factory=dict)

    def messages(self, chunks: Iterable[bytes]) -> Iterator[tuple[Place, bytes]]:
        number, whole = 0, True
        for number, line, ended in _lines(chunks):
            whole = ended
            bare = line.removeprefix(_BOM).lstrip(_STRIPPED)
            if bare[:3] == b"MSH" and not bare[3:4].isalnum():
                yield from self._finish()
                self.start, self.lines, self.size = number, [bare], len(bare)
                self.count += 1
            elif bare[:3] in _BATCH and not bare[3:4].isalnum():
                yield from self._finish()
                self._batch(bare, Place(self.file, number))
            elif self.start:
                self.size += len(line) + 1
                if self.size <= LARGEST:
                    self.lines.append(line)
            elif bare.strip():
                reason = "a line outside any message (expected MSH)"
                self.tally.put_aside(reason, Place(self.file, number), _shown(line))
        yield from self._finish()
        if not whole and self.count:
            reason = "the last line has no line end: was the file cut off?"
            self.tally.note(reason, Place(self.file, number))
        for name in self.batches:
            reason = f"a batch ({name.decode()}) without its end: was the file cut off?"
            self.tally.note(reason, Place(self.file, number))

    def _finish(self) -> Iterator[tuple[Place, bytes]]:
        if not self.start:
            return
        place, self.start = Place(self.file, self.start), 0
        if self.size > LARGEST:
            self.tally.read["message"] += 1
            reason = f"a message of more than {LARGEST:,} bytes"
            self.tally.wrong(reason, place)
            self.tally.set_aside([reason], place, _shown(b"\r".join(self.lines)), cut=True)
        else:
            yield place, b"\r".join(self.lines).rstrip(_STRIPPED + b"\r")
        self.lines, self.size = [], 0

    def _batch(self, line: bytes, place: Place) -> None:
        """FHS and BHS begin, BTS and FTS end; BTS-1 says how many messages there are."""
        name = line[:3]
        if name in {b"FHS", b"BHS"}:
            self.batches[name] = self.count
            return
        began = self.batches.pop(b"BHS" if name == b"BTS" else b"FHS", None)
        said = re.match(rb"BTS.(\d{1,9})\b", line)
        if began is None:
            self.tally.note(f"the end of a batch ({name.decode()}) that did not begin", place)
        elif said is not None and int(said[1]) != self.count - began:
            self.tally.note("a batch says another number of messages than it has", place)


def _lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Lines with their number, and whether an end was written; too long ones lose their rest."""
    number, head, rest = 1, b"", b""
    for chunk in chunks:
        data = rest + chunk
        # A carriage return at the end may be half of CR LF.
        limit = len(data) - data.endswith(b"\r")
        start = 0
        for end in _ENDS.finditer(data, max(0, len(rest) - 1), limit):
            yield number, head + data[start : end.start()], True
            number, start, head = number + 1, end.end(), b""
        rest = data[start:]
        if len(head) + len(rest) > LARGEST + _CHUNK:
            head = head or rest[: LARGEST + 1]
            rest = b"\r" if rest.endswith(b"\r") else b""
    if rest.endswith(b"\r"):
        yield number, head + rest[:-1], True
    elif head or rest:
        yield number, head + rest, False


def _shown(line: bytes) -> str:
    return shown_message(line[:_SHOWN])


def _chunks(file: Path, progress: Callable[[int], None] | None) -> Iterator[bytes]:
    """A file's bytes, unpacked, and as UTF-8 if its mark says UTF-16 or UTF-32."""
    with file.open("rb") as raw:
        packed = file.name.lower().endswith(".gz")
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        decoder, before = None, -1
        while chunk := stream.read(_CHUNK):
            if before < 0:
                wide = next((name for mark, name in _WIDE if chunk.startswith(mark)), None)
                decoder, before = wide and codecs.getincrementaldecoder(wide)(), 0
            yield decoder.decode(chunk).encode() if decoder else chunk
            if progress is not None:
                progress(raw.tell() - before)
                before = raw.tell()
        if decoder:
            decoder.decode(b"", True)
