"""Orthanc, given images over HTTP, sends them to a node that listens; run within its own network.

`python orthanc_sends.py ORTHANC FOLDER`: the images lie in FOLDER/in, the node's records in
FOLDER/node. The last line of its output says what Orthanc counted.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedtwin_client.listening import OpenedDoor, listen
from fedtwin_client.records.images.dicom_door import DicomDoor, DicomSettings
from fedtwin_client.records.images.dicom_series import Whose
from fedtwin_client.store.images import image_store

PORT = 8042


def ask(path: str, data: bytes) -> dict[str, Any]:
    """POST to Orthanc."""
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data=data)
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def start(orthanc: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start Orthanc, and wait until it answers."""
    settings = {
        "HttpPort": PORT,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "DicomAet": "PACS",
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "DicomModalities": {"node": ["FEDTWIN", "127.0.0.1", port]},
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    process = subprocess.Popen([orthanc, str(path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/system", timeout=2).close()
            return process
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    process.kill()
    raise SystemExit("Orthanc did not start")


def send(orthanc: str, folder: Path, port: int) -> dict[str, int]:
    """Hand the images to Orthanc, and have it send them."""
    process = start(orthanc, folder, port)
    try:
        files = sorted((folder / "in").iterdir())
        known = [ask("/instances", path.read_bytes())["ID"] for path in files]
        done = ask("/modalities/node/store", json.dumps({"Resources": known}).encode())
        return {"sent": done["InstancesCount"], "failed": done["FailedInstancesCount"]}
    finally:
        process.terminate()
        process.wait(30)


async def main(orthanc: str, folder: Path) -> None:
    """Listen, and let Orthanc send."""
    node = folder / "node"
    whose = Whose(system="http://st-olav.example/mrn")
    door = DicomDoor("dicom", DicomSettings(senders=["PACS"], port=0), image_store(node), whose)
    doors = {"dicom": OpenedDoor(door=door)}
    listening = asyncio.create_task(
        listen(node, b"s" * 32, doors, lambda: datetime(2026, 11, 1, tzinfo=UTC))
    )
    while door.port is None and not listening.done():
        await asyncio.sleep(0.05)
    assert door.port is not None
    try:
        print(json.dumps(await asyncio.to_thread(send, orthanc, folder, door.port)))
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
