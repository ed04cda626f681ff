"""Mended lines of what came in at a door."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fedtwin_client.records.door import Keep
from fedtwin_client.records.fhir.answers import RefusalError
from fedtwin_client.records.fhir.intake import Intake
from fedtwin_client.records.fhir.lines import fhir_recipe
from fedtwin_client.records.hl7.lines import hl7_recipe
from fedtwin_client.records.hl7.mllp import MllpDoor, MllpSettings
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.report import Place, Recipe
from fedtwin_client.records.source import Desk
from fedtwin_client.records.streams.message_lines import message_recipe
from fedtwin_client.records.streams.messages import MessageReader
from fedtwin_client.store.compaction import compact
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.quarantine import lines_of, names
from fedtwin_client.store.tail import OUTDATED, Tail
from fedtwin_client.store.timeline import Timeline

from ..hl7.hl7_parts import OBR, PID, message, msh, obx
from .replays import MRN, NOW, SECRET, aside, held, mend, mend_by, whose

VALUE = {"code": "LOINC//8867-4", "value": 71, "unit": "/min", "time": "2026-02-01T08:00:00Z"}


def live(store: Path, recipe: Recipe, take: Callable[[Desk, Keep], Any]) -> None:
    """Let a door with a recipe take something in, and write it into the timelines."""
    with LiveStore(store, SECRET, lambda: NOW) as kept:
        desk = kept.desk(recipe.source, ZoneInfo(recipe.zone), recipe)
        asyncio.run(take(desk, kept.keep(desk)))
    compact(store, NOW)


class TestDoors:
    def publish(self, store: Path, *messages: tuple[str | None, bytes]) -> None:
        async def take(desk: Desk, keep: Keep) -> None:
            reader = MessageReader(desk, "ward", MRN)
            for number, (patient, payload) in enumerate(messages, start=1):
                read = reader.read(payload, Place("ward message", number), patient, NOW)
                await keep(read.versions, read.learned, read.consents)

        live(store, message_recipe("ward", MRN, "UTC"), take)

    def test_a_message_s_patient_is_the_one_of_its_topic(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        wrong = json.dumps(VALUE | {"unit": "apples"}).encode()
        self.publish(store, ("7", wrong), ("8", b"{\xff}"), ("9", json.dumps(VALUE).encode()))
        first, second = aside(store)
        assert (first["patient"], second["patient"]) == ("7", "8")
        (report,) = mend(store, ("apples", "/min")).reports
        assert report.reasons == {"not a JSON object": 1}
        (left,) = aside(store)
        assert (left["patient"], left["raw"]) == ("8", "{\udcff}")
        mend_by(store, lambda entry: entry | {"raw": VALUE | {"value": 60}})
        events = Timeline.open(store).events().to_pylist()
        assert {event["subject_id"]: event["numeric_value"] for event in events} == {
            whose("7"): 71.0, whose("8"): 60.0, whose("9"): 71.0
        }  # fmt: skip

    def test_fhir_in_a_message(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        resource = {"resourceType": "Observation", "status": "final",
                    "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
                    "effectiveDateTime": "2026-02-01T08:00:00Z",
                    "valueQuantity": {"value": 71, "code": "apples"}}  # fmt: skip
        self.publish(store, ("7", json.dumps(resource).encode()))
        mend(store, ("apples", "/min"))
        assert list(held(store).values()) == [71.0]

    def test_posted_resources_still_cannot_make_two_patients_one(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        bad = {"resourceType": "Observation", "id": "o", "status": "final",
               "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
               "subject": {"reference": "Patient/7"}, "effectiveDateTime": "2026-02-01T08:00:00Z",
               "valueQuantity": {"value": 71, "code": "apples"}}  # fmt: skip

        async def take(desk: Desk, keep: Keep) -> None:
            intake = Intake(desk, "devices", None, keep)
            with pytest.raises(RefusalError):
                await intake.one(bad, NOW)

        live(store, fhir_recipe("devices", None, "UTC", joins=False), take)
        link = {"resourceType": "Patient", "id": "8",
                "link": [{"type": "replaces", "other": {"reference": "Patient/7"}}]}  # fmt: skip
        good = bad | {"valueQuantity": {"value": 71, "code": "/min"}}
        bundle = {"resourceType": "Bundle", "entry": [{"resource": link}, {"resource": good}]}
        (report,) = mend_by(store, lambda entry: entry | {"raw": bundle}).reports
        assert report.events == 1
        assert any("make two patients one" in note for note in report.notes | report.reasons)

    def send(self, store: Path, *messages: str) -> None:
        async def take(desk: Desk, keep: Keep) -> None:
            door = MllpDoor("lab", MllpSettings(port=0), Whose(system=MRN, authority="HOSP"))
            task = asyncio.create_task(door.serve(desk, keep))
            while door.port is None:
                await asyncio.sleep(0.001)
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            for text in messages:
                writer.write(b"\x0b" + text.encode() + b"\x1c\r")
                await reader.readuntil(b"\x1c\r")
            writer.write(b"\x0bMSH|^~\\&|LAB")  # and the line breaks down
            writer.close()
            await writer.wait_closed()
            while door._open:
                await asyncio.sleep(0.001)
            task.cancel()

        whose = Whose(system=MRN, authority="HOSP")
        live(store, hl7_recipe("lab", whose, "UTC"), take)

    def test_a_message_over_mllp(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        self.send(store, message(msh(), PID, OBR, obx("180", unit="apples")))
        assert [one["file"].split(":")[0] for one in aside(store)] == 2 * ["lab"]
        done = mend(store, ("apples", "mg/dL"))
        assert done.passed_over == {
            "lines of which only the beginning was kept: put the whole text into 'raw'": 1
        }
        (report,) = done.reports
        assert report.unused == 0
        assert (
            pytest.approx(
                next(
                    v for k, v in held(store).items() if "/birth" not in k and isinstance(v, float)
                ),
                rel=1e-3,
            )
            == 180 / 38.67
        )

    def test_a_message_that_was_corrected_since_undoes_no_correction(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        two = [obx("180"), obx("4", code="2085-9^HDL^LN", unit="apples")]
        later = {"f7": "20240501103100"}
        corrected = message(msh(number="M2", **later), PID, OBR, obx("150", status="C"))
        self.send(store, message(msh(), PID, OBR, *two), corrected)
        before = held(store)
        (report,) = mend(store, ("apples", "mmol/L")).reports
        assert report.reasons[OUTDATED] >= 1
        now = held(store)
        assert before.items() <= now.items()
        assert 4.0 in now.values()

    def test_doors_have_quarantine_files_of_their_own(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        with LiveStore(store, SECRET, lambda: NOW) as kept:
            for recipe in (message_recipe("ward", MRN, "UTC"), None):
                desk = kept.desk("ward" if recipe else "icu", ZoneInfo("UTC"), recipe)
                desk.reading.tally.put_aside("no time", Place("x", 1), "{}")
                asyncio.run(kept.keep(desk)([]))
        compact(store, NOW)
        assert [len(list(lines_of(store, name))) for name in names(store)] == [1, 1]

    def test_a_tail_of_before_is_brought_up_to_date(self, tmp_path: Path) -> None:
        with Tail(tmp_path) as tail:
            path = tail.path
        db = sqlite3.connect(path)
        db.execute("DROP TABLE aside")
        db.execute(
            "CREATE TABLE aside (number INTEGER PRIMARY KEY, door TEXT NOT NULL,"
            " file TEXT NOT NULL, line INTEGER NOT NULL, reason TEXT NOT NULL, raw TEXT NOT NULL)"
        )
        db.execute("INSERT INTO aside VALUES (1, 'ward', 'x', 7, 'no time', '{}')")
        db.commit()
        db.close()
        with Tail(tmp_path) as tail:
            ((_, door, found),) = tail.asides()
        assert (door, found.reason, found.raw, found.also, found.patient) == (
            "ward", "no time", "{}", (), None
        )  # fmt: skip
        compact(tmp_path, NOW + timedelta(hours=1))
        assert len(aside(tmp_path)) == 1
