"""Wearables at the command line: what comes in, and a sentence for what cannot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

POINT = {
    "header": {
        "id": "a1",
        "schema_id": {"namespace": "omh", "name": "heart-rate", "version": "2.0"},
        "user_id": "4711",
    },
    "body": {
        "heart_rate": {"value": 60, "unit": "beats/min"},
        "effective_time_frame": {"date_time": "2026-02-01T08:00:00Z"},
    },
}
EXPORT = """<HealthData><Record type="HKQuantityTypeIdentifierHeartRate" unit="count/min" value="61"
 startDate="2026-02-01 08:01:00 +0000" endDate="2026-02-01 08:01:00 +0000"/></HealthData>"""
READINGS = "id,time,gl mg/dL\n4711,2026-02-01 09:00,101\n4711,2026-02-30 09:00,101\n"
SYSTEM = ("--system", "http://h/mrn")


def test_three_sources_meet_in_one_patient(
    node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    (tmp_path / "points.json").write_text(json.dumps(POINT))
    (tmp_path / "export.xml").write_text(EXPORT)
    (tmp_path / "cgm.csv").write_text(READINGS)
    start = ("client", "records")
    where = ("--home", node, *SYSTEM)
    first = type_in(*start, "openmhealth", tmp_path / "points.json", *where)
    assert (first.status, "events         1" in first.out) == (0, True), first
    second = type_in(
        *(*start, "apple-health", tmp_path / "export.xml", "--patient", "4711", *where),
        *("--prefer", "Watch", "--prefer", "iPhone"),
    )
    assert (second.status, "events         1" in second.out) == (0, True), second
    third = type_in(*start, "glucose", tmp_path / "cgm.csv", "--zone", "Europe/Oslo", *where)
    assert (third.status, "a date or time that there is not" in third.out) == (0, True), third
    checked = type_in("client", "check", "--home", node).out
    assert "records: 3 events" in checked, checked
    assert "1 patients take part" in checked, checked
    aside = type_in("client", "records", "quarantine", "--home", node)
    assert aside.status == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("openmhealth", "none.json"), "expected a file or a folder of data points"),
        (("apple-health", "none.xml", "--patient", "1"), "expected an Apple Health export"),
        (("apple-health", "export.xml"), "Missing option '--patient'"),
        (("glucose", "none.csv", "--zone", "UTC"), "expected an export of a glucose monitor"),
        (("glucose", "none.csv"), "Missing option '--zone'"),
        (("glucose", "{cgm}", "--zone", "Oslo"), "expected a time zone such as 'Europe/Zurich'"),
        (("glucose", "{cgm}", "--zone", "UTC", "--unit", "mmol/L"), "and --unit says mmol/L"),
    ],
)
def test_what_cannot_be_ends_with_a_sentence(
    node: Path, tmp_path: Path, type_in: Callable[..., Any], words: tuple[str, ...], says: str
) -> None:
    (tmp_path / "cgm.csv").write_text(READINGS)
    typed = [word.replace("{cgm}", str(tmp_path / "cgm.csv")) for word in words]
    ended = type_in("client", "records", *typed, "--home", node)
    assert (ended.status, says in ended.err, "Traceback" in ended.err) == (2, True, False), ended
