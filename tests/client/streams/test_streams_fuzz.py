"""Whatever comes in, readers of streams raise nothing but what they say, and lose nothing."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtwin_client.records.fhir.answers import RefusalError
from fedtwin_client.records.fhir.intake import Intake
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Source
from fedtwin_client.records.streams.messages import MessageReader
from fedtwin_client.records.wearables.apple_health import apple_health_file
from fedtwin_client.records.wearables.glucose_files import GlucoseOptions, glucose_file
from fedtwin_client.records.wearables.openmhealth_files import openmhealth_files
from fedtwin_protocol.errors import RecordError

from ..desks import NOW, MemoryKeep, make_desk

quick = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TIMES = st.sampled_from(["2026-02-01T08:00:00Z", "2026-02-01", "2026", "9999-99-99", "", "\u0663"])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=8) | TIMES
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "header",
        "body",
        "id",
        "user_id",
        "schema_id",
        "effective_time_frame",
        "date_time",
        "time_interval",
        "duration",
        "heart_rate",
        "blood_glucose",
        "value",
        "unit",
        "step_count",
        "quantity_type",
        "unit_value",
        "count",
        "category_type",
        "correlation_type",
        "quantity_samples",
        "code",
        "time",
        "descriptive_statistic",
        "activity_name",
        "patient",
        "resourceType",
        "comparator",
        "base_movement_quantity",
        "specimen_source",
        "type",
        "entry",
        "resource",
        "request",
        "method",
        "subject",
        "valueQuantity",
        "effectiveDateTime",
    ]
)
POINTS = st.recursive(
    SCALARS | st.just("HKQuantityTypeIdentifierHeartRate") | st.just("Observation"),
    lambda inner: st.dictionaries(KEYS, inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=20,
)


def events_of(source: Source, words: str) -> int:
    """How many events it makes; refused as a whole, none."""
    events = 0
    try:
        for version in source.versions():
            for _ in version.events:
                events += 1
    except RecordError as error:
        if words not in str(error):
            raise
    return events


def accounted(desk: Any, events: int, items: int) -> None:
    """Every item made an event or has a reason."""
    assert events + sum(desk.reading.tally.reasons.values()) >= items


@quick
@given(values=st.lists(POINTS | JSON, max_size=4))
def test_any_json_as_data_points(tmp_path: Path, values: list[Any]) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(values))
    desk = make_desk("openmhealth")
    source = openmhealth_files([file], patient="7")(desk)
    events = events_of(source, "found no data point that can be used")
    accounted(desk, events, len(values))


@quick
@given(payload=st.binary(max_size=60) | POINTS.map(lambda v: json.dumps(v).encode()))
@pytest.mark.parametrize("patient", [None, "7"])
def test_any_message_of_a_stream(payload: bytes, patient: str | None) -> None:
    desk = make_desk("mqtt")
    read = MessageReader(desk, "mqtt", "http://h/mrn").read(payload, Place("x", 1), patient, NOW)
    events = sum(len(list(version.events)) for version in read.versions)
    accounted(desk, events, 1)


@quick
@given(
    data=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "ignore"))
)
@pytest.mark.parametrize(
    "head", [b"", b"<HealthData>", b'<HealthData><Record type="', b"\xef\xbb\xbf<HealthData>"]
)
def test_any_bytes_as_an_apple_health_export(tmp_path: Path, head: bytes, data: bytes) -> None:
    file = tmp_path / "export.xml"
    file.write_bytes(head + data)
    source = apple_health_file(file, patient="7")(make_desk("apple-health"))
    with pytest.raises(RecordError):
        events_of(source, "something else than any of its sentences")


ATTRIBUTES = st.dictionaries(
    st.sampled_from(["type", "unit", "value", "startDate", "endDate", "sourceName", "device"]),
    st.sampled_from(["HKQuantityTypeIdentifierStepCount", "HKCategoryTypeIdentifierX", "count"])
    | st.sampled_from(["2026-02-01 08:00:00 +0100", "2026-02-01 09:00:00 +0100", "1", "0.5", "%"])
    | st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Z"]), max_size=8),
)


@quick
@given(samples=st.lists(ATTRIBUTES, max_size=5))
def test_any_samples_of_apple_health(tmp_path: Path, samples: list[dict[str, str]]) -> None:
    from xml.sax.saxutils import quoteattr

    rows = "".join(
        f"<Record {' '.join(f'{k}={quoteattr(v)}' for k, v in one.items())}/>" for one in samples
    )
    (tmp_path / "export.xml").write_text(f"<HealthData>{rows}</HealthData>", encoding="utf-8")
    desk = make_desk("apple-health")
    source = apple_health_file(tmp_path / "export.xml", patient="7")(desk)
    events = events_of(source, "found no sample")
    assert events + sum(desk.reading.tally.reasons.values()) == len(samples)


CELL = TIMES | st.sampled_from(["100", "Low", '"', "5,6", "EGV", "\0"]) | st.text(max_size=6)


@quick
@given(rows=st.lists(st.lists(CELL, max_size=4), max_size=6), extra=st.binary(max_size=20))
@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"id,time,gl mg/dL\n",
        b"Device Timestamp,Record Type,Historic Glucose mg/dL\n",
        b"Timestamp (x),Event Type,Glucose Value (mg/dL)\n",
    ],
)
def test_any_table_as_an_export_of_readings(
    tmp_path: Path, head: bytes, rows: list[list[str]], extra: bytes
) -> None:
    body = "\n".join(",".join(row) for row in rows).encode("utf-8", "ignore")
    (tmp_path / "x.csv").write_bytes(head + body + extra)
    desk = make_desk("glucose-sensor")
    options = GlucoseOptions(patient=None if head.startswith(b"id") else "7", day_first=True)
    source = glucose_file(tmp_path / "x.csv", options)(desk)
    events = 0
    try:
        for version in source.versions():
            events += len(list(version.events))
    except RecordError:
        return
    accounted(desk, events, desk.reading.tally.read["rows"])


@quick
@given(resource=st.dictionaries(KEYS, POINTS | JSON, max_size=5))
@pytest.mark.parametrize("kind", ["Observation", "Bundle"])
def test_any_resource_that_is_posted(kind: str, resource: dict[str, Any]) -> None:
    """It is kept, or refused in words: nothing else is raised."""
    keep = MemoryKeep()
    intake = Intake(make_desk("fhir-post"), "fhir-post", None, keep)
    given_type = resource.get("type")
    posted = resource | {"resourceType": kind, "type": given_type or "batch"}
    post = intake.bundle if kind == "Bundle" else intake.one
    try:
        asyncio.run(post(json.loads(json.dumps(posted)), NOW))
    except RefusalError as refusal:
        if refusal.status not in {400, 422} or not refusal.sentences:
            raise


@pytest.mark.parametrize("start", ['{"body":{"x":', '{"resourceType":"Observation","subject":'])
def test_nested_however_deep(tmp_path: Path, start: str) -> None:
    """Whatever can be read can also be put aside: at some depths only one of them is possible."""
    desk = make_desk("mqtt", quarantine=tmp_path / "quarantine.ndjson")
    depths = [10, 190, 200, 210, *range(800, 1010), 100_000]
    for depth in depths:
        payload = (start + "[" * depth + "]" * depth + "}" * start.count("{")).encode()
        MessageReader(desk, "mqtt", None).read(payload, Place("x", 1), "7", NOW)
    desk.reading.tally.close()
    accounted(desk, 0, len(depths))
