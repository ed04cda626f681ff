"""HL7 v2 messages as they are written: character sets, delimiters, segments, escapes.

HL7 v2.8 chapter 2: a message is lines (segments) of fields; MSH-1 and MSH-2 name its delimiters and
MSH-18 its character set. Fields are cut lazily, because most of them are never asked for. Read
kindly, as senders write: any line ends, a byte-order mark, blank lines, and lines without a
segment's name, which go on with the line before them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place

NULL = '""'
"""What a field holds that is to be emptied (chapter 2, null values)."""
_BOM = b"\xef\xbb\xbf"
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
_FRAME = "\x0b\x1c\x00"
_SHOWN = 20

# HL7 table 0211, with the spellings that senders use; keys without punctuation.
_CHARACTER_SETS = {
    "": None, "ASCII": None, "USASCII": None, "UNICODE": None, "ISOIR6": None,
    "UNICODEUTF8": "utf-8", "UTF8": "utf-8",
    # A header in these could not be read this far: the file's own mark has led to its text.
    "UNICODEUTF16": None, "UNICODEUTF32": None,
    **{f"{name}8859{part}": f"iso8859-{part}" for name in ("", "ISO", "ISOIEC")
       for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "WINDOWS1252": "cp1252", "CP1252": "cp1252", "LATIN1": "iso8859-1",
    "ISOIR14": "shift_jis", "ISOIR87": "iso2022_jp", "ISOIR159": "iso2022_jp_1",
    "GB180302000": "gb18030", "GB18030": "gb18030", "KSX1001": "euc_kr", "BIG5": "big5",
}  # fmt: skip


class Marks(NamedTuple):
    """A message's delimiters, and the encoding that escaped bytes are in."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class Segment:
    """One line of a message, cut into fields.

    Attributes:
        name: three characters.
        fields: as written; the name is the first, so that field n stands at n.
        marks: the message's delimiters.
        place: its file and line.
    """

    name: str
    fields: Sequence[str]
    marks: Marks
    place: Place

    def raw(self, number: int) -> str:
        """A field as written; empty if absent."""
        return self.fields[number] if number < len(self.fields) else ""

    def repetitions(self, number: int) -> list[str]:
        """A field's repetitions as written."""
        return self.raw(number).split(self.marks.repetition)

    def text(self, number: int, component: int = 1) -> str:
        """A component of a field's first repetition in plain text; empty if absent or null."""
        raw = self.fields[number] if number < len(self.fields) else ""
        # Most fields are a word or a number, in which no mark can be.
        if not raw or raw.isalnum():
            return raw if component == 1 else ""
        return part(raw.split(self.marks.repetition, 1)[0], component, self.marks)

    def written(self) -> str:
        """The line, for the quarantine."""
        if self.name == "MSH":
            return f"MSH{self.marks.field}{self.marks.field.join(self.fields[2:])}"
        return self.marks.field.join(self.fields)


@dataclass(frozen=True, slots=True)
class Message:
    """A message cut into segments; the first is MSH.

    Attributes:
        segments: in order.
        place: where it starts.
        continued: how many lines had no segment's name.
    """

    segments: Sequence[Segment]
    place: Place
    continued: int = 0

    @property
    def header(self) -> Segment:
        """MSH."""
        return self.segments[0]

    @property
    def kind(self) -> str:
        """Type and event, such as `ORU^R01`; as plain text of limited length."""
        header = self.header
        names = (header.text(9), header.text(9, 2))
        if "_" in names[0] and not names[1]:
            return names[0].replace("_", "^")[:_SHOWN]
        return "^".join(name for name in names if name)[:_SHOWN]

    def written(self) -> str:
        """All lines, for the quarantine."""
        return "\n".join(segment.written() for segment in self.segments)


def part(repetition: str, number: int, marks: Marks) -> str:
    """A component in plain text, its subcomponents joined by blanks; empty if absent or null."""
    if number == 1:
        raw = repetition.split(marks.component, 1)[0]
    else:
        components = repetition.split(marks.component, number)
        raw = components[number - 1] if number <= len(components) else ""
    if not raw or raw == NULL:
        return ""
    if marks.subcomponent in raw:
        raw = " ".join(raw.split(marks.subcomponent))
    return plain(raw, marks).strip()


def subparts(repetition: str, number: int, marks: Marks) -> list[str]:
    """The subcomponents of a component in plain text; at least one, perhaps empty."""
    components = repetition.split(marks.component)
    raw = components[number - 1] if number <= len(components) else ""
    return [plain(piece, marks).strip() for piece in raw.split(marks.subcomponent)]


def plain(text: str, marks: Marks) -> str:
    """Text with its escape sequences (chapter 2, 2.7) replaced; unknown ones stay as written."""
    if marks.escape not in text:
        return text
    pattern = _escapes(marks.escape)
    return pattern.sub(lambda found: _escaped(found[1], found[0], marks), text)


@lru_cache(maxsize=16)
def _escapes(mark: str) -> re.Pattern[str]:
    quoted = re.escape(mark)
    return re.compile(f"{quoted}([^{quoted}]{{0,200}}){quoted}")


