"""Codes of live records: looked up in the vocabularies, and read by the tables as they are now."""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client import listening
from fedtwin_client.listening import OpenedDoor
from fedtwin_client.records.codes.vocabularies import load_vocabulary, vocabulary_file
from fedtwin_client.records.door import Keep
from fedtwin_client.records.events import Event
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Desk, Version
from fedtwin_client.records.streams.messages import MessageReader
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.tail import Tail
from fedtwin_client.store.timeline import Timeline

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32


def keep(live: LiveStore, *codes: str) -> None:
    desk = live.desk("ward", read_zone("UTC"))
    subject = desk.pseudonyms.of(Identity("mrn", "1"))
    events = [
        Event(subject_id=subject, time=NOW, code=code, source=f"ward:x#{n}", available_time=NOW)
        for n, code in enumerate(codes)
    ]
    asyncio.run(live.keep(desk)([Version(origin="ward:x", updated=None, events=events)]))


def notes(store: Path) -> dict[str, int]:
    with Tail(store) as tail:
        return {what: n for (_, kind, what), n in tail.account().items() if kind == "note"}


def load(store: Path, edition: str, *codes: str) -> None:
    file = store / "atc.csv"
    file.write_text("code,name\n" + "".join(f"{code},x\n" for code in codes))
    load_vocabulary([file], store, edition=edition, now=NOW, vocabulary="ATC")


def test_codes_that_are_not_there_are_counted_at_a_door(tmp_path: Path) -> None:
    with LiveStore(tmp_path, SECRET, lambda: NOW) as live:
        keep(live, "ATC//C10AA05")
        assert notes(tmp_path) == {}  # nothing is loaded yet
        load(tmp_path, "2026", "C10AA01")
        keep(live, "ATC//C10AA05", "ATC//C10AA01", "ICD10//I10")
        assert notes(tmp_path) == {"a code that is not in ATC (2026)": 1}
        keep(live, "ATC//C10AA05", "ATC//C10AA05")
        assert notes(tmp_path) == {"a code that is not in ATC (2026)": 3}
        load(tmp_path, "2027", "C10AA05")  # another edition, while the door stands open
        keep(live, "ATC//C10AA05")
        assert notes(tmp_path) == {"a code that is not in ATC (2026)": 3}


def test_codes_that_cannot_be_loincs_are_counted_without_any_vocabulary(tmp_path: Path) -> None:
    with LiveStore(tmp_path, SECRET, lambda: NOW) as live:
        keep(live, "LOINC//2345-7", "LOINC//LA6576-8", "LOINC//LP7576-7", "SNOMED//2345-8")
        assert notes(tmp_path) == {}
        keep(live, "LOINC//2345-8", "LOINC//HGB")
        (note,) = notes(tmp_path).items()
        assert note == (
            "a code that says it is LOINC's and cannot be: its form or check digit is wrong",
            2,
        )


def test_damaged_vocabularies_stop_no_record(tmp_path: Path) -> None:
    load(tmp_path, "2026", "C10AA01")
    vocabulary_file(tmp_path).write_bytes(b"no database" * 1000)
    with LiveStore(tmp_path, SECRET, lambda: NOW) as live:
        keep(live, "ATC//C10AA05")
    assert notes(tmp_path) == {
        "codes that were not checked: the loaded vocabularies cannot be read": 1
    }
    assert Timeline.open(tmp_path).rows == 1


class Ward:
    """A door that takes in a value whenever it is told to."""

    name = "ward"

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def serve(self, desk: Desk, keep: Keep) -> None:
        reader = MessageReader(desk, "ward", "mrn")
        number = 0
        while True:
            done = await self.asked.get()
            number += 1
            value = {"id": number, "code": "WARD//puls", "value": 71, "unit": "/min",
                     "time": "2026-02-01T08:00:00Z"}  # fmt: skip
            read = reader.read(json.dumps(value).encode(), Place("ward", number), "7", NOW)
            await keep(read.versions, read.learned, read.consents)
            done.set()


def test_a_door_reads_by_the_site_s_codes_as_they_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "_LOOK_AT_TABLES_EVERY_S", 0.02)
    caplog.set_level(logging.INFO)
    door, file = Ward(), tmp_path / "codes" / "codes.csv"
    file.parent.mkdir(parents=True)
    head = "local,standard,reviewer,date\n"

    async def take() -> str:
        done = asyncio.Event()
        await door.asked.put(done)
        await asyncio.wait_for(done.wait(), 10)
        return str(Timeline.open(tmp_path).live().events["code"].to_pylist()[-1])

    async def until(said: Callable[[str], bool]) -> None:
        for _ in range(500):
            if said(caplog.text):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(caplog.text)

    async def scenario() -> list[str]:
        doors = {"ward": OpenedDoor(door=door)}
        task = asyncio.create_task(listening.listen(tmp_path, SECRET, doors, lambda: NOW))
        found = [await take()]
        file.write_text(head + "WARD//puls,LOINC//8867-4,A. Berg,2026-03-01\n")
        await until(lambda text: "from now on" in text)
        found.append(await take())
        file.write_text(head + "WARD//puls,LOINC//8867-5,A. Berg,2026-03-01\n")  # no such code
        await until(lambda text: "still read by" in text)
        found.append(await take())
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return found

    found: Any = asyncio.run(scenario())
    assert found == ["WARD//puls", "LOINC//8867-4", "LOINC//8867-4"]
    assert "codes.csv" in caplog.text
