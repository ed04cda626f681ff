"""Odd resources: whatever stands in a field, an import goes on, and everything is accounted for."""

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.fhir.events import READ, FhirReader
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.records.resources import Found, find_files, read_resources
from fedtwin_client.records.subjects import Subjects
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = b"s" * 32
SHARED = Path(__file__).parents[3] / "shared" / "data"
LOINC = {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]}
WHO = {"reference": "Patient/1"}
PLAIN: list[dict[str, Any]] = [
    {
        "resourceType": "Patient",
        "id": "1",
        "birthDate": "1950-01-01",
        "gender": "male",
        "deceasedDateTime": "2024-05-01",
        "identifier": [{"system": "urn:mrn", "value": "M1", "use": "usual"}],
        "link": [{"type": "seealso"}],
    },
    {
        "resourceType": "Observation",
        "id": "2",
        "status": "final",
        "code": LOINC,
        "subject": WHO,
        "effectiveDateTime": "2024-01-01",
        "issued": "2024-01-02T08:00:00Z",
        "valueQuantity": {"value": 200, "unit": "mg/dL", "code": "mg/dL", "comparator": "<"},
    },
    {
        "resourceType": "Observation",
        "id": "3",
        "status": "final",
        "code": LOINC,
        "subject": WHO,
        "effectivePeriod": {"start": "2024-01-01", "end": "2024-01-02"},
        "component": [{"code": LOINC, "valueQuantity": {"value": 1, "unit": "mmol/L"}}],
    },
    {
        "resourceType": "Condition",
        "id": "4",
        "code": LOINC,
        "subject": WHO,
        "onsetPeriod": {"start": "2024-01-01"},
        "recordedDate": "2024-01-03",
        "clinicalStatus": {"coding": [{"code": "active"}]},
        "verificationStatus": {"coding": [{"code": "confirmed"}]},
    },
    {
        "resourceType": "MedicationRequest",
        "id": "5",
        "status": "active",
        "intent": "order",
        "subject": WHO,
        "authoredOn": "2024-01-01",
        "medicationReference": {"reference": "#m"},
        "contained": [{"resourceType": "Medication", "id": "m", "code": LOINC}],
        "meta": {"lastUpdated": "2024-01-01T00:00:00Z"},
    },
    {
        "resourceType": "Observation",
        "id": "6",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "1-1"}]},
        "subject": WHO,
        "effectiveDateTime": "2024-01-01",
        "valueRange": {"low": {"value": 1, "unit": "mg"}, "high": {"value": 2, "unit": "mg"}},
        "component": [
            {
                "code": {"coding": [{"system": "http://loinc.org", "code": "1-2"}]},
                "valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 8}},
            },
            {
                "code": {"coding": [{"system": "http://loinc.org", "code": "1-3"}]},
                "valuePeriod": {"start": "2024-01-01", "end": "2024-01-02"},
            },
        ],
    },
    {
        "resourceType": "Encounter",
        "id": "7",
        "status": "finished",
        "class": {"code": "IMP"},
        "type": [LOINC],
        "subject": WHO,
        "period": {"start": "2024-01-01", "end": "2024-01-02"},
    },
    {
        "resourceType": "AllergyIntolerance",
        "id": "8",
        "patient": WHO,
        "recordedDate": "2024-01-01",
        "reaction": [{"substance": LOINC}],
    },
    {
        "resourceType": "MedicationAdministration",
        "id": "9",
        "status": "completed",
        "subject": WHO,
        "effectivePeriod": {"start": "2024-01-01", "end": "2024-01-02"},
        "medicationReference": {"reference": "#m"},
        "contained": [
            {
                "resourceType": "Medication",
                "id": "m",
                "ingredient": [{"itemCodeableConcept": LOINC}],
            }
        ],
        "dosage": {"dose": {"value": 5, "unit": "mg"}},
    },
    {
        "resourceType": "Procedure",
        "id": "10",
        "status": "completed",
        "code": LOINC,
        "subject": WHO,
        "performedPeriod": {"start": "2024-01-01", "end": "2024-01-02"},
    },
    {
        "resourceType": "Immunization",
        "id": "11",
        "status": "completed",
        "vaccineCode": LOINC,
        "patient": WHO,
        "occurrenceDateTime": "2024-01-01",
        "recorded": "2024-01-02",
    },
]
ODD: list[Any] = [
    *(None, 0, -1, float("inf"), True, "", " ", "x", [], {}, [None], [1], ["x"], [{}], {"a": 1}),
    *("2024", "9999-99-99", "NaN", 10**400, {"coding": "x"}, {"coding": [{"code": 1}]}),
    *({"reference": 1}, {"value": "x"}, "#", "Patient/", "http://", "urn:uuid:"),
]


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in parts:
        yield (*above, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*above, key))


