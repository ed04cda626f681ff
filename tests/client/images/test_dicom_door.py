"""The door for images, tried with software that others wrote: dcmtk and Orthanc."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from fedtwin_client.doors import read_doors
from fedtwin_client.listening import OpenedDoor, listen
from fedtwin_client.records.images.dicom_door import DicomDoor, DicomSettings
from fedtwin_client.records.images.store import ImageStore
from fedtwin_client.records.images.volumes import open_series
from fedtwin_client.store.erasure import erase_patient
from fedtwin_client.store.images import image_store
from fedtwin_client.store.patient import patient_events
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import ConfigurationError, RecordError

from .images import NOW, SECRET, WHOSE, ct, written

# By a program that only dcmtk has: pynetdicom brings a storescu of its own.
DCMTK = Path(shutil.which("dcmdump") or "/absent/dcmdump").parent
ORTHANC = shutil.which("Orthanc") or shutil.which("orthanc", path="/usr/sbin")
CT = "1.2.840.10008.5.1.4.1.1.2"


@asynccontextmanager
async def door(store: Path, **settings: object) -> AsyncIterator[int]:
    """A node that listens; gives its port."""
    made = DicomDoor(
        "dicom", DicomSettings(senders=["PACS"], port=0, **settings), image_store(store), WHOSE
    )
    task = asyncio.create_task(listen(store, SECRET, {"dicom": OpenedDoor(door=made)}, lambda: NOW))
    try:
        async with asyncio.timeout(20):
            while made.port is None and not task.done():
                await asyncio.sleep(0.02)
        assert made.port is not None, task
        yield made.port
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def send(
    port: int, *images: object, calling: str = "PACS", called: str = "FEDTWIN"
) -> list[int | None]:
    """C-STORE by pynetdicom's own client; the statuses, or nothing if it is turned away."""
    entity = AE(ae_title=calling)
    entity.add_requested_context(CT, ExplicitVRLittleEndian)
    entity.add_requested_context("1.2.840.10008.1.1")
    link = entity.associate("127.0.0.1", port, ae_title=called)
    if not link.is_established:
        return []
    statuses = [link.send_c_echo().Status]
    statuses += [link.send_c_store(image).get("Status") for image in images]
    link.release()
    return statuses


def events(store: Path) -> list[tuple[int, str, str, datetime | None]]:
    (subject,) = {int(place.name, 16) for place in (store / "images").iterdir()}
    rows = patient_events(Timeline.open(store), subject).to_pylist()
    return [(subject, row["code"], row["source"], row["available_time"]) for row in rows]


def test_what_is_acknowledged_is_kept(tmp_path: Path) -> None:
    async def run() -> list[int]:
        async with door(tmp_path) as port:
            bad = ct(3, Modality="PETRA", SOPInstanceUID="1.2.3.99")
            return await asyncio.to_thread(send, port, ct(0), ct(1), ct(1), bad)

    assert asyncio.run(run()) == [0, 0, 0, 0, 0xC000]
    ((subject, code, source, available),) = events(tmp_path)
    assert code == "DICOM//CT"
    assert available == NOW.replace(tzinfo=None)
    assert open_series(tmp_path, source.partition("#")[0].rpartition("/")[2]).values.shape[0] == 2
    erased = erase_patient(tmp_path, subject, NOW)
    assert erased.events
    assert erased.images == 3

    async def again() -> list[int]:
        async with door(tmp_path) as port:
            return await asyncio.to_thread(send, port, ct(0))

    assert asyncio.run(again()) == [0, 0x0122]
    assert not any(path.is_file() for path in (tmp_path / "images").rglob("*"))


def test_strangers_are_turned_away_and_a_full_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise RecordError("the disk is full")

    async def run() -> tuple[list[int], ...]:
        async with door(tmp_path) as port:
            stranger = await asyncio.to_thread(send, port, calling="STRANGER")
            another = await asyncio.to_thread(send, port, called="OTHER")
            monkeypatch.setattr(ImageStore, "add", full)
            return stranger, another, await asyncio.to_thread(send, port, ct(0))

    assert asyncio.run(run()) == ([], [], [0, 0xA700])


