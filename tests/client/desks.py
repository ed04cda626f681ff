"""What tests of sources and doors share: a desk, a keep in memory that can fail, a broker."""

import asyncio
import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.events import Event
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Desk, OpenSource, Version
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
SHARED = Path(__file__).parents[3] / "shared" / "data"
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def clock() -> datetime:
    return NOW


def make_desk(
    source: str, zone: str = "UTC", quarantine: Path | None = None, now: datetime = NOW
) -> Desk:
    tally = Tally(quarantine=quarantine)
    reading = Reading(source=source, zone=ZoneInfo(zone), now=now, tally=tally)
    return Desk(reading=reading, pseudonyms=Pseudonyms(SECRET), known={})


def read_all(
    opening: OpenSource, source: str, zone: str = "UTC", quarantine: Path | None = None
) -> tuple[Tally, list[Event]]:
    """The account and the events of a source; of versions of one origin the last counts."""
    desk = make_desk(source, zone, quarantine)
    kept = {version.origin: list(version.events) for version in opening(desk).versions()}
    desk.reading.tally.close()
    return desk.reading.tally, [event for events in kept.values() for event in events]


class MemoryKeep:
    """Keeps in memory; a record's newest version replaces what earlier ones made.

    Attributes:
        events: by origin, of what was kept.
        calls: how often something was kept.
        failures: how many of the next calls fail.
        tried: how often anything was tried.
    """

    def __init__(self, failures: int = 0) -> None:
        self.events: dict[str, list[Event]] = {}
        self.learned: dict[str, Identity] = {}
        self.consents: dict[str, Consent] = {}
        self.calls = 0
        self.tried = 0
        self.failures = failures
        self.blocked: asyncio.Event | None = None

    async def __call__(
        self,
        versions: Sequence[Version],
        learned: Mapping[str, Identity] | None = None,
        consents: Mapping[str, Consent] | None = None,
    ) -> None:
        self.tried += 1
        if self.blocked is not None:
            await self.blocked.wait()
        if self.failures:
            self.failures -= 1
            raise RecordError("the disk is full")
        await asyncio.sleep(0)
        for version in versions:
            self.events[version.origin] = list(version.events)
        self.learned |= learned or {}
        self.consents |= consents or {}
        self.calls += 1

    def all(self) -> list[Event]:
        return [event for events in self.events.values() for event in events]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Broker:
    """A mosquitto of this test alone, on loopback; what it keeps lies in the folder."""

    def __init__(self, folder: Path, *lines: str) -> None:
        assert MOSQUITTO is not None
        folder.mkdir(exist_ok=True, parents=True)
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            "\n".join(
                [
                    f"user {getpass.getuser()}",
                    f"listener {self.port} 127.0.0.1",
                    "set_tcp_nodelay true",
                    "max_inflight_messages 1000",
                    "max_queued_messages 0",
                    "persistence true",
                    f"persistence_location {folder}/",
                    *([] if any("password_file" in line for line in lines) else _ANYBODY),
                    *lines,
                ]
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise AssertionError("mosquitto does not listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


_ANYBODY = ["allow_anonymous true"]


@contextmanager
def broker(folder: Path, *lines: str) -> Iterator[Broker]:
    made = Broker(folder, *lines)
    made.start()
    try:
        yield made
    finally:
        made.stop()


async def until(condition: Any, seconds: float = 20.0) -> None:
    """Wait for something to become true; fail if it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)
