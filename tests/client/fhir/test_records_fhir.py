"""FHIR R4 records into the timeline, with everything unused accounted for."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.fhir.events import LOOKED_UP, READ
from fedtwin_client.records.pseudonyms import Identity, IdentityMap, pseudonym
from fedtwin_client.records.report import ImportReport
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import ConfigurationError, RecordError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
SHARED = Path(__file__).parents[3] / "../shared/data"


def loinc(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://loinc.org", "code": code}]}


def observation(number: str = "1", **fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": number,
        "status": "final",
        "code": loinc("2093-3"),
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": "2024-05-01T08:00:00Z",
        "valueQuantity": {"value": 200, "unit": "mg/dL"},
    } | fields


PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "birthDate": "1960-02-03",
    "gender": "female",
    "identifier": [{"system": "http://h/mrn", "value": "77"}],
}


def load(
    folder: Path, *resources: dict[str, Any] | str, **options: Any
) -> tuple[ImportReport, list[dict[str, Any]]]:
    file = folder / "records.ndjson"
    lines = [item if isinstance(item, str) else json.dumps(item) + "\n" for item in resources]
    file.write_text("".join(lines), encoding="utf-8")
    store = folder / "store"
    report = import_fhir([file], store, secret=SECRET, now=NOW, **options)
    return report, Timeline.open(store).events().to_pylist()


def test_a_patient_makes_birth_sex_and_death(tmp_path: Path) -> None:
    report, events = load(tmp_path, PATIENT | {"deceasedDateTime": "2025-01-02"})
    assert [(event["code"], event["time"], event["text_value"]) for event in events] == [
        ("SEX", None, "female"),
        ("MEDS_BIRTH", datetime(1960, 2, 3), None),
        ("MEDS_DEATH", datetime(2025, 1, 2, 23, 59, 59), None),
    ]
    assert {event["subject_id"] for event in events} == {
        pseudonym(SECRET, Identity("fhir", "Patient/p"))
    }
    assert (report.events, report.patients, report.unused) == (3, 1, 0)


def test_a_quantity_is_converted_and_keeps_what_was_written(tmp_path: Path) -> None:
    _, (event,) = load(
        tmp_path,
        observation(
            issued="2024-05-02T09:00:00+02:00",
            valueQuantity={"value": 200, "comparator": "<", "unit": "milligrams", "code": "mg/dL"},
        ),
    )
    assert event["numeric_value"] == pytest.approx(5.1724, abs=1e-3)
    assert (event["unit"], event["src_unit"], event["comparator"]) == ("mmol/L", "mg/dL", "<")
    assert event["available_time"] == datetime(2024, 5, 2, 7)
    assert event["source"] == "fhir:Observation/1#0"
    assert event["status"] == "final"


def test_components_stand_each_for_themselves(tmp_path: Path) -> None:
    pressure = observation(code=loinc("85354-9"))
    del pressure["valueQuantity"]
    pressure["component"] = [
        {"code": loinc("8480-6"), "valueQuantity": {"value": 16, "unit": "kPa"}},
        {"code": loinc("8462-4"), "dataAbsentReason": {"coding": [{"code": "unknown"}]}},
    ]
    report, events = load(tmp_path, pressure)
    assert [(event["code"], round(event["numeric_value"])) for event in events] == [
        ("LOINC//8480-6", 120)
    ]
    assert report.reasons == {"no value was recorded": 1}


@pytest.mark.parametrize(
    ("value", "number", "text"),
    [
        ({"valueBoolean": True}, 1.0, None),
        ({"valueInteger": 7}, 7.0, None),
        ({"valueString": " some "}, None, "some"),
        ({"valueCodeableConcept": {"text": "mild"}}, None, "mild"),
        (
            {
                "valueCodeableConcept": {
                    "coding": [{"system": "http://snomed.info/sct", "code": "373067005"}]
                }
            },
            0.0,
            "SNOMED//373067005",
        ),
        ({}, None, None),
    ],
)
def test_other_kinds_of_value(
    tmp_path: Path, value: dict[str, Any], number: float | None, text: str | None
) -> None:
    resource = observation(code=loinc("1-1"))
    del resource["valueQuantity"]
    _, (event,) = load(tmp_path, resource | value)
    assert (event["numeric_value"], event["text_value"]) == (number, text)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"valueQuantity": {"value": 5}}, "no unit for total cholesterol, which is kept in mmol/L"),
        (
            {"valueQuantity": {"value": 5, "unit": "apples"}},
            "unit 'apples' is not known for total cholesterol",
        ),
        (
            {"valueQuantity": {"value": 5, "unit": "mg/dL", "code": "mmol/L"}},
            "a quantity's unit and its code are different units",
        ),
        ({"valueQuantity": {"value": "5", "unit": "mg/dL"}}, "expected a number, found text"),
        ({"valueQuantity": {"value": True, "unit": "mg/dL"}}, "expected a number, found text"),
        ({"effectiveDateTime": "2030-01-01"}, "lies in the future"),
        ({"issued": "2030-01-01T00:00:00Z"}, "lies in the future"),
        ({"effectiveDateTime": "0001-01-01"}, "lies before 1870"),
        ({"effectiveDateTime": "soon"}, "a time that cannot be read"),
        ({"effectiveDateTime": None}, "no time"),
        ({"code": {"text": "cholesterol"}}, "no code"),
        ({"subject": None}, "no patient"),
        ({"subject": {"reference": "Group/1"}}, "refers to something else than a patient"),
        (
            {"subject": {"reference": "Patient/p?active=true"}},
            "refers to a patient by a search, or by no address that can be",
        ),
        (
            {"subject": {"reference": "Patient?identifier=http://elsewhere/mrn|7"}},
            "refers to a patient by a search, or by no address that can be",
        ),
        ({"status": "cancelled"}, "observation is cancelled"),
        ({"status": "entered-in-error"}, "withdrawn (entered-in-error)"),
    ],
)
def test_what_is_not_used_is_counted_with_its_reason(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    report, events = load(tmp_path, observation(**fields))
    assert (events, report.events) == ([], 0)
    assert report.reasons == {reason: 1}
    assert report.examples[reason] == ("records.ndjson:1",)
    assert any(reason in line for line in report.lines())


def test_damaged_lines_are_put_aside_with_number_and_raw_text(tmp_path: Path) -> None:
    whole = json.dumps(observation("9"))
    report, events = load(
        tmp_path,
        "\ufeff" + json.dumps(PATIENT) + "\r\n",
        '{"resourceType": "Observation", oops}\r\n',
        "\r\n",
        "[1, 2]\r\n",
        whole.replace("200", "NaN") + "\r\n",
        whole.replace("200", "1e400") + "\r\n",
        '{"id": "no type"}\r\n',
        whole[:60],
    )
    assert report.reasons == {
        "not a JSON object": 3,
        "expected a finite number": 1,
        "no resourceType": 1,
        "the last line was cut off": 1,
    }
    assert len(events) == 2
    assert report.quarantine is not None
    assert report.quarantine.stat().st_mode & 0o077 == 0
    kept = [json.loads(line) for line in report.quarantine.read_text().splitlines()]
    assert [item["line"] for item in kept] == [2, 4, 5, 6, 7, 8]
    assert kept[-1]["raw"] == whole[:60]


def test_every_coding_of_a_condition_counts_once(tmp_path: Path) -> None:
    condition = {
        "resourceType": "Condition",
        "id": "c",
        "subject": {"reference": "http://server/fhir/Patient/p/_history/3"},
        "code": {
            "coding": [
                {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I25.10"},
                {"system": "http://snomed.info/sct", "code": "53741008"},
            ]
        },
        "onsetDateTime": "2019",
        "recordedDate": "2020-03-01",
    }
    _, events = load(tmp_path, condition)
    assert [(event["code"], event["time"], event["available_time"]) for event in events] == [
        ("SNOMED//53741008", datetime(2019, 1, 1), datetime(2020, 3, 1, 23, 59, 59)),
        ("ICD10//I25.10", datetime(2019, 1, 1), datetime(2020, 3, 1, 23, 59, 59)),
    ]


def test_a_refuted_condition_takes_the_earlier_one_out(tmp_path: Path) -> None:
    condition = {
        "resourceType": "Condition",
        "id": "c",
        "subject": {"reference": "Patient/p"},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "1"}]},
        "recordedDate": "2020-03-01",
    }
    load(tmp_path, PATIENT, condition)
    refuted = condition | {"verificationStatus": {"coding": [{"code": "refuted"}]}}
    report, events = load(tmp_path, refuted)
    assert report.withdrawn == 1
    assert [event["code"] for event in events] == ["SEX", "MEDS_BIRTH"]


def test_medications_are_found_where_they_are_described(tmp_path: Path) -> None:
    drug = {"coding": [{"system": "http://www.whocc.no/atc", "code": "C10AA05"}]}
    request = {
        "resourceType": "MedicationRequest",
        "status": "active",
        "intent": "order",
        "subject": {"reference": "Patient/p"},
        "authoredOn": "2020-03-01",
    }
    by_reference = {"medicationReference": {"reference": "Medication/m"}}
    contained = {
        "contained": [{"resourceType": "Medication", "id": "x", "code": drug}],
        "medicationReference": {"reference": "#x"},
    }
    report, events = load(
        tmp_path,
        request | {"id": "1", "medicationCodeableConcept": drug},
        request | {"id": "2"} | by_reference,
        request | {"id": "3"} | contained,
        request | {"id": "4", "medicationReference": {"reference": "Medication/none"}},
        request | {"id": "5", "doNotPerform": True, "medicationCodeableConcept": drug},
        request | {"id": "6", "intent": "plan", "medicationCodeableConcept": drug},
        {"resourceType": "Medication", "id": "m", "code": drug},
    )
    assert [event["code"] for event in events] == ["ATC//C10AA05"] * 3
    assert report.reasons == {
        "refers to a Medication that is not in this import": 1,
        "medication request says not to give it": 1,
        "medication request is only a plan": 1,
    }


def test_the_newest_version_counts_whatever_the_order(tmp_path: Path) -> None:
    old = observation(meta={"lastUpdated": "2024-05-01T00:00:00Z"})
    new = observation(
        meta={"lastUpdated": "2024-05-02T00:00:00+02:00"},
        status="amended",
        valueQuantity={"value": 4.0, "unit": "mmol/L"},
    )
    report, events = load(tmp_path, new, old)
    assert [event["numeric_value"] for event in events] == [4.0]
    assert report.reasons == {"an older version of a resource that comes twice": 1}


def test_bundles_refer_by_urn(tmp_path: Path) -> None:
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"resource": observation(subject={"reference": "urn:uuid:abc"})},
            {"fullUrl": "urn:uuid:abc", "resource": PATIENT},
            {"request": {"method": "GET"}},
        ],
    }
    file = tmp_path / "bundle.json.gz"
    file.write_bytes(gzip.compress(json.dumps(bundle, indent=1).encode()))
    report = import_fhir([file], tmp_path / "store", secret=SECRET, now=NOW)
    events = Timeline.open(tmp_path / "store").events().to_pylist()
    assert len({event["subject_id"] for event in events}) == 1
    assert report.reasons == {"a bundle's entry without a resource": 1}


def test_an_identifier_joins_sources(tmp_path: Path) -> None:
    options = {"identifier_system": "http://h/mrn"}
    _, events = load(tmp_path, observation(), PATIENT, **options)
    expected = pseudonym(SECRET, Identity("http://h/mrn", "77"))
    assert {event["subject_id"] for event in events} == {expected}
    later, events = load(tmp_path, observation("2"), **options)
    assert {event["subject_id"] for event in events} == {expected}
    assert later.events == 1
    identities = IdentityMap(tmp_path / "store/identities.sqlite")
    assert identities.who_is(expected) == Identity("http://h/mrn", "77")


def test_without_the_identifier_nobody_is_guessed(tmp_path: Path) -> None:
    nameless = PATIENT | {"identifier": []}
    report, events = load(tmp_path, nameless, observation(), identifier_system="http://h/mrn")
    assert events == []
    assert report.reasons == {
        "expected one identifier of system http://h/mrn, found 0": 1,
        "refers to a patient that is not known": 1,
    }


@pytest.mark.parametrize("content", ["", "\n", '{"resourceType":"Bundle","entry":[]}'])
def test_files_without_a_resource_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(RecordError, match=r"found no FHIR resource in .*; nothing was imported"):
        load(tmp_path, content)


def test_other_encodings_and_codes_that_cannot_be_are_told(tmp_path: Path) -> None:
    whole = json.dumps(observation(), ensure_ascii=False)
    file = tmp_path / "records.ndjson"
    latin = whole.replace("Patient/", "Patient/\u00fc").encode("latin-1")
    mistyped = whole.replace("2093-3", "2093-4").encode()
    file.write_bytes(latin + b"\n" + mistyped + b"\n")
    report = import_fhir([file], tmp_path / "store", secret=SECRET, now=NOW)
    assert report.reasons == {"not UTF-8 text": 1}
    note = "a code that says it is LOINC's and cannot be: its form or check digit is wrong"
    assert (report.notes[note], report.examples[note]) == (1, ("LOINC//2093-4",))


def test_errors_of_the_command_are_sentences(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(RecordError, match="found no"):
        import_fhir([tmp_path / "none"], store, secret=SECRET, now=NOW)
    with pytest.raises(RecordError, match="found no file ending in"):
        import_fhir([tmp_path], store, secret=SECRET, now=NOW)
    (tmp_path / "a.ndjson.gz").write_bytes(b"\x1f\x8b\x08 broken")
    with pytest.raises(RecordError, match="nothing was imported"):
        import_fhir([tmp_path], store, secret=SECRET, now=NOW)
    with pytest.raises(ConfigurationError, match="zone"):
        import_fhir([tmp_path], store, secret=SECRET, now=datetime(2026, 1, 1))
    with pytest.raises(RecordError, match="server name"):
        import_fhir([tmp_path], store, secret=SECRET, now=NOW, server="A B")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
@pytest.mark.parametrize(
    ("folder", "events"),
    [
        ("fhir_bulk_ndjson/pathling9", 1664),
        ("fhir_bulk_ndjson/smart10", 6987),
        ("fhir_bulk_ndjson/cumulus_simple", 24),
        ("fhir_uscore_examples", 177),
    ],
)
def test_foreign_examples_are_read_and_every_resource_accounted_for(
    tmp_path: Path, folder: str, events: int
) -> None:
    report = import_fhir([SHARED / folder], tmp_path, secret=SECRET, now=NOW)
    assert report.events == events
    again = import_fhir([SHARED / folder], tmp_path, secret=SECRET, now=NOW)
    assert (again.events, Timeline.open(tmp_path).rows) == (events, events)
    skipped = {reason: n for reason, n in report.reasons.items() if "is not read" in reason}
    read = {*READ, *LOOKED_UP}
    assert sum(skipped.values()) == sum(n for kind, n in report.read.items() if kind not in read)
