"""Mended lines of every source come in as the source itself would have read them."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fedtwin_client.records.door import Keep
from fedtwin_client.records.fhir_answers import RefusalError
from fedtwin_client.records.fhir_intake import Intake
from fedtwin_client.records.fhir_lines import fhir_recipe
from fedtwin_client.records.hl7_files import hl7_files
from fedtwin_client.records.hl7_lines import hl7_recipe
from fedtwin_client.records.hl7_patients import Whose
from fedtwin_client.records.message_lines import message_recipe
from fedtwin_client.records.messages import MessageReader
from fedtwin_client.records.mllp import MllpDoor, MllpSettings
from fedtwin_client.records.openmhealth_files import openmhealth_files
from fedtwin_client.records.point_lines import point_recipe
from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.records.report import ImportReport, Place, Recipe
from fedtwin_client.records.source import Desk
from fedtwin_client.store.compaction import compact
from fedtwin_client.store.imports import import_source, import_table
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.quarantine import Replayed, export, lines_of, names, replay
from fedtwin_client.store.tail import OUTDATED, Tail
from fedtwin_client.store.timeline import Timeline

from .hl7_parts import OBR, PID, message, msh, obx

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2026, 3, 2, tzinfo=UTC)
SECRET = b"\x07" * 32
MRN = "http://h/mrn"
VALUE = {"code": "LOINC//8867-4", "value": 71, "unit": "/min", "time": "2026-02-01T08:00:00Z"}
Mend = Callable[[dict[str, Any]], dict[str, Any]]


def mend(store: Path, *changes: tuple[str, str]) -> Replayed:
    """Hand out the newest quarantine file, change what stands in 'raw', and replay it."""

    def changed(entry: dict[str, Any]) -> dict[str, Any]:
        raw = entry["raw"]
        for old, new in changes:
            raw = raw.replace(old, new)
        return entry | {"raw": raw}

    return mend_by(store, changed)


def mend_by(store: Path, change: Mend) -> Replayed:
    out = store.parent / f"{len(list(store.parent.iterdir()))}.ndjson"
    export(store, names(store)[-1], out)
    entries = [json.loads(line) for line in out.read_text().splitlines()]
    out.write_text("".join(json.dumps(change(entry)) + "\n" for entry in entries))
    return replay(store, out, SECRET, LATER)


def aside(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for name in names(store) for line in lines_of(store, name)]


def held(store: Path) -> dict[str, Any]:
    """Every event's value by its source."""
    found = Timeline.open(store).events().to_pylist()
    values = {
        event["source"].removesuffix("/0"): event["text_value"]
        or event["numeric_value"]
        or event["code"]
        for event in found
    }
    assert len(values) == len(found), "an event came twice"
    return values


def whose(number: str) -> int:
    return pseudonym(SECRET, Identity(MRN, number))