def _escaped(name: str, written: str, marks: Marks) -> str:
    letters = {
        "F": marks.field, "S": marks.component, "T": marks.subcomponent, "R": marks.repetition,
        "E": marks.escape, "P": "#", "H": "", "N": "", ".br": "\n", ".ce": "\n", ".fi": "",
        ".nf": "",
    }  # fmt: skip
    if name in letters:
        return letters[name]
    if name.startswith("X"):
        return _hexadecimal(name[1:], written, marks.encoding)
    if name[:3] in {".sp", ".sk", ".in", ".ti"}:
        count = int(name[3:]) if name[3:].strip("+").isdecimal() and len(name) < 8 else 1
        return ("\n" if name.startswith(".sp") else " ") * min(count, 80)
    return written


def _hexadecimal(digits: str, written: str, encoding: str) -> str:
    try:
        return bytes.fromhex(digits).decode(encoding)
    except ValueError:
        return written


def read_message(data: bytes, place: Place, encoding: str = "utf-8") -> Message:
    """Cut one message into segments.

    Args:
        data: from `MSH` to the last segment.
        place: where it starts.
        encoding: of messages that name no character set, or ASCII.

    Raises:
        UnusableError: no message, delimiters that cannot be, or an unknown or wrong character set.
    """
    marks, text = _decoded(data, encoding)
    return _cut(marks, text, place)


def message_of_text(text: str, place: Place, encoding: str = "utf-8") -> Message:
    """Cut one message, which a person has written as text, into segments.

    Args:
        text: of `shown_message` or `Message.written`, perhaps mended.
        place: where it stood.
        encoding: of messages that name no character set, or ASCII.

    Raises:
        UnusableError: as for the bytes.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:  # holds bytes that were never read as text
        return read_message(text.encode("utf-8", "surrogateescape"), place, encoding)
    marks, _ = _header(data, encoding)
    return _cut(marks, text.lstrip("\ufeff\x0b \t\r\n"), place)


def shown_message(data: bytes) -> str:
    """Bytes that are no message as text, from which they can be had again."""
    return data.decode("utf-8", "surrogateescape")


def _cut(marks: Marks, text: str, place: Place) -> Message:
    named: list[tuple[Place, list[str]]] = []
    continued = 0
    for number, written in enumerate(_LINE_ENDS.split(text)):
        line = written.strip(_FRAME)
        if not line.strip():
            continue
        # Blanks before a name are somebody's indentation; those at the end may be text.
        bare = line.lstrip()
        if _SEGMENT.match(bare) and bare[3:4] in {"", marks.field}:
            named.append((Place(place.file, place.line + number), [bare]))
        else:
            continued += 1
            named[-1][1].append(line)
    segments: list[Segment] = []
    for here, lines in named:
        fields = "\n".join(lines).split(marks.field)
        if not segments:
            fields[1:1] = [marks.field]
        segments.append(Segment(fields[0], fields, marks, here))
    return Message(segments, place, continued)


def _decoded(data: bytes, encoding: str) -> tuple[Marks, str]:
    """The message's delimiters and its text."""
    data = data.removeprefix(_BOM).lstrip(b"\x0b \t\r\n")
    marks, named = _header(data, encoding)
    try:
        return marks, data.decode(marks.encoding)
    except (UnicodeError, ValueError) as error:
        said = "as MSH-18 says" if named else "and MSH-18 names no character set"
        raise UnusableError(f"bytes that are not {marks.encoding}, {said}") from error


def _header(data: bytes, encoding: str) -> tuple[Marks, bool]:
    """The message's delimiters with its character set, and whether that was named."""
    data = data.removeprefix(_BOM).lstrip(b"\x0b \t\r\n")
    head = re.split(rb"[\r\n]", data, maxsplit=1)[0].decode("latin-1")
    if not head.startswith("MSH") or len(head) < 8:
        raise UnusableError("not an HL7 message: it does not begin with MSH and its delimiters")
    fields = head[4:].split(head[3])
    written = fields[16].split(fields[0][1:2] or "~")[0].strip() if len(fields) > 16 else ""
    key = re.sub(r"[^A-Z0-9]", "", written.upper())
    if key not in _CHARACTER_SETS:
        raise UnusableError(f"the character set (MSH-18) '{written[:_SHOWN]}' is not known")
    chosen = _CHARACTER_SETS[key] or encoding
    return _marks(head[3], fields[0], chosen), bool(_CHARACTER_SETS[key])


@lru_cache(maxsize=64)
def _marks(separator: str, written: str, encoding: str) -> Marks:
    """The delimiters of MSH-1 and MSH-2; absent ones are the standard's."""
    distinct = list(dict.fromkeys(written))
    unfit = [mark for mark in (separator, *distinct) if mark.isalnum() or mark in '" \t']
    if unfit or separator in distinct or not 1 <= len(distinct) <= 5:
        raise UnusableError("delimiters in MSH-1 and MSH-2 that cannot be: expected such as |^~\\&")
    standard = "^~\\&"
    chosen = distinct[:4]
    # The fifth character (version 2.7) marks what was cut off and never stands in a value.
    chosen += standard[len(chosen) :]
    if len({separator, *chosen}) != 5:
        raise UnusableError("delimiters in MSH-1 and MSH-2 that cannot be: expected such as |^~\\&")
    component, repetition, escape, subcomponent = chosen
    return Marks(separator, component, repetition, escape, subcomponent, encoding)
