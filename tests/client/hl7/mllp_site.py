"""A site with an MLLP door, a memory to keep things in, and messages to send."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from zoneinfo import ZoneInfo

import hl7

from fedtwin_client.records.door import Keep
from fedtwin_client.records.hl7.mllp import MllpDoor, MllpSettings
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Desk, Version
from fedtwin_protocol.errors import RecordError

from .hl7_parts import NOW, OBR, PID, SECRET, message, msh, obx

START, END = b"\x0b", b"\x1c\r"


class Memory:
    """Keeps in memory, a moment later, or fails as a full disk does."""

    def __init__(self) -> None:
        self.kept: dict[str, Version] = {}
        self.full = False
        self.calls = 0
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, versions: Sequence[Version], *_: Any, **__: Any) -> None:
        self.calls += 1
        await self.open.wait()
        if self.full:
            raise RecordError("the disk is full")
        self.kept |= {version.origin: version for version in versions}

    @property
    def results(self) -> list[Any]:
        found = (one for one in self.kept.values() if one.origin.startswith("lab:result/"))
        return [event for version in found for event in version.events]


class Site:
    """A door that serves, its memory and its account."""

    def __init__(self, door: MllpDoor) -> None:
        self.door = door
        self.memory = Memory()
        self.tally = Tally(quarantine=None)

    async def dial(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.door.port, **options)

    async def send(self, *pieces: bytes, pause_s: float = 0.0) -> list[hl7.Message]:
        """Write pieces, close our side, and give back the acknowledgements."""
        reader, writer = await self.dial()
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        writer.write_eof()
        answers = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        parts = answers.removesuffix(END).split(END) if answers else []
        assert all(part.startswith(START) for part in parts)
        return [hl7.parse(part[1:].decode()) for part in parts]


@asynccontextmanager
async def serving(
    desk: Desk | None = None, keep: Keep | None = None, **options: Any
) -> AsyncIterator[Site]:
    site = Site(MllpDoor("lab", MllpSettings(port=0, **options), Whose()))
    reading = Reading(source="lab", zone=ZoneInfo("UTC"), now=NOW, tally=site.tally)
    desk = desk or Desk(reading=reading, pseudonyms=Pseudonyms(SECRET), known={})
    task = asyncio.create_task(site.door.serve(desk, keep or site.memory))
    while site.door.port is None and not task.done():
        await asyncio.sleep(0.001)
    try:
        yield site
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def framed(text: str | bytes) -> bytes:
    return START + (text if isinstance(text, bytes) else text.encode()) + END


def numbered(number: int, value: str = "5", **fields: str) -> str:
    return message(
        msh(number=f"M{number}", **fields),
        PID,
        OBR.replace("F1^", f"F{number}^"),
        obx(value, unit="mmol/L"),
    )


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(limited())


def codes(answers: list[hl7.Message]) -> list[tuple[str, str]]:
    return [(str(answer["MSA"][0][1]), str(answer["MSA"][0][2])) for answer in answers]
