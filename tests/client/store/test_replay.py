"""Mended lines of tables, messages and points come in as the source would have read them."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.hl7.files import hl7_files
from fedtwin_client.records.hl7.lines import hl7_recipe
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.report import ImportReport
from fedtwin_client.records.wearables.openmhealth_files import openmhealth_files
from fedtwin_client.records.wearables.point_lines import point_recipe
from fedtwin_client.store.imports import import_source, import_table
from fedtwin_client.store.timeline import Timeline

from ..hl7.hl7_parts import OBR, PID, message, msh, obx
from .replays import MRN, NOW, SECRET, aside, held, mend, mend_by, whose


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
        assert (report.reasons, report.read) == ({reason: 1}, {"rows": 1})
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