class TestTables:
    MAPPING = (
        f"name: t\nsubject: {{column: id, system: {MRN}}}\ntime: {{column: day}}\n"
        "birth: {column: born}\nsex: {column: sex, male: [M], female: [F]}\n"
        "columns:\n  chol: {code: LOCAL//chol, unit: mg/dL}\n  hb: {code: LOCAL//hb, unit: g/L}\n"
    )
    HEAD = "id,day,born,sex,chol,hb\n"

    def load(self, folder: Path, text: str, head: str = HEAD) -> ImportReport:
        (folder / "t.csv").write_text(head + text)
        (folder / "t.yaml").write_text(self.MAPPING)
        return import_table(
            folder / "t.csv", folder / "t.yaml", folder / "store", secret=SECRET, now=NOW
        )

    def test_a_mended_row_leaves_the_other_rows_alone(self, tmp_path: Path) -> None:
        self.load(
            tmp_path,
            "1,2024-01-01,1960-01-01,F,200,130\n"
            "2,soon,1970-01-01,M,210,140\n"
            "1,2024-02-01,1960-01-01,F,high,none\n",
        )
        store = tmp_path / "store"
        before = held(store)
        # A row with two cells that are wrong stands in quarantine once, with both reasons.
        assert [(one["line"], len(one.get("also", ()))) for one in aside(store)] == [(3, 0), (4, 1)]
        done = mend(store, ("soon", "2024-01-02"), ("high", "220"), ("none", "150"))
        (report,) = done.reports
        assert (report.read, report.events, report.unused) == ({"rows": 2}, 6, 0)
        now = held(store)
        assert before.items() <= now.items()
        # Of patient 1 birth and sex were told by the first row, of patient 2 only now.
        made = {"t.csv#3/birth", "t.csv#3/sex", "t.csv#3/chol", "t.csv#3/hb", "t.csv#4/chol",
                "t.csv#4/hb"}  # fmt: skip
        assert now.keys() - before.keys() == {f"table:t/{name}" for name in made}
        assert aside(store) == []

    def test_the_row_that_told_a_patient_s_birth_still_tells_it(self, tmp_path: Path) -> None:
        self.load(tmp_path, "1,2024-01-01,1960-01-01,F,high,130\n")
        store = tmp_path / "store"
        before = held(store)
        mend(store, ("high", "200"))
        assert held(store) == before | {"table:t/t.csv#2/chol": 200.0}

    def test_what_is_still_wrong_goes_back_with_its_new_reason(self, tmp_path: Path) -> None:
        self.load(tmp_path, "1,2024-01-01,1960-01-01,F,200,130\n2,soon,1970-01-01,M,210,140\n")
        store = tmp_path / "store"
        (report,) = mend(store, ("soon", "2099-01-01")).reports
        assert report.reasons == {"lies in the future": 1}
        (left,) = aside(store)
        assert (left["reason"], left["file"], left["line"]) == ("lies in the future", "t.csv", 3)
        mend(store, ("2099", "2019"))
        assert aside(store) == []
        assert held(store)["table:t/t.csv#3/chol"] == 210.0

    def test_importing_the_table_again_replaces_mended_rows_too(self, tmp_path: Path) -> None:
        self.load(tmp_path, "1,2024-01-01,1960-01-01,F,200,130\n2,soon,1970-01-01,M,210,140\n")
        store = tmp_path / "store"
        mend(store, ("soon", "2024-01-02"))
        self.load(tmp_path, "1,2024-01-01,1960-01-01,F,201,130\n")
        assert {name for name in held(store) if "#3" in name} == set()
        assert held(store)["table:t/t.csv#2/chol"] == 201.0

    def test_a_line_of_other_cells_is_handed_out_below_the_names(self, tmp_path: Path) -> None:
        self.load(tmp_path, '1,2024-01-01,1960-01-01,F,200,130\n2,"2024-01-02",1970-01-01,M,2,10\n'
                            '3,"a,b",c\n')  # fmt: skip
        store = tmp_path / "store"
        (left,) = aside(store)
        assert left["raw"] == self.HEAD + '3,"a,b",c\n'
        (report,) = mend(store, ('3,"a,b",c', "3,2024-01-03,1980-01-01,F,190,120")).reports
        assert (report.events, report.unused) == (4, 0)
        assert held(store)["table:t/t.csv#4/chol"] == 190.0

    def test_lines_that_a_quotation_mark_has_swallowed_are_kept(self, tmp_path: Path) -> None:
        lines = ["1,2024-01-01,1960-01-01,F,200,130", '2,"2024-01-02,1970-01-01,M,210,140']
        lines += ["3,2024-01-03,1980-01-01,F,190,120", "4,2024-01-04,1990-01-01,M,180,110"]
        report = self.load(tmp_path, "\n".join(lines) + "\n")
        store = tmp_path / "store"
        assert report.reasons == {"not CSV: unexpected end of data": 3}
        (left,) = aside(store)
        assert left["raw"] == self.HEAD + "\n".join(lines[1:]) + "\n"
        (report,) = mend(store, ('"', "")).reports
        assert (report.read, report.events) == ({"rows": 3}, 12)
        found = held(store)
        values = [found[f"table:t/t.csv#{line}/chol"] for line in (3, 4, 5)]
        assert values == [210.0, 190.0, 180.0]

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            ("id,day\n2,2024-01-01\n", "no column born, sex, chol, hb"),
            ("id,day,born,sex,chol,hb\n", "no row below the line of names"),
            ("", "no row below the line of names"),
            (HEAD + "2,2024-01-01\n", "expected 6 cells, found 2"),
            (HEAD + '2,"2024"x,,,,\n', "not CSV: ',' expected after '\"'"),
            (
                HEAD + 2 * "2,2024-01-01,1970-01-01,M,2,3\n",
                "more rows than lines that were put aside",
            ),
            ("{}", "no column id, day, born, sex, chol, hb"),
        ],
    )
    def test_text_that_is_no_row(self, tmp_path: Path, raw: str, reason: str) -> None:
        self.load(tmp_path, "1,2024-01-01,1960-01-01,F,200,130\n2,soon,1970-01-01,M,210,140\n")
        store = tmp_path / "store"
        before = held(store)
        (report,) = mend_by(store, lambda entry: entry | {"raw": raw}).reports
        assert report.reasons == {reason: 1}
        assert held(store) == before
        (left,) = aside(store)
        assert (left["reason"], left["raw"]) == (reason, raw)

    def test_views(self, tmp_path: Path) -> None:
        def observation(number: int, day: str) -> str:
            resource = {"resourceType": "Observation", "id": f"o{number}", "status": "final",
                        "code": {"text": "x"}, "subject": {"reference": "Patient/p"},
                        "effectiveDateTime": day, "valueInteger": 5}  # fmt: skip
            return json.dumps(resource) + "\n"

        view = {"resource": "Observation", "select": [{"column": [
            {"name": "who", "path": "subject.reference"},
            {"name": "day", "path": "effective.ofType(dateTime)"},
            {"name": "n", "path": "value.ofType(integer)"}]}]}  # fmt: skip
        (tmp_path / "v.json").write_text(json.dumps(view))
        (tmp_path / "v.yaml").write_text(
            "name: v\nview: v.json\nsubject: {column: who, server: epic}\ntime: {column: day}\n"
            'columns: {n: {code: LOCAL//n, unit: "1"}}\n'
        )
        file, store = tmp_path / "a.ndjson", tmp_path / "store"
        file.write_text(observation(1, "2024-01-01") + observation(2, "soon"))
        import_table(file, tmp_path / "v.yaml", store, secret=SECRET, now=NOW)
        (tmp_path / "v.json").unlink()
        mend(store, ("soon", "2024-01-02"))
        assert held(store) == {f"table:v:Observation/o{n}#0/n": 5.0 for n in (1, 2)}