def with_odd(resource: dict[str, Any], place: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    changed = copy.deepcopy(resource)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = odd
    return changed


@pytest.mark.parametrize("system", [None, "urn:mrn"])
@pytest.mark.parametrize("plain", PLAIN, ids=lambda plain: plain["resourceType"])
def test_no_field_can_break_an_import_or_make_a_resource_vanish(
    plain: dict[str, Any], system: str | None
) -> None:
    """Each field in turn holds each odd thing: an event, a reason or a note comes of it."""
    tried = 0
    for place in places(plain):
        if place == ("resourceType",):
            continue
        for odd in ODD:
            tally = Tally(quarantine=None)
            reading = Reading(source="fhir", zone=read_zone("UTC"), now=NOW, tally=tally)
            subjects = Subjects(
                Pseudonyms(SECRET), server="fhir", identifier_system=system, known={}
            )
            reader = FhirReader(reading, subjects)
            found = Found(resource=with_odd(plain, place, odd), place=Place("f", 1))
            if plain["resourceType"] in {"Patient", "Medication"}:
                reader.learn(found)
            events = [event for version in reader.read(found) for event in version.events]
            assert events or tally.reasons or tally.notes, (place, odd)
            tried += 1
    assert tried > 200


@pytest.mark.parametrize(
    "line",
    [
        b'{"resourceType": "Patient", "id": "\\ud800", "gender": "male"}',  # half a character
        b'{"resourceType": "Patient", "id": "1", "gender": NaN}',
        b"[" * 100_000,
        b"\xff\xfe{}",
        b'{"resourceType": 5}',
        b'"Patient"',
    ],
)
def test_lines_that_are_no_resource_are_put_aside_and_the_rest_is_used(
    tmp_path: Path, line: bytes
) -> None:
    whole = json.dumps(PLAIN[1]).encode()
    (tmp_path / "a.ndjson").write_bytes(line + b"\n" + whole + b"\n")
    report = import_fhir([tmp_path / "a.ndjson"], tmp_path / "store", secret=SECRET, now=NOW)
    assert report.events == 1
    assert sum(report.reasons.values()) == 1
    assert report.quarantine is not None
    (tmp_path / "b.ndjson").write_bytes(line + b"\n")
    with pytest.raises(RecordError, match="found no FHIR resource"):
        import_fhir([tmp_path / "b.ndjson"], tmp_path / "store", secret=SECRET, now=NOW)
    assert Timeline.open(tmp_path / "store").rows == 1


@pytest.mark.parametrize("name", ["fhir_uscore_examples", "fhir_bulk_ndjson"])
def test_every_resource_of_a_public_set_is_used_or_accounted_for(tmp_path: Path, name: str) -> None:
    """Resources of the four types that left no event are as many as the reasons say at least."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the set {name} is not here")
    report = import_fhir([folder], tmp_path, secret=SECRET, now=datetime(2030, 1, 1, tzinfo=UTC))
    sources = Timeline.open(tmp_path).events()["source"].to_pylist()
    used = {source.partition("#")[0] for source in sources}
    tally = Tally(quarantine=None)
    asked = [
        f"fhir:{found.resource['resourceType']}/{found.resource.get('id')}"
        for file in find_files([folder])
        for found in read_resources(file, tally)
        if found.resource["resourceType"] in READ
    ]
    unread = sum(n for reason, n in report.reasons.items() if reason.startswith("resource type"))
    assert sum(report.read.get(kind, 0) for kind in READ) == len(asked)
    assert used <= set(asked)
    lost = [origin for origin in asked if origin not in used]
    assert len(lost) <= report.unused - unread
