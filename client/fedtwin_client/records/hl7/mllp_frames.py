"""Frames of MLLP (HL7's Minimal Lower Layer Protocol, release 1): 0x0B, a message, 0x1C 0x0D.

What stands between frames, frames without an end, and frames that are too large are told apart
from messages, so that whoever reads them can account for each.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal, NamedTuple

START, END = b"\x0b", b"\x1c"
_CHUNK = 65_536
KEPT = 20_000
"""Bytes that are kept of what is no message."""
_BLANK = b"\r\n \t\x00\x1c"


class Frame(NamedTuple):
    """What came over a connection.

    Attributes:
        kind: a whole `message`; one that is `large`, with its beginning alone; one that was `cut`
            off by the end of the connection or by the start of another; or `stray` bytes that stand
            in no frame.
        data: without the marks.
    """

    kind: Literal["message", "large", "cut", "stray"]
    data: bytes


class FrameCutter:
    """Takes bytes in, and gives frames out as soon as they are whole."""

    def __init__(self, largest: int) -> None:
        """Start between frames.

        Args:
            largest: bytes of a message.
        """
        self._largest = largest
        self._shown = min(KEPT, largest)
        self._buffer = bytearray()
        self._scanned = 0
        self._inside = False
        self._head: bytes | None = None

    @property
    def begun(self) -> bool:
        """Whether a frame has begun that has not ended yet."""
        return self._inside

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole with these bytes."""
        self._buffer += data
        found: list[Frame] = []
        while self._buffer:
            frame = self._message(found) if self._inside else self._between(found)
            if not frame:
                break
        return found

    def finish(self) -> list[Frame]:
        """What is left when nothing more comes."""
        data = self._head if self._head is not None else bytes(self._buffer)
        if self._inside:
            return [Frame("cut", data[: self._shown])]
        return [Frame("stray", data[: self._shown])] if data.strip(_BLANK) else []

    def _between(self, found: list[Frame]) -> bool:
        """Look for the start of a frame; whether to go on."""
        start = self._buffer.find(START)
        if start < 0 and len(self._buffer) <= KEPT:
            return False
        stray = bytes(self._buffer[:start] if start >= 0 else self._buffer)
        if stray.strip(_BLANK):
            found.append(Frame("stray", stray[:KEPT]))
        if start < 0:
            self._buffer.clear()
            return False
        del self._buffer[: start + 1]
        self._inside, self._scanned = True, 0
        return True

    def _message(self, found: list[Frame]) -> bool:
        """Look for the end of a frame, or for the start of another before it; whether to go on."""
        end = self._buffer.find(END, self._scanned)
        other = self._buffer.find(START, self._scanned, end if end >= 0 else len(self._buffer))
        if other >= 0:
            self._close(found, "cut", other, other)
            return True
        if end >= 0:
            self._close(found, "message", end, end + 1)
            return True
        self._scanned = len(self._buffer)
        if len(self._buffer) > self._largest:
            self._head = self._head or bytes(self._buffer[: self._shown])
            self._buffer.clear()
            self._scanned = 0
        return False

    def _close(
        self, found: list[Frame], kind: Literal["message", "cut"], end: int, after: int
    ) -> None:
        data = bytes(self._buffer[:end])
        del self._buffer[:after]
        if self._head is not None or len(data) > self._largest:
            found.append(Frame("large", self._head or data[: self._shown]))
        elif kind == "message" or data.strip(_BLANK):
            found.append(Frame(kind, data if kind == "message" else data[: self._shown]))
        self._inside, self._head, self._scanned = False, None, 0


async def frames(
    reader: asyncio.StreamReader, *, largest: int, idle_s: float, stalled_s: float
) -> AsyncGenerator[Frame, None]:
    """Every frame of a connection until it ends or nothing comes any more.

    Args:
        reader: the connection.
        largest: bytes of a message.
        idle_s: how long nothing may come between messages.
        stalled_s: how long nothing may come within one.
    """
    cutter = FrameCutter(largest)
    while True:
        wait = stalled_s if cutter.begun else idle_s
        try:
            data = await asyncio.wait_for(reader.read(_CHUNK), wait)
        except (TimeoutError, OSError):
            break
        if not data:
            break
        for frame in cutter.feed(data):
            yield frame
    for frame in cutter.finish():
        yield frame