class TestMessages:
    GOOD = message(msh(), PID, OBR, obx("180"), obx("4", code="2085-9^HDL^LN", unit="apples"))

    def load(self, folder: Path, *messages: bytes, encoding: str = "utf-8") -> ImportReport:
        (folder / "a.hl7").write_bytes(b"".join(messages))
        whose = Whose(system=MRN, authority="HOSP")
        return import_source(
            hl7_files([folder / "a.hl7"], "lab", whose, encoding=encoding),
            folder / "store",
            secret=SECRET,
            now=NOW,
            source="lab",
            zone="Europe/Zurich",
            recipe=hl7_recipe("lab", whose, "Europe/Zurich", encoding),
        )

    def test_a_message_is_handed_out_whole(self, tmp_path: Path) -> None:
        self.load(tmp_path, self.GOOD.encode())
        store = tmp_path / "store"
        before = held(store)
        (left,) = aside(store)
        assert left["raw"].replace("\n", "\r") + "\r" == self.GOOD
        (report,) = mend(store, ("apples", "mmol/L")).reports
        assert (report.read, report.unused) == ({"ORU^R01": 1}, 0)
        now = held(store)
        assert before.items() <= now.items()
        assert set(now.values()) - set(before.values()) == {4.0}
        events = Timeline.open(store).events().to_pylist()
        assert {event["subject_id"] for event in events} == {whose("4711")}

    def test_a_message_that_is_still_wrong_goes_back(self, tmp_path: Path) -> None:
        self.load(tmp_path, self.GOOD.encode())
        store = tmp_path / "store"
        mend(store, ("apples", "pears"))
        (left,) = aside(store)
        assert "'pears'" in left["reason"]
        mend(store, ("pears", "mmol/L"))
        assert aside(store) == []

    def test_several_faults_of_a_message_are_one_line(self, tmp_path: Path) -> None:
        bad = message(msh(), PID, OBR, obx("1", unit="apples"), obx("x", unit="mg/dL", status="Q"))
        report = self.load(tmp_path, self.GOOD.encode(), bad.replace("F1^", "F2^").encode())
        assert report.unused == 3
        first, second = aside(tmp_path / "store")
        assert "also" not in first
        assert second["also"] == ["a result status (OBX-11) that is none of HL7 table 0085"]

    def test_bytes_that_were_no_text_come_back(self, tmp_path: Path) -> None:
        bad = self.GOOD.replace("apples", "mmol/L").replace("DOE", "M\xfcller").encode("latin-1")
        self.load(tmp_path, bad)
        store = tmp_path / "store"
        (left,) = aside(store)
        assert left["reason"].startswith("bytes that are not utf-8")
        mend(store)  # as they are they are wrong again, and nothing of them is lost
        (left,) = aside(store)
        assert left["reason"].startswith("bytes that are not utf-8")
        assert left["raw"].encode("utf-8", "surrogateescape") == bad.rstrip(b"\r")
        mend(store, ("\udcfc", "\xfc"))
        assert aside(store) == []
        assert 4.0 in held(store).values()

    def test_text_that_is_no_message(self, tmp_path: Path) -> None:
        self.load(tmp_path, self.GOOD.encode())
        store = tmp_path / "store"
        (report,) = mend_by(store, lambda entry: entry | {"raw": "MSH"}).reports
        assert report.unused == 1
        (left,) = aside(store)
        assert left["reason"].startswith("not an HL7 message")