def test_a_sender_without_end_is_cut_off(tmp_path: Path) -> None:
    large = ct(0, Rows=512, Columns=512, PixelData=b"\1\2" * 512 * 512)

    async def run() -> tuple[list[int | None], list[int]]:
        async with door(tmp_path, largest=100_000) as port:
            cut = await asyncio.to_thread(send, port, large)
            return cut, await asyncio.to_thread(send, port, ct(1))

    assert asyncio.run(run()) == ([0, None], [0, 0])


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    images = image_store(tmp_path)
    for settings, says in [
        (DicomSettings(senders=[]), "name the application entities"),
        (DicomSettings(senders=["a title much too long"]), "1 to 16 letters"),
        (DicomSettings(senders=["PACS"], host="0.0.0.0"), "from anybody who reaches"),
    ]:
        with pytest.raises(RecordError, match=says):
            DicomDoor("dicom", settings, images, WHOSE)

    async def run() -> None:
        async with door(tmp_path / "a") as port:
            busy = DicomDoor("dicom", DicomSettings(senders=["PACS"], port=port), images, WHOSE)
            doors = {"dicom": OpenedDoor(door=busy)}
            with pytest.raises(RecordError, match="choose a free port"):
                await listen(tmp_path / "b", SECRET, doors, lambda: NOW)

    asyncio.run(run())


@pytest.mark.skipif(not (DCMTK / "storescu").exists(), reason="dcmtk is not installed")
def test_dcmtk_sends(tmp_path: Path) -> None:
    folder = written(tmp_path / "in", ct(0), ct(1), ct(2))

    async def run() -> list[int]:
        async with door(tmp_path / "node") as port:
            answers = []
            for command in (
                [str(DCMTK / "echoscu"), "-aet", "PACS", "-aec", "FEDTWIN", "127.0.0.1", str(port)],
                [
                    str(DCMTK / "storescu"),
                    "-aet",
                    "PACS",
                    "-aec",
                    "FEDTWIN",
                    "127.0.0.1",
                    str(port),
                ],
            ):
                files = (
                    sorted(map(str, folder.iterdir())) if command[0].endswith("storescu") else []
                )
                done = await asyncio.to_thread(
                    subprocess.run, [*command, *files], capture_output=True, timeout=30, check=False
                )
                answers.append(done.returncode)
            return answers

    echo, stored = asyncio.run(run())
    assert (echo, stored) == (0, 0)
    ((_, _, source, _),) = events(tmp_path / "node")
    series = source.partition("#")[0].rpartition("/")[2]
    assert open_series(tmp_path / "node", series).values[:, 9, 9].tolist() == [-24, -23, -22]


@pytest.mark.skipif(ORTHANC is None, reason="Orthanc is not installed")
def test_orthanc_sends(tmp_path: Path) -> None:
    """In a network of its own, for Orthanc listens on all addresses."""
    script = Path(__file__).with_name("orthanc_sends.py")
    written(tmp_path / "in", ct(0), ct(1))
    done = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False, timeout=10)
    if done.returncode or shutil.which("ip") is None:
        pytest.skip("no network of its own can be made here (unshare -n)")
    command = f"{sys.executable} {script} {ORTHANC} {tmp_path}"
    process = subprocess.run(
        [
            "unshare",
            "-n",
            "sh",
            "-c",
            f"ip link set lo up && exec {command}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert json.loads(process.stdout.splitlines()[-1]) == {"sent": 2, "failed": 0}
    ((_, code, _, _),) = events(tmp_path / "node")
    assert code == "DICOM//CT"


def test_a_door_of_doors_yaml(tmp_path: Path) -> None:
    text = "doors:\n  dicom:\n    kind: dicom\n    senders: [PACS]\n    patients: {system: urn:m}\n"
    (tmp_path / "doors.yaml").write_text(text)
    (opened,) = read_doors(tmp_path, lambda: NOW).values()
    assert opened.door.name == "dicom"
    for wrong, says in [
        ("    host: 0.0.0.0\n", "from anybody who reaches"),
        ("    sender: x\n", "sender"),
    ]:
        (tmp_path / "doors.yaml").write_text(text + wrong)
        with pytest.raises(ConfigurationError, match=says):
            read_doors(tmp_path, lambda: NOW)
