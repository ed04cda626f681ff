"""A subscriber in a process of its own, to be killed: keeps each record in a file, with fsync."""

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Desk, Version
from fedtwin_client.records.streams.mqtt import MqttDoor, MqttSettings

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def main(port: int, file: Path) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def keep(versions: Sequence[Version], *_: Any) -> None:
        lines = [f"{v.origin} {event.numeric_value}\n" for v in versions for event in v.events]
        await asyncio.sleep(0.02)  # long enough to be killed in
        os.write(handle, "".join(lines).encode())
        os.fsync(handle)

    settings = MqttSettings(
        host="127.0.0.1", port=port, topic="ward/{patient}", client_id="node", tls=False
    )
    reading = Reading(source="mqtt", zone=ZoneInfo("UTC"), now=NOW, tally=Tally(quarantine=None))
    desk = Desk(reading=reading, pseudonyms=Pseudonyms(b"\1" * 32), known={})
    asyncio.run(MqttDoor(settings, lambda: NOW).serve(desk, keep))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
