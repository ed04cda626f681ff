"""Apple Health's export: samples, devices worn at once, and files that are none."""

import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest

from fedtwin_client.records.events import Event
from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import OpenSource
from fedtwin_client.records.wearables.apple_health import apple_health_file
from fedtwin_client.records.wearables.xml_stream import read_elements
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

from ..desks import NOW, SECRET, read_all

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE HealthData [
<!-- HealthKit Export Version: 14 -->
<!ELEMENT HealthData (ExportDate,Me,(Record|Correlation|Workout|ActivitySummary)*)>
<!ATTLIST HealthData locale CDATA #REQUIRED>
]>
<HealthData locale="en_NO">
 <ExportDate value="2026-02-10 10:00:00 +0100"/>
 <Me HKCharacteristicTypeIdentifierDateOfBirth="1960-05-01"/>
"""
TAIL = "</HealthData>\n"
WATCH, PHONE = "Anna\u2019s Apple\u00a0Watch", "Anna\u2019s iPhone"


def record(
    kind: str,
    value: str | None,
    unit: str | None = None,
    start: str = "2026-02-01 08:00:00 +0100",
    end: str | None = None,
    source: str = WATCH,
    **more: str,
) -> str:
    given = {
        "type": kind if kind.startswith("HK") else f"HKQuantityTypeIdentifier{kind}",
        "sourceName": source,
        "unit": unit,
        "creationDate": end or start,
        "startDate": start,
        "endDate": end or start,
        "value": value,
    } | more
    written = " ".join(f'{name}="{text}"' for name, text in given.items() if text is not None)
    return f" <Record {written}/>\n"


def opened(folder: Path, body: str, prefer: Sequence[str] = ()) -> OpenSource:
    file = folder / "export.xml"
    file.write_text(HEAD + body + TAIL, encoding="utf-8")
    return apple_health_file(file, patient="7", system="http://h/mrn", prefer=prefer)


def load(folder: Path, body: str, prefer: Sequence[str] = ()) -> tuple[Tally, list[Event]]:
    return read_all(opened(folder, body, prefer), "apple-health")


def take(file: Path) -> tuple[Tally, list[Event]]:
    return read_all(apple_health_file(file, patient="7"), "apple-health")


def test_a_record_becomes_an_event(tmp_path: Path) -> None:
    made = record("HeartRate", "71", "count/min", creationDate="2026-02-01 09:30:00 +0100")
    report, (event,) = load(tmp_path, made)
    assert (event.code, event.numeric_value, event.unit) == ("LOINC//8867-4", 71.0, "/min")
    assert event.time == datetime(2026, 2, 1, 7, tzinfo=UTC)
    assert event.available_time == datetime(2026, 2, 1, 8, 30, tzinfo=UTC)
    assert event.subject_id == pseudonym(SECRET, Identity("http://h/mrn", "7"))
    assert report.read == {"samples": 1}
    assert list(report.reasons.values()) == [1]  # Me


@pytest.mark.parametrize(
    ("kind", "value", "unit", "code", "kept", "kept_unit"),
    [
        ("OxygenSaturation", "0.97", "%", "LOINC//59408-5", 97.0, "%"),
        ("BodyTemperature", "98.6", "degF", "LOINC//8310-5", 37.0, "Cel"),
        ("BodyMass", "10", "st", "LOINC//29463-7", 63.5029318, "kg"),
        ("HeartRate", "1.5", "count/s", "LOINC//8867-4", 90.0, "/min"),
        ("BodyMass", "100", "lb", "LOINC//29463-7", 45.359237, "kg"),
        ("Height", "6", "ft", "LOINC//8302-2", 182.88, "cm"),
        ("BodyMassIndex", "24.1", "count", "LOINC//39156-5", 24.1, "kg/m2"),
        ("BloodGlucose", "99", "mg/dL", "LOINC//2339-0", 5.4953, "mmol/L"),
        ("BloodGlucose", "5.5", "mmol&lt;180.1558800000541&gt;/L", "LOINC//2339-0", 5.5, "mmol/L"),
        ("RespiratoryRate", "14", "count/min", "LOINC//9279-1", 14.0, "/min"),
        ("HeartRateVariabilitySDNN", "45.2", "ms", "LOINC//80404-7", 45.2, "ms"),
        ("ActiveEnergyBurned", "418.4", "kJ", "LOINC//41981-2", 100.0, "kcal"),
        ("ActiveEnergyBurned", "100", "Cal", "LOINC//41981-2", 100.0, "kcal"),
        ("DistanceWalkingRunning", "2", "mi", "HEALTHKIT//DistanceWalkingRunning", 3218.688, "m"),
        ("VO2Max", "41.5", "mL/min\u00b7kg", "HEALTHKIT//VO2Max", 41.5, "mL/min/kg"),
        ("FlightsClimbed", "3", "count", "HEALTHKIT//FlightsClimbed", 3.0, "1"),
    ],
)
def test_codes_and_units(
    tmp_path: Path, kind: str, value: str, unit: str, code: str, kept: float, kept_unit: str
) -> None:
    _, (event,) = load(tmp_path, record(kind, value, unit))
    assert (event.code, event.unit) == (code, kept_unit)
    assert event.numeric_value == pytest.approx(kept, rel=1e-4)


def test_sleep_stages_and_workouts_have_their_length(tmp_path: Path) -> None:
    start, end = "2026-02-01 23:00:00 +0100", "2026-02-02 00:30:00 +0100"
    sleep = record(
        "HKCategoryTypeIdentifierSleepAnalysis",
        "HKCategoryValueSleepAnalysisAsleepDeep",
        start=start,
        end=end,
    )
    workout = (
        f'<Workout workoutActivityType="HKWorkoutActivityTypeRunning" duration="90"'
        f' durationUnit="min" sourceName="x" startDate="{start}" endDate="{end}">'
        '<MetadataEntry key="k" value="v"/></Workout>'
    )
    _, events = load(tmp_path, sleep + workout)
    found = {event.code: (event.text_value, event.numeric_value) for event in events}
    assert found == {
        "HEALTHKIT//SleepAnalysis": ("AsleepDeep", 1.5),
        "HEALTHKIT//Workout": ("Running", 90.0),
    }


def steps(source: str, minute: int, length: int, value: int) -> str:
    start, end = (f"2026-02-01 08:{at:02d}:00 +0100" for at in (minute, minute + length))
    return record("StepCount", str(value), "count", start, end, source)


def test_what_two_devices_counted_at_once_counts_once(tmp_path: Path) -> None:
    body = (
        steps(PHONE, 0, 10, 500)  # the watch was on from minute 5
        + steps(PHONE, 20, 10, 300)
        + steps(PHONE, 40, 5, 200)
        + steps(WATCH, 5, 10, 520)
        + steps(WATCH, 30, 10, 400)
        + steps("Pedometer app", 41, 2, 70)
        + record("HeartRate", "60", "count/min", source=PHONE)
        + record("HeartRate", "61", "count/min", source=WATCH)
    )
    report, events = load(tmp_path, body)
    counted = [e.numeric_value for e in events if e.code == "LOINC//55423-8"]
    assert sorted(counted) == [200, 300, 400, 520]
    assert len(events) == 6  # a heart rate does not add up: both are kept
    assert report.reasons["counted at the same time by a source that comes first"] == 2
    _, events = load(tmp_path, body, prefer=["iphone"])
    counted = [e.numeric_value for e in events if e.code == "LOINC//55423-8"]
    assert sorted(counted) == [200, 300, 400, 500]


def test_what_stands_twice_counts_once(tmp_path: Path) -> None:
    one = record("HeartRate", "60", "count/min")
    pressure = record("BloodPressureSystolic", "120", "mmHg")
    body = one + one + one + pressure
    body += f'<Correlation type="x" startDate="" endDate="">{pressure}</Correlation>'
    report, events = load(tmp_path, body)
    assert len(events) == 2
    assert report.reasons["a sample that the export holds twice"] == 2
    assert report.reasons["a Correlation, whose samples also stand alone"] == 1


def test_a_newer_export_replaces_an_older_one(tmp_path: Path) -> None:
    first = record("HeartRate", "60", "count/min") + record("BodyMass", "70", "kg")
    for body in (first, record("BodyMass", "71", "kg")):
        import_source(
            opened(tmp_path, body),
            tmp_path / "store",
            secret=SECRET,
            now=NOW,
            source="apple-health",
            zone="UTC",
        )
    events = Timeline.open(tmp_path / "store").events().to_pylist()
    assert [event["numeric_value"] for event in events] == [71]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (record("HeartRate", "sixty", "count/min"), "expected a number, found text"),
        (record("HeartRate", "1e999", "count/min"), "expected a finite number"),
        (record("HeartRate", "60", "mmHg"), "unit 'mmHg' does not fit heart rate, kept in /min"),
        (record("HeartRate", "60"), "no unit for heart rate, which is kept in /min"),
        (record("OxygenSaturation", "97", "%"), "a percentage outside 0 to 1"),
        (record("HeartRate", "60", "count/min", start="2026-02-01"), "a time without its zone"),
        (record("HeartRate", "60", "count/min", start="2026-02-31 08:00:00 +0100"), "a time that"),
        (record("HeartRate", "60", "count/min", start="2027-02-01 08:00:00 +0100"), "lies in the"),
        (
            record(
                "HeartRate",
                "60",
                "count/min",
                "2026-02-01 08:00:00 +0100",
                "2026-02-01 07:00:00 +0100",
            ),
            "a time span that ends before it begins",
        ),
        (record("HKSomething", "60", "count/min"), "a type that is none of HealthKit's"),
        (record("HKCategoryTypeIdentifierX", None), "no value was recorded"),
        ("<ClinicalRecord/>", "a clinical record: import its FHIR files"),
        ("<ActivitySummary/>", "a day's summary"),
        ("<Surprise/>", "Surprise is not read"),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path: Path, made: str, reason: str) -> None:
    report, events = load(tmp_path, record("BodyMass", "70", "kg") + made)
    assert len(events) == 1
    (said,) = [said for said in report.reasons if "Me" not in said]
    assert said.startswith(reason)
    assert "export.xml:1" in report.examples[said][0]  # its line


def test_the_zip_file_it_comes_in(tmp_path: Path) -> None:
    text = HEAD + record("BodyMass", "70", "kg") + TAIL
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as whole:
        whole.writestr("apple_health_export/export.xml", text)
        whole.writestr("apple_health_export/export_cda.xml", "<x/>")
        whole.writestr("apple_health_export/workout-routes/a.xml", "<x/>")
    _, events = take(tmp_path / "export.zip")
    assert len(events) == 1
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as whole:
        whole.writestr("other.txt", "")
    with pytest.raises(RecordError, match=r"expected one export\.xml in .*empty\.zip, found 0"):
        take(tmp_path / "empty.zip")


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE HealthData [<!ENTITY a "aaaaaaaaaa">'
    '<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><HealthData><Record value="&b;"/></HealthData>'
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB.encode(), "declares an entity"),
        (
            b'<!DOCTYPE h SYSTEM "http://h/x" [<!ENTITY x SYSTEM "file:///etc/passwd">]><h>&x;</h>',
            "declares an entity",
        ),
        (b"<HealthData>" + b"<a>" * 100, "nested more than 64 deep"),
        (b"<HealthData>" + b"x" * (18 * 1024 * 1024), "no element within 16 MiB"),
        ((HEAD + record("BodyMass", "70", "kg")).encode(), "is not whole XML: no element found"),
        ((HEAD + "<Record type=").encode(), "was it cut off"),
        (b"", "is not whole XML"),
        (b"\xff\xfe\x00", "is not"),
        (b"<html/>", r"expected Apple Health's export \(HealthData\), found html"),
        (HEAD.encode() + b"</HealthData>", "found no sample"),
        (HEAD.replace("UTF-8", "UTF-99").encode() + TAIL.encode(), "is not"),
    ],
    ids=range(11),
)
def test_files_that_are_no_export_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "export.xml").write_bytes(content)
    with pytest.raises(RecordError, match=words) as refusal:
        take(tmp_path / "export.xml")
    assert "othing was imported" in str(refusal.value)


def test_memory_stays_flat() -> None:
    """The first elements are there before much of the file is read."""
    stream = BytesIO(HEAD.encode() + record("BodyMass", "70", "kg").encode() * 50_000)
    elements = read_elements(stream, "export.xml")
    assert [next(elements).name for _ in range(4)] == ["HealthData", "ExportDate", "Me", "Record"]
    assert stream.tell() <= 256 * 1024
