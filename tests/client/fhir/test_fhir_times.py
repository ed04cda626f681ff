"""FHIR R4: when something happened, and when it was known."""

from typing import Any

import pytest

from .fhir_parts import (
    FIRST,
    FIRST_OVER,
    NOW,
    PERIOD,
    SCT,
    THIRD,
    THIRD_OVER,
    WHO,
    at,
    observed,
    read,
)


@pytest.mark.parametrize(
    ("code", "kind"), [("IMP", "IP"), ("AMB", "OP"), ("EMER", "ER"), ("HH", "HH")]
)
def test_a_visit_begins_and_ends(code: str, kind: str) -> None:
    visit = {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": code},
        "type": [SCT],
        "subject": WHO,
        "period": PERIOD,
    }
    made, _ = read(visit)
    text = "SNOMED//80146002"
    assert made == [
        (f"VISIT_START//{kind}", None, text, None, None, FIRST, FIRST_OVER),
        (f"VISIT_END//{kind}", None, text, None, None, THIRD, THIRD_OVER),
    ]
    made, tally = read(visit | {"period": {"start": "2024-05-01"}, "status": "in-progress"})
    assert [event[0] for event in made] == [f"VISIT_START//{kind}"]
    assert tally.notes == {"an Encounter without an end": 1}


@pytest.mark.parametrize(
    ("said", "time", "known"),
    [
        ({"issued": "2024-05-03T08:00:00Z"}, "2024-05-01", "2024-05-03T08:00"),
        ({"meta": {"lastUpdated": "2024-06-01T00:00:00Z"}}, "2024-05-01", "2024-06-01"),
        ({"meta": {"lastUpdated": "2099-06-01T00:00:00Z"}}, "2024-05-01", "2026-03-01"),
        ({}, "2024-05-01", "2026-03-01"),
    ],
)
def test_a_correction_is_not_known_before_it_was_made(
    said: dict[str, Any], time: str, known: str
) -> None:
    for status in ("corrected", "amended"):
        ((*_, happened, available),), _ = read(observed(valueInteger=1, status=status, **said))
        assert (happened, available) == (at(time), at(known))


def test_that_nobody_says_when_a_condition_was_recorded_is_told() -> None:
    condition = {"resourceType": "Condition", "code": SCT, "subject": WHO}
    for recorded, notes in (("2024-05-03", 0), (None, 1)):
        _, tally = read(condition | {"onsetDateTime": "2010-05-01", "recordedDate": recorded})
        told = "a Condition without recordedDate, taken as known when it began"
        assert tally.notes.get(told, 0) == notes


def test_a_visit_that_changes_its_kind_is_one_part_after_another() -> None:
    times = [f"2024-05-01T{hour}:00:00Z" for hour in (10, 16, 20)]
    history = [
        {"class": {"code": "IMP"}, "period": {"start": times[1]}},
        {"class": {"code": "EMER"}, "period": {"start": times[0], "end": times[1]}},
    ]
    visit = {"resourceType": "Encounter", "class": {"code": "IMP"}, "subject": WHO}
    visit |= {"period": {"start": times[0], "end": times[2]}}
    told = [("VISIT_START//ER", 10), ("VISIT_END//ER", 16)]
    for known in (history, history[1:]):  # the class of now may be in it, or not
        made, _ = read(visit | {"classHistory": known})
        assert [(event[0], event[-2].hour) for event in made] == [
            *told,
            ("VISIT_START//IP", 16),
            ("VISIT_END//IP", 20),
        ]
    made, _ = read(visit | {"classHistory": [{"class": {"code": "EMER"}}]})
    assert [event[0] for event in made] == ["VISIT_START//IP", "VISIT_END//IP"]


BACKWARDS = {"start": "2024-05-03T10:00:00Z", "end": "2024-05-03T09:00:00Z"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Observation", "effectivePeriod"),
        ("Procedure", "performedPeriod"),
        ("MedicationAdministration", "effectivePeriod"),
        ("MedicationStatement", "effectivePeriod"),
        ("DiagnosticReport", "effectivePeriod"),
        ("Encounter", "period"),
    ],
)
def test_a_period_that_ends_before_it_begins_is_put_aside(kind: str, name: str) -> None:
    resource = {"resourceType": kind, "subject": WHO, "class": {"code": "IMP"}, name: BACKWARDS}
    made, tally = read(resource)
    assert (made, tally.reasons) == ([], {"a period that ends before it begins": 1})


def test_a_visit_whose_end_lies_ahead_has_begun() -> None:
    period = {"start": "2026-02-27T10:00:00Z", "end": "2026-03-09"}
    visit = {"resourceType": "Encounter", "class": {"code": "IMP"}, "subject": WHO}
    made, tally = read(visit | {"period": period})
    assert [event[0] for event in made] == ["VISIT_START//IP"]
    assert tally.notes == {"an Encounter whose end cannot be used: lies in the future": 1}


def test_a_record_of_today_is_known_by_now() -> None:
    ((*_, available),), _ = read(observed(valueInteger=1, effectiveDateTime="2026-03-01"))
    assert available == NOW


def test_the_last_time_of_a_timing_counts() -> None:
    events = ["2024-05-02T23:00:00-05:00", "2024-05-03T03:00:00Z"]
    bounded = {"repeat": {"boundsPeriod": PERIOD}}
    for timing, time in (({"event": events}, "2024-05-03T04:00"), (bounded, "2024-05-03")):
        resource = observed(valueInteger=1, effectiveTiming=timing)
        del resource["effectiveDateTime"]
        ((*_, happened, _),), _ = read(resource)
        assert happened == at(time)
