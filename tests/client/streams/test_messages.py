"""One message of a stream: plain values, FHIR, and whose it is."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fedtwin_client.records.events import Event
from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Desk
from fedtwin_client.records.streams.messages import MessageReader

from ..desks import NOW, SECRET, make_desk

SYSTEM = "http://h/mrn"
VALUE = {"code": "LOINC//8867-4", "value": 71, "unit": "/min", "time": "2026-02-01T08:00:00Z"}


def observation(**changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": "o1",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "effectiveDateTime": "2026-02-01T08:00:00Z",
        "valueQuantity": {"value": 71, "code": "/min"},
    } | changes


def of(number: str) -> dict[str, Any]:
    return {"identifier": {"system": SYSTEM, "value": number}}


def read(value: Any, patient: str | None = "7", desk: Desk | None = None) -> list[Event]:
    desk = desk or make_desk("mqtt")
    reader = MessageReader(desk, "mqtt", SYSTEM)
    made = reader.read(json.dumps(value).encode(), Place("mqtt message", 1), patient, NOW)
    return [event for version in made.versions for event in version.events]


def why_not(value: Any, patient: str | None = "7") -> dict[str, int]:
    desk = make_desk("mqtt")
    assert read(value, patient, desk) == []
    return dict(desk.reading.tally.reasons)


def test_a_plain_value() -> None:
    known = "2026-02-01T08:05:00Z"
    (event,) = read(VALUE | {"comparator": ">=", "available_time": known, "code": "8867-4"})
    assert (event.code, event.numeric_value, event.unit) == ("LOINC//8867-4", 71.0, "/min")
    assert (event.comparator, event.time) == (">=", datetime(2026, 2, 1, 8, tzinfo=UTC))
    assert event.available_time == datetime(2026, 2, 1, 8, 5, tzinfo=UTC)
    assert event.subject_id == pseudonym(SECRET, Identity(SYSTEM, "7"))


def test_what_makes_two_plain_values_one_record() -> None:
    def origin(**changes: Any) -> str:
        (event,) = read(VALUE | changes)
        return event.source

    assert origin(value=1) == origin(value=2)
    assert origin(time="2026-02-01T09:00:00+01:00") == origin()
    assert origin(time="2026-02-01T08:01:00Z") != origin()
    assert origin(code="LOINC//9279-1") != origin()
    assert origin(id="a", time="2026-02-01T08:01:00Z") == origin(id="a")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"time": None}, "no time"),
        ({"time": "2026-03-02T00:00:00Z"}, "lies in the future"),
        ({"value": "71"}, "expected a number, found text"),
        ({"value": True}, "expected a number, found text"),
        ({"unit": None}, "no unit for heart rate, which is kept in /min"),
        ({"unit": 5}, "a unit that is not text"),
        ({"comparator": "~"}, "a comparator that is not known"),
        ({"code": "heart rate"}, "a code that is not of the form LOINC//8867-4"),
        ({"code": ["LOINC//8867-4"]}, "a code that is not of the form LOINC//8867-4"),
        ({"patient": "8"}, "the message names another patient than its topic"),
    ],
)
def test_plain_values_that_cannot_be_used(changes: dict[str, Any], reason: str) -> None:
    assert why_not(VALUE | changes) == {reason: 1}


def test_whose_value_it_is() -> None:
    (named,) = read(VALUE | {"patient": 4711}, patient=None)
    assert named.subject_id == pseudonym(SECRET, Identity(SYSTEM, "4711"))
    assert why_not(VALUE, patient=None) == {"no patient": 1}
    assert len(read(VALUE | {"patient": "7"})) == 1


def test_fhir_is_the_topics_patients_unless_it_names_another() -> None:
    for subject in (None, {"reference": "Patient/their-own-id"}, of("7")):
        (event,) = read(observation(subject=subject))
        assert event.subject_id == pseudonym(SECRET, Identity(SYSTEM, "7"))
    another = why_not(observation(subject=of("8")))
    assert another == {"the message names another patient than its topic": 1}
    mine = {"resourceType": "Patient", "identifier": [of("8")["identifier"]]}
    assert list(why_not(mine)) == ["a Patient in a stream whose topic names the patient"]
    desk = make_desk("mqtt")
    link = {"type": "seealso", "other": {"reference": "Patient/q"}}
    known = {"mqtt:Patient/q": Identity(SYSTEM, "7")}
    read(mine | {"id": "p", "link": [link]}, "7", replace(desk, known=known))
    assert desk.pseudonyms.merges == {}


def test_a_bundle_says_whose_its_observations_are() -> None:
    person = {"resourceType": "Patient", "id": "p", "identifier": [of("9")["identifier"]]}
    bundle = {
        "resourceType": "Bundle",
        "entry": [
            {"resource": observation(subject={"reference": "Patient/p"})},
            {"resource": person},
        ],
    }
    desk = make_desk("mqtt")
    reader = MessageReader(desk, "mqtt", SYSTEM)
    first = reader.read(json.dumps(bundle).encode(), Place("x", 1), None, NOW)
    assert first.learned == {"mqtt:Patient/p": Identity(SYSTEM, "9")}
    later = observation(id="o2", subject={"reference": "Patient/p"})
    second = reader.read(json.dumps(later).encode(), Place("x", 2), None, NOW)
    events = [event for made in (first, second) for v in made.versions for event in v.events]
    assert {event.subject_id for event in events} == {pseudonym(SECRET, Identity(SYSTEM, "9"))}
    assert [event.code for event in events].count("LOINC//8867-4") == 2