class TestPoints:
    def load(self, folder: Path, *points: dict[str, Any], **options: Any) -> None:
        (folder / "p.ndjson").write_text("".join(json.dumps(point) + "\n" for point in points))
        patient = options.get("patient")
        import_source(
            openmhealth_files([folder / "p.ndjson"], patient=patient, system=MRN),
            folder / "store",
            secret=SECRET,
            now=NOW,
            source="openmhealth",
            zone="UTC",
            recipe=point_recipe("openmhealth", patient, MRN, "UTC"),
        )

    @pytest.mark.parametrize("own", [{"id": "point-1"}, {}])
    def test_what_was_used_of_a_point_is_not_doubled(
        self, tmp_path: Path, own: dict[str, str]
    ) -> None:
        good, bad = {"value": 120, "unit": "mmHg"}, {"value": 80, "unit": "apples"}
        body = {"systolic_blood_pressure": good, "diastolic_blood_pressure": bad}
        body["effective_time_frame"] = {"date_time": "2024-01-01T08:00:00Z"}  # type: ignore[assignment]
        header = own | {"user_id": "7", "schema_id": {"namespace": "omh", "name": "blood-pressure",
                                                      "version": "4.0"}}  # fmt: skip
        self.load(tmp_path, {"header": header, "body": body})
        store = tmp_path / "store"
        assert list(held(store).values()) == [120.0]
        mend(store, ("apples", "mmHg"))
        assert sorted(held(store).values()) == [80.0, 120.0]
        assert aside(store) == []

    def test_whose_points_they_are_is_remembered(self, tmp_path: Path) -> None:
        time = {"date_time": "2024-01-01T08:00:00Z"}
        point = {"heart_rate": {"value": 71, "unit": "apples"}, "effective_time_frame": time}
        good = {"heart_rate": {"value": 70, "unit": "beats/min"}, "effective_time_frame": time}
        self.load(tmp_path, point, good, patient="7")
        store = tmp_path / "store"
        mend_by(store, lambda entry: entry | {"raw": "[]"})
        (left,) = aside(store)
        assert left["reason"] == "not a JSON object"
        mend_by(store, lambda entry: entry | {"raw": point | {"heart_rate": good["heart_rate"]}})
        events = Timeline.open(store).events().to_pylist()
        assert {event["subject_id"] for event in events} == {whose("7")}


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
