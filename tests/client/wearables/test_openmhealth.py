"""Open mHealth and IEEE 1752.1 data points, and HealthKit samples in that form."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.events import Event
from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.records.report import ImportReport, Tally
from fedtwin_client.records.source import OpenSource
from fedtwin_client.records.wearables.openmhealth_files import openmhealth_files
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

from ..desks import NOW, SECRET, SHARED, read_all

AT = {"date_time": "2026-02-01T08:00:00+01:00"}
SPAN = {
    "time_interval": {
        "start_date_time": "2026-02-01T08:00:00Z",
        "end_date_time": "2026-02-01T09:00:00Z",
    }
}


def point(body: dict[str, Any], name: str = "heart-rate", **header: Any) -> dict[str, Any]:
    schema = {"namespace": "omh", "name": name, "version": "2.0"}
    given = {"id": "a1", "creation_date_time": "2026-02-02T00:00:00Z", "schema_id": schema}
    return {"header": given | {"user_id": "7"} | header, "body": body}


def opened(
    folder: Path, *values: Any, patient: str | None = None, system: str | None = "http://h/mrn"
) -> OpenSource:
    file = folder / "points.json"
    file.write_text(json.dumps(values[0] if len(values) == 1 else list(values)))
    return openmhealth_files([file], patient=patient, system=system)


def load(folder: Path, *values: Any, patient: str | None = None) -> tuple[Tally, list[Event]]:
    opening = opened(folder, *values, patient=patient)
    return read_all(opening, "openmhealth", quarantine=folder / "quarantine.ndjson")


def stored(folder: Path, opening: OpenSource) -> tuple[ImportReport, list[dict[str, Any]]]:
    report = import_source(
        opening, folder / "store", secret=SECRET, now=NOW, source="openmhealth", zone="UTC"
    )
    return report, Timeline.open(folder / "store").events().to_pylist()


def test_a_data_point_becomes_an_event(tmp_path: Path) -> None:
    body = {"heart_rate": {"value": 60, "unit": "beats/min"}, "effective_time_frame": AT}
    report, (event,) = load(tmp_path, point(body))
    assert (event.code, event.numeric_value) == ("LOINC//8867-4", 60.0)
    assert (event.unit, event.src_unit) == ("/min", "beats/min")
    assert event.time == datetime(2026, 2, 1, 7, tzinfo=UTC)
    assert event.available_time == datetime(2026, 2, 2, tzinfo=UTC)
    assert event.subject_id == pseudonym(SECRET, Identity("http://h/mrn", "7"))
    assert event.source == "openmhealth:point/a1#heart_rate"
    assert (report.read, report.reasons) == ({"data points": 1}, {})


@pytest.mark.parametrize(
    ("body", "code", "value", "unit"),
    [
        ({"body_temperature": {"value": 98.6, "unit": "F"}}, "LOINC//8310-5", 37.0, "Cel"),
        ({"blood_glucose": {"value": 90, "unit": "mg/dL"}}, "LOINC//2339-0", 4.9957, "mmol/L"),
        (
            {
                "blood_glucose": {"value": 5, "unit": "mmol/L"},
                "specimen_source": "interstitial fluid",
            },
            "LOINC//99504-3",
            5.0,
            "mmol/L",
        ),
        ({"step_count": 6000}, "LOINC//55423-8", 6000.0, "1"),
        ({"step_count": {"value": 6000, "unit": "steps"}}, "LOINC//55423-8", 6000.0, "1"),
        (
            {"base_movement_quantity": {"value": 6000, "unit": "steps"}},
            "LOINC//55423-8",
            6000.0,
            "1",
        ),
        ({"body_height": {"value": 5, "unit": "ft"}}, "LOINC//8302-2", 152.4, "cm"),
        ({"body_weight": {"value": 100, "unit": "lb"}}, "LOINC//29463-7", 45.359237, "kg"),
        ({"total_sleep_time": {"value": 465, "unit": "min"}}, "LOINC//93832-4", 7.75, "h"),
        ({"distance": {"value": 2, "unit": "mi"}}, "OMH//distance", 3218.688, "m"),
        ({"pace": {"value": 8, "unit": "min/mi"}}, "OMH//pace", 4.97097, "min/km"),
        ({"forced_vital": {"value": 4, "unit": "L"}}, "OMH//forced-vital", 4.0, "L"),
        (
            {"heart_rate": {"value": 50, "unit": "bpm"}, "descriptive_statistic": "minimum"},
            "OMH//heart-rate-minimum",
            50.0,
            "/min",
        ),
        (
            {
                "step_count": 9000,
                "descriptive_statistic": "average",
                "descriptive_statistic_denominator": "d",
            },
            "OMH//step-count-average-per-d",
            9000.0,
            "1",
        ),
    ],
)
def test_measures_codes_and_units(
    tmp_path: Path, body: dict[str, Any], code: str, value: float, unit: str
) -> None:
    _, (event,) = load(tmp_path, body | {"effective_time_frame": SPAN}, patient="7")
    assert (event.code, event.unit) == (code, unit)
    assert event.numeric_value == pytest.approx(value, rel=1e-4)
    assert event.time == datetime(2026, 2, 1, 9, tzinfo=UTC)  # a span's value is whole at its end


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (None, "no time"),
        ({}, "no time"),
        ({"time_interval": {}}, "no time"),
        ({"date_time": "yesterday"}, "a time that cannot be read"),
        ({"date_time": "2027-01-01T00:00:00Z"}, "lies in the future"),
        (
            {
                "time_interval": {
                    "start_date_time": "2026-02-01T08:00:00Z",
                    "end_date_time": "2026-02-01T07:00:00Z",
                }
            },
            "a time span that ends before it begins",
        ),
        (
            {"time_interval": {"start_date_time": "2026-02-01T08:00:00Z"}},
            "a time span without an end",
        ),
        (
            {
                "time_interval": {
                    "start_date_time": "2026-02-01T08:00:00Z",
                    "duration": {"value": 1e300, "unit": "h"},
                }
            },
            "a duration that cannot be read",
        ),
        (
            {
                "time_interval": {
                    "start_date_time": "2026-02-28T08:00:00Z",
                    "duration": {"value": 2, "unit": "d"},
                }
            },
            "lies in the future",
        ),
    ],
)
def test_times_that_are_none_are_put_aside(tmp_path: Path, frame: Any, reason: str) -> None:
    good = {"heart_rate": {"value": 60, "unit": "bpm"}, "effective_time_frame": AT}
    bad = {"heart_rate": {"value": 61, "unit": "bpm"}, "effective_time_frame": frame}
    report, events = load(tmp_path, good, bad, patient="7")
    assert (len(events), report.reasons) == (1, {reason: 1})
    aside = (tmp_path / "quarantine.ndjson").read_text()
    assert '"file": "points.json:1 entry", "line": 2' in aside


def test_a_series_is_many_points_under_one_header(tmp_path: Path) -> None:
    frames = [{"date_time": f"2026-02-01T08:{n:02d}:00Z"} for n in range(3)]
    bodies = [
        {"heart_rate": {"value": 60 + n, "unit": "bpm"}, "effective_time_frame": frame}
        for n, frame in enumerate([*frames, None])
    ]
    report, events = load(tmp_path, point({}) | {"body": bodies})
    assert [event.numeric_value for event in events] == [60, 61, 62]
    assert events[2].source == "openmhealth:point/a1#2/heart_rate"
    assert (report.read, report.reasons) == ({"data points": 4}, {"no time": 1})


def test_a_part_of_a_day_is_known_at_its_end(tmp_path: Path) -> None:
    frame = {"time_interval": {"date": "2026-02-01", "part_of_day": "evening"}}
    body = {"heart_rate": {"value": 60, "unit": "bpm"}, "effective_time_frame": frame}
    _, (event,) = load(tmp_path, body, patient="7")
    assert event.time == datetime(2026, 2, 1, tzinfo=UTC)
    assert event.available_time == datetime(2026, 2, 1, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (point({}, name="sleep-diary"), "an empty body"),
        (point({"steps": 1}), "the body does not hold what its schema heart-rate names"),
        (point({"x": 1}, schema_id={"name": "y"}), "a header whose schema_id has no name or no"),
        (point({"x": 1}, name="sleep-diary"), "the schema sleep-diary is not read"),
        ({"header": {}, "body": []}, "an empty data series"),
        ({"header": 5, "body": {}}, "a data point needs a header and a body, both objects"),
        ({"schema_id": {}, "id": "1"}, "a header without a body"),
        ({}, "an empty object"),
        ([5], "not a JSON object"),
        ({"latitude": {"value": 1, "unit": "deg"}}, "where a person was is not kept"),
        ({"medication": {}}, "a medication is not read"),
        (
            {"heart_rate": {"value": 60, "unit": "mmHg"}, "effective_time_frame": AT},
            "unit 'mmHg' does not fit heart rate, kept in /min",
        ),
        (
            {"heart_rate": {"value": 60}, "effective_time_frame": AT},
            "no unit for heart rate, which is kept in /min",
        ),
        (
            {"heart_rate": {"value": "60", "unit": "bpm"}, "effective_time_frame": AT},
            "expected a number, found text",
        ),
        (
            {
                "blood_glucose": {"value": 60, "unit": "mg/dL"},
                "specimen_source": "tears",
                "effective_time_frame": AT,
            },
            "glucose in a specimen that is not known",
        ),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path: Path, value: Any, reason: str) -> None:
    good = {"heart_rate": {"value": 60, "unit": "bpm"}, "effective_time_frame": AT}
    report, events = load(tmp_path, good, value, patient="7")
    assert len(events) == 1
    assert any(said.startswith(reason) for said in report.reasons), report.reasons


def test_whose_points_they_are(tmp_path: Path) -> None:
    body = {"heart_rate": {"value": 60, "unit": "bpm"}, "effective_time_frame": AT}
    nobody = point(body, id="b", user_id=None)
    report, events = load(tmp_path, point(body), nobody)
    assert len(events) == 1
    assert list(report.reasons) == [
        "no patient: the point has no user_id, and none was named for all"
    ]
    other = point(body, id="c", user_id="8")
    report, _ = load(tmp_path, point(body), nobody, other, patient="4711")
    assert list(report.reasons) == ["a second user_id, though all points are said to be of one"]


def test_a_point_replaces_an_earlier_one_and_a_spoilt_one_takes_it_out(tmp_path: Path) -> None:
    body = {"heart_rate": {"value": 60, "unit": "bpm"}, "effective_time_frame": AT}
    stored(tmp_path, opened(tmp_path, point(body)))
    newer = point(body | {"heart_rate": {"value": 61, "unit": "bpm"}})
    _, (event,) = stored(tmp_path, opened(tmp_path, newer))
    assert event["numeric_value"] == 61
    spoilt = point(body | {"heart_rate": {"value": None, "unit": "bpm"}})
    report, events = stored(tmp_path, opened(tmp_path, spoilt, point(body, id="other")))
    assert [event["numeric_value"] for event in events] == [60]
    assert report.withdrawn == 1


def test_healthkit_samples(tmp_path: Path) -> None:
    def sample(kind: str, value: Any) -> dict[str, Any]:
        name = f"HKQuantityTypeIdentifier{kind}"
        return {"quantity_type": name, "unit_value": value, "effective_time_frame": SPAN}

    report, events = load(
        tmp_path,
        sample("OxygenSaturation", {"value": 0.98, "unit": "%"}),
        sample("OxygenSaturation", {"value": 98, "unit": "%"}),
        sample("BloodGlucose", {"value": 5.5, "unit": "mmol<180.1558800000541>/L"}),
        {
            "category_type": "HKCategoryTypeIdentifierSleepAnalysis",
            "category_value": "InBed",
            "effective_time_frame": SPAN,
        },
        {
            "correlation_type": "HKCorrelationTypeIdentifierBloodPressure",
            "quantity_samples": [
                sample("BloodPressureSystolic", {"value": 120, "unit": "mmHg"}),
                sample("BloodPressureDiastolic", {"value": 80, "unit": "mmHg"}),
                5,
            ],
        },
        {
            "activity_name": "HKWorkoutActivityTypeCycling",
            "duration": {"value": 1800, "unit": "sec"},
            "effective_time_frame": SPAN,
        },
        patient="7",
    )
    found = {event.code: event.text_value or round(event.numeric_value, 3) for event in events}
    assert found == {
        "LOINC//59408-5": 98.0,
        "LOINC//2339-0": 5.5,
        "HEALTHKIT//SleepAnalysis": "InBed",
        "LOINC//8480-6": 120.0,
        "LOINC//8462-4": 80.0,
        "OMH//physical-activity": "Cycling",
        "OMH//duration": 30.0,
    }
    assert report.reasons == {
        "a percentage outside 0 to 1, as which Apple counts them": 1,
        "a sample that is not an object": 1,
    }


def test_files_of_every_form(tmp_path: Path) -> None:
    body = {"heart_rate": {"value": 60, "unit": "bpm"}, "effective_time_frame": AT}
    lines = [json.dumps(point(body, id=str(n))) for n in range(3)]
    folder = tmp_path / "points"
    folder.mkdir()
    (folder / "a.ndjson").write_text("\n".join([*lines, "[1]", "{", '{"cut":']))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps(point(body, id="gz")).encode()))
    (folder / "c.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([point(body, id="bom")]).encode())
    (folder / "d.ndjson").write_bytes(b"x" * (16 * 1024 * 1024 + 5) + b"\n" + lines[0].encode())
    report, events = read_all(openmhealth_files([folder]), "openmhealth")
    assert len(events) == 5
    assert report.reasons == {
        "not a JSON object": 2,
        "the last line was cut off": 1,
        "a line longer than 16 MiB": 1,
    }


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"[[[]]]", b'"x"', b"5"])
def test_files_that_hold_nothing_of_use_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RecordError, match="found no data point that can be used in 1 files"):
        read_all(openmhealth_files([tmp_path / "x.json"]), "openmhealth")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="expected a file or a folder of data points"):
        openmhealth_files([tmp_path / "none"])
    with pytest.raises(RecordError, match=r"found no file ending in \.json"):
        openmhealth_files([tmp_path])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
def test_all_samples_of_the_schemas_come_in_and_every_other_is_explained(tmp_path: Path) -> None:
    """The 197 valid samples of Open mHealth and Granola; see docs/sources/openmhealth.md."""
    opening = openmhealth_files([SHARED / "openmhealth"], patient="7")
    report, _ = stored(tmp_path, opening)
    assert report.events == 139
    kept = {reason: n for reason, n in report.reasons.items() if "member" not in reason}
    assert report.read == {"data points": 197}
    assert kept == {
        "an older version of a resource that comes twice": 42,  # equal in two schema versions
        "a medication is not read": 36,
        "no time": 25,
        "no measure that is read": 5,
        "a header without a body": 3,
        "a time span that ends before it begins": 3,
        "where a person was is not kept": 2,
        "an empty body": 1,
        "an empty list": 1,
    }
