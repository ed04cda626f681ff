"""Parts of FHIR resources for tests, and a way to read one."""

from datetime import UTC, datetime
from typing import Any

from fedtwin_client.records.fhir.events import FhirReader
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.records.resources import Found
from fedtwin_client.records.subjects import Subjects

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
RX = {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "1191"}]}
SCT = {"coding": [{"system": "http://snomed.info/sct", "code": "80146002"}]}
WHO = {"reference": "Patient/p"}


def read(resource: dict[str, Any]) -> tuple[list[tuple[Any, ...]], Tally]:
    """Code, number, text, unit, comparator and both times of each event; and the account."""
    tally = Tally(quarantine=None)
    reading = Reading(source="fhir", zone=read_zone("UTC"), now=NOW, tally=tally)
    people = Subjects(Pseudonyms(SECRET), server="fhir", identifier_system=None, known={})
    reader = FhirReader(reading, people)
    found = Found(resource={"id": "1"} | resource, place=Place("f", 1))
    events = [event for version in reader.read(found) for event in version.events]
    made = [
        (
            event.code,
            event.numeric_value,
            event.text_value,
            event.unit,
            event.comparator,
            event.time,
            event.available_time,
        )
        for event in events
    ]
    return made, tally


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


PERIOD = {"start": "2024-05-01", "end": "2024-05-03"}
FIRST, THIRD = at("2024-05-01"), at("2024-05-03")
FIRST_OVER, THIRD_OVER = at("2024-05-01T23:59:59"), at("2024-05-03T23:59:59")


def observed(code: str = "1-1", **value: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": WHO,
        "effectiveDateTime": "2024-05-01",
    } | value
