"""FHIR R4 types beside patients, observations and conditions; and kinds of value that are rare."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtwin_client.records.fhir.events import READ
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.store.timeline import Timeline

from .fhir_parts import (
    FIRST,
    FIRST_OVER,
    NOW,
    PERIOD,
    RX,
    SCT,
    SECRET,
    THIRD,
    THIRD_OVER,
    WHO,
    observed,
    read,
)

SHARED = Path(__file__).parents[3] / "../shared/data"
DAY = timedelta(days=1)
CASES: list[tuple[dict[str, Any], str, datetime, datetime]] = [
    (
        {"resourceType": "Procedure", "code": SCT, "subject": WHO, "performedPeriod": PERIOD},
        "SNOMED//80146002",
        FIRST,
        THIRD_OVER,
    ),
    (
        {
            "resourceType": "Procedure",
            "code": SCT,
            "subject": WHO,
            "performedDateTime": "2024-05-01",
        },
        "SNOMED//80146002",
        FIRST,
        FIRST_OVER,
    ),
    (
        {
            "resourceType": "Immunization",
            "vaccineCode": {"coding": [{"system": "http://hl7.org/fhir/sid/cvx", "code": "197"}]},
            "patient": WHO,
            "occurrenceDateTime": "2024-05-01",
            "recorded": "2024-05-03",
        },
        "CVX//197",
        FIRST,
        THIRD_OVER,
    ),
    (
        {
            "resourceType": "AllergyIntolerance",
            "code": RX,
            "patient": WHO,
            "recordedDate": "2024-05-03",
        },
        "ALLERGY//RXNORM//1191",
        THIRD,
        THIRD_OVER,
    ),
    (
        {
            "resourceType": "AllergyIntolerance",
            "reaction": [{"substance": RX}],
            "patient": WHO,
            "onsetDateTime": "2024-05-01",
            "recordedDate": "2024-05-03",
        },
        "ALLERGY//RXNORM//1191",
        FIRST,
        THIRD_OVER,
    ),
    (
        {
            "resourceType": "MedicationDispense",
            "medicationCodeableConcept": RX,
            "subject": WHO,
            "whenHandedOver": "2024-05-01",
        },
        "RXNORM//1191",
        FIRST,
        FIRST_OVER,
    ),
    (
        {
            "resourceType": "MedicationStatement",
            "medicationCodeableConcept": RX,
            "subject": WHO,
            "effectivePeriod": PERIOD,
            "dateAsserted": "2024-05-03",
        },
        "RXNORM//1191",
        FIRST,
        THIRD_OVER,
    ),
    (
        {
            "resourceType": "DiagnosticReport",
            "code": {"coding": [{"system": "http://loinc.org", "code": "24323-8"}]},
            "subject": WHO,
            "effectiveDateTime": "2024-05-01",
            "issued": "2024-05-03",
        },
        "LOINC//24323-8",
        FIRST,
        THIRD_OVER,
    ),
]


@pytest.mark.parametrize(("resource", "code", "time", "known"), CASES)
def test_a_code_happened_and_became_known(
    resource: dict[str, Any], code: str, time: datetime, known: datetime
) -> None:
    made, tally = read(resource | {"status": "completed"})
    assert made == [(code, None, None, None, None, time, known)]
    assert not tally.reasons


def test_a_dose_that_was_given_is_the_number() -> None:
    given_dose = {
        "resourceType": "MedicationAdministration",
        "status": "completed",
        "medicationCodeableConcept": RX,
        "subject": WHO,
        "effectivePeriod": PERIOD,
    }
    dose = {"value": 500, "unit": "mg", "code": "mg", "system": "http://unitsofmeasure.org"}
    made, _ = read(given_dose | {"dosage": {"dose": dose}})
    assert made == [("RXNORM//1191", 500.0, None, "mg", None, FIRST, THIRD_OVER)]
    made, tally = read(given_dose | {"dosage": {"dose": {"value": "much"}}})
    assert [event[:2] for event in made] == [("RXNORM//1191", None)]
    assert tally.notes == {"a dose that is left out: expected a number, found text": 1}


def test_a_mixture_is_its_ingredients() -> None:
    glucose = {"coding": [{"system": "http://hl7.org/fhir/sid/ndc", "code": "1"}]}
    salt = {"coding": [{"system": "http://hl7.org/fhir/sid/ndc", "code": "2"}]}
    mixture = [{"itemCodeableConcept": glucose}, {"itemCodeableConcept": salt}, {}]
    made, _ = read(
        {
            "resourceType": "MedicationDispense",
            "status": "completed",
            "contained": [{"resourceType": "Medication", "id": "m", "ingredient": mixture}],
            "medicationReference": {"reference": "#m"},
            "subject": WHO,
            "whenPrepared": "2024-05-01",
        }
    )
    assert [event[0] for event in made] == ["NDC//1", "NDC//2"]


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        ({"resourceType": "Procedure", "status": "not-done"}, "procedure is not-done"),
        (
            {"resourceType": "Procedure", "status": "entered-in-error"},
            "withdrawn (entered-in-error)",
        ),
        (
            {"resourceType": "Procedure", "status": "completed", "performedString": "as a child"},
            "a procedure whose only time is a performedString",
        ),
        ({"resourceType": "Immunization", "status": "not-done"}, "immunization is not-done"),
        (
            {"resourceType": "Immunization", "occurrenceString": "last winter"},
            "an immunization whose only time is an occurrenceString",
        ),
        ({"resourceType": "DiagnosticReport", "status": "registered"}, "report is registered"),
        (
            {"resourceType": "MedicationAdministration", "status": "not-done"},
            "administration is not-done",
        ),
        ({"resourceType": "MedicationDispense", "status": "declined"}, "dispensing is declined"),
        (
            {"resourceType": "MedicationStatement", "status": "not-taken"},
            "statement of a medication is not-taken",
        ),
        ({"resourceType": "Encounter", "status": "planned"}, "encounter is planned"),
        ({"resourceType": "Encounter", "subject": WHO}, "an Encounter without a class"),
        ({"resourceType": "Encounter", "subject": WHO, "class": {"code": "IMP"}}, "no time"),
        ({"resourceType": "AllergyIntolerance", "patient": WHO, "code": RX}, "no time"),
        (
            {"resourceType": "AllergyIntolerance", "patient": WHO, "recordedDate": "2024-01-01"},
            "no code",
        ),
        (
            {
                "resourceType": "AllergyIntolerance",
                "verificationStatus": {"coding": [{"code": "refuted"}]},
            },
            "withdrawn (refuted)",
        ),
        (
            {"resourceType": "Observation", "status": "done", "subject": WHO},
            "a status that FHIR R4 does not know for an Observation",
        ),
        (
            {"resourceType": "Procedure", "status": "Not-Done", "subject": WHO},
            "a status that seems to mean 'not-done', but is spelled otherwise",
        ),
        (
            {"resourceType": "Observation", "status": "canceled", "subject": WHO},
            "a status that seems to mean 'cancelled', but is spelled otherwise",
        ),
        (
            {"resourceType": "Encounter", "status": "entered_in_error", "subject": WHO},
            "a status that seems to mean 'entered-in-error', but is spelled otherwise",
        ),
        ({"resourceType": "CarePlan"}, "resource type CarePlan is not read"),
        ({"resourceType": "Claim"}, "resource type Claim is not read"),
        (
            {"resourceType": "ExplanationOfBenefit"},
            "resource type ExplanationOfBenefit is not read",
        ),
    ],
)
def test_what_did_not_happen_or_has_no_time_is_counted(
    resource: dict[str, Any], reason: str
) -> None:
    made, tally = read(resource)
    assert made == []
    assert tally.reasons == {reason: 1}


def bounds(low: Any, high: Any, unit: str = "mg/dL") -> dict[str, Any]:
    ends = {"low": low, "high": high}
    return {key: {"value": end, "unit": unit} for key, end in ends.items() if end is not None}


@pytest.mark.parametrize(
    ("resource", "values"),
    [
        (
            observed("2093-3", valueRange=bounds(193.35, 386.7)),
            [(5.0, None, "mmol/L", ">="), (10.0, None, "mmol/L", "<=")],
        ),
        (observed(valueRange=bounds(None, 3)), [(3.0, None, "mg/dL", "<=")]),
        (
            observed(valueRatio={"numerator": {"value": 1}, "denominator": {"value": 128}}),
            [(1 / 128, "1:128", None, None)],
        ),
        (
            observed(
                valueRatio={
                    "numerator": {"value": 30, "unit": "mg", "comparator": "<"},
                    "denominator": {"value": 2, "unit": "h"},
                }
            ),
            [(15.0, "30:2", "mg/h", "<")],
        ),
        (observed(valueDateTime="2027-01-05"), [(None, "2027-01-05", None, None)]),
        (observed(valueTime="07:30:00"), [(None, "07:30:00", None, None)]),
        (observed(valuePeriod={"start": "2024-01"}), [(None, "2024-01/", None, None)]),
    ],
)
def test_rare_kinds_of_value(resource: dict[str, Any], values: list[Any]) -> None:
    made, tally = read(resource)
    found = [(event[1] and round(event[1], 2), *event[2:5]) for event in made]
    assert found == [(value[0] and round(value[0], 2), *value[1:]) for value in values]
    assert not tally.reasons


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"valueSampledData": {}}, "a waveform (valueSampledData) is not read"),
        ({"valueRange": bounds(5, 3)}, "a range whose low bound lies above the high one"),
        ({"valueRange": {}}, "no value was recorded"),
        ({"valueRange": bounds("x", 3)}, "expected a number, found text"),
        (
            {"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 0}}},
            "a ratio whose denominator is zero",
        ),
        ({"valueRatio": {"numerator": {"value": 1}}}, "a quantity that is not an object"),
        ({"valueDateTime": "soon"}, "a valueDateTime that cannot be read"),
        ({"valueTime": "25:00:00"}, "a valueTime that cannot be read"),
        ({"valuePeriod": {"start": "soon"}}, "a valuePeriod that cannot be read"),
        ({"valueAttachment": {}}, "a valueAttachment, which FHIR R4 does not know"),
    ],
)
def test_rare_kinds_of_value_that_cannot_be_used(value: dict[str, Any], reason: str) -> None:
    made, tally = read(observed(**value))
    assert (made, tally.reasons) == ([], {reason: 1})


def test_a_date_is_no_value_of_an_analyte() -> None:
    _, tally = read(observed("2093-3", valueDateTime="2024-01-01"))
    assert tally.reasons == {"expected a number, found text": 1}


PARTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["2024-05-01", "Patient/p", "final", "completed", "http://loinc.org", "2093-3"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "coding",
                    "system",
                    "code",
                    "value",
                    "unit",
                    "reference",
                    "start",
                    "end",
                    "low",
                    "high",
                    "numerator",
                    "denominator",
                    "dose",
                    "type",
                    "other",
                    "substance",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
MEMBERS = st.sampled_from(
    [
        "id",
        "status",
        "code",
        "subject",
        "patient",
        "effectiveDateTime",
        "period",
        "class",
        "type",
        "valueQuantity",
        "valueRange",
        "valueRatio",
        "valuePeriod",
        "valueTime",
        "component",
        "medicationCodeableConcept",
        "medicationReference",
        "contained",
        "dosage",
        "link",
        "reaction",
        "performedPeriod",
        "occurrenceDateTime",
        "recordedDate",
        "identifier",
        "birthDate",
        "meta",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(READ), st.dictionaries(MEMBERS, PARTS, max_size=10))
def test_whatever_stands_in_a_resource_it_is_used_or_accounted_for(
    kind: str, members: dict[str, Any]
) -> None:
    made, tally = read(members | {"resourceType": kind})
    assert made or tally.reasons or tally.notes or kind == "Consent"
    assert tally.read == {kind: 1}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
def test_synthea_comes_in_whole(tmp_path: Path) -> None:
    """Twelve of the 140 patients: each resource of a type that is read makes its events."""
    files = sorted((SHARED / "fhir_synthea_r4_shared").rglob("*.json.gz"))[:12]
    report = import_fhir(files, tmp_path, secret=SECRET, now=NOW)
    unread = sum(n for reason, n in report.reasons.items() if reason.startswith("resource type"))
    read_types = sum(n for kind, n in report.read.items() if kind in READ)
    assert sum(report.read.values()) == read_types + unread
    codes = {
        event["code"].partition("//")[0] for event in Timeline.open(tmp_path).events().to_pylist()
    }
    assert {"VISIT_START", "VISIT_END", "CVX", "RXNORM", "LOINC", "SNOMED"} <= codes
    wrong = {reason for reason in report.reasons if not reason.startswith("resource type")}
    assert all("pressure" in reason or "filtration" in reason for reason in wrong)
