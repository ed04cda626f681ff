"""Acknowledgements of HL7 v2 (chapter 2, 2.9): original mode, and enhanced mode where it is asked.

Original mode: one application acknowledgement, AA (stored), AE (put aside: do not send it again) or
AR (send it again later). Enhanced mode (MSH-15 or MSH-16 is filled): an accept acknowledgement CA,
CE or CR and an application acknowledgement, each as its field says (AL always, NE never, ER only of
errors, SU only of success).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Outcome = Literal["stored", "aside", "again"]
_APPLICATION = {"stored": "AA", "aside": "AE", "again": "AR"}
_ACCEPT = {"stored": "CA", "aside": "CA", "again": "CR"}
# HL7 table 0357; the segment ERR has its present form since version 2.5.
_CODES = {"aside": "102^Data type error^HL70357", "again": "207^Application internal error^HL70357"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """What an acknowledgement says back: fields of MSH as they were written.

    Attributes:
        fields: of MSH, MSH-1 at 1; perhaps cut short.
        encoding: what they were read with.
    """

    fields: Sequence[str]
    encoding: str = "utf-8"

    def field(self, number: int) -> str:
        """A field as written; empty if absent."""
        return self.fields[number] if number < len(self.fields) else ""

    @property
    def is_acknowledgement(self) -> bool:
        """Whether it is one itself, which nobody acknowledges."""
        return self.field(9).startswith(("ACK", "MCF"))


def received_of(data: bytes, encoding: str = "latin-1") -> Received:
    """What can be said back to any bytes.

    Args:
        data: a message, or what should be one.
        encoding: latin-1 gives every byte back as it came.
    """
    line = data.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\r")[0].split(b"\n")[0]
    text = line[:4_000].decode(encoding)
    if not text.startswith("MSH") or len(text) < 5 or text[3].isalnum():
        return Received(fields=("MSH", "|", "^~\\&"), encoding=encoding)
    return Received(fields=("MSH", text[3], *text[4:].split(text[3])), encoding=encoding)


def acknowledgements(
    received: Received, outcome: Outcome, text: str, *, now: datetime, number: str
) -> list[bytes]:
    """The messages to send back, in order; perhaps none.

    Args:
        received: what is acknowledged.
        outcome: what became of it.
        text: why, in ASCII; empty if all is well.
        now: for MSH-7.
        number: the control id of the first; a second gets one of its own.
    """
    if received.is_acknowledgement:
        return []
    accept, application = (received.field(n).strip().upper() for n in (15, 16))
    codes = []
    if not accept and not application:
        codes.append(_APPLICATION[outcome])
    else:
        if _wanted(accept or "NE", outcome != "again"):
            codes.append(_ACCEPT[outcome])
        # What was not accepted never reaches the application.
        refused = outcome == "again" and bool(codes)
        if not refused and _wanted(application or "NE", outcome == "stored"):
            codes.append(_APPLICATION[outcome])
    return [
        _message(received, code, outcome, text, now=now, number=f"{number}{'ab'[place]}")
        for place, code in enumerate(codes)
    ]


def _wanted(condition: str, well: bool) -> bool:
    return {"NE": False, "ER": not well, "SU": well}.get(condition, True)


def _message(
    received: Received, code: str, outcome: Outcome, text: str, *, now: datetime, number: str
) -> bytes:
    mark, encoding_marks = received.field(1), received.field(2) or "^~\\&"
    component = encoding_marks[0]
    event = received.field(9).split(component)
    kind = component.join(["ACK", *event[1:2], *(["ACK"] if len(event) > 2 else [])])
    head = [
        "MSH", encoding_marks, received.field(5), received.field(6), received.field(3),
        received.field(4), f"{now:%Y%m%d%H%M%S%z}", "", kind, number,
        received.field(11) or "P", received.field(12) or "2.5", "", "", "", "", "",
        received.field(18),
    ]  # fmt: skip
    said = _said(text, mark, encoding_marks) if code not in {"AA", "CA"} else ""
    lines = [mark.join(head).rstrip(mark), mark.join(["MSA", code, received.field(10), said])]
    if said and received.field(12)[:3] >= "2.5":
        error = _CODES[outcome].replace("^", component)
        lines.append(mark.join(["ERR", "", "", error, "E", "", "", "", said]))
    return ("\r".join(lines) + "\r").encode(received.encoding, "replace")


def _said(text: str, mark: str, marks: str) -> str:
    """A reason without anything that could be taken for a delimiter."""
    plain = text.encode("ascii", "replace").decode()
    return "".join(" " if letter in mark + marks or letter < " " else letter for letter in plain)[
        :200
    ]
