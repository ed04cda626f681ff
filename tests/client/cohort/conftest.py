"""Timelines from small FHIR records, plans that ask them something, and what a record says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.study import StudyPlan, plan_from_value

IMPORTED = datetime(2026, 3, 1, tzinfo=UTC)
INDEX = datetime(2024, 5, 1, 12, tzinfo=UTC)
BORN = datetime(1960, 1, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
FAMILIES = {
    "value": "linear_regression",
    "count": "poisson_regression",
    "time_to_event": "discrete_hazard",
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record of a patient: days from `INDEX`, and days until it was known."""

    code: str
    day: float
    value: float | str | None = None
    unit: str | None = None
    delay: float = 0.0
    comparator: str | None = None
    status: str = "final"

    @property
    def time(self) -> datetime:
        return after(self.day)

    @property
    def known(self) -> datetime:
        return self.time + days(self.delay)


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A patient, with the day of death where there is one."""

    records: tuple[Record, ...]
    died: float | None = None


def days(number: float) -> timedelta:
    """Whole minutes, so that what is written comes back."""
    return timedelta(minutes=round(number * 1440))


def after(number: float) -> datetime:
    """A moment, by days from the index date."""
    return INDEX + days(number)


def visit(day: float = 0.0, delay: float = 0.0) -> Record:
    """The index event."""
    return Record(code="visit", day=day, delay=delay)


def timeline(folder: Path, patients: Sequence[Patient]) -> tuple[Timeline, list[int]]:
    """A store with these patients, and the pseudonym of each."""
    lines: list[dict[str, Any]] = []
    for number, patient in enumerate(patients):
        person = {
            "resourceType": "Patient",
            "id": str(number),
            "birthDate": BORN.date().isoformat(),
            "gender": ("female", "male")[number % 2],
        }
        if patient.died is not None:
            person["deceasedDateTime"] = after(patient.died).isoformat()
        lines.append(person)
        lines += [
            _observation(number, place, record) for place, record in enumerate(patient.records)
        ]
    file = folder / "records.ndjson"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = import_fhir([file], folder / "store", secret=SECRET, now=IMPORTED)
    assert not [reason for reason in report.reasons if "withdrawn" not in reason], report.reasons
    made = Timeline.open(folder / "store")
    return made, [_pseudonym(number) for number in range(len(patients))]


def _pseudonym(number: int) -> int:
    return pseudonym(SECRET, Identity("fhir", f"Patient/{number}"))


def _observation(patient: int, place: int, record: Record) -> dict[str, Any]:
    vocabulary, _, code = record.code.rpartition("//")
    coding = {"code": code} | ({"system": "http://loinc.org"} if vocabulary else {})
    made: dict[str, Any] = {
        "resourceType": "Observation",
        "id": f"{patient}-{place}",
        "status": record.status,
        "code": {"coding": [coding]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": record.time.isoformat(),
        "issued": record.known.isoformat(),
    }
    if isinstance(record.value, str):
        made["valueString"] = record.value
    elif record.value is not None:
        made["valueQuantity"] = {"value": record.value, "unit": record.unit}
        if record.comparator:
            made["valueQuantity"]["comparator"] = record.comparator
    return made


def plan(kind: str, family: str = "", **changes: Any) -> StudyPlan:
    """A plan about LOCAL//event (or LOCAL//weight for a value); `part__field` changes a field."""
    endpoint: dict[str, Any] = {"name": "what is asked", "kind": kind, "horizon_days": 30}
    endpoint["codes"] = ["LOCAL//weight"] if kind == "value" else ["LOCAL//event", "LOCAL//other"]
    if kind == "value":
        endpoint |= {"unit": "kg", "center": 70, "scale": 10}
    if kind == "time_to_event":
        endpoint["interval_days"] = [10, 30]
    value: dict[str, Any] = {
        "study": "asked",
        "consortium": "tests",
        "title": "A plan",
        "purpose": "To be asked of small records",
        "cohort": {"index": {"codes": ["LOCAL//visit"]}},
        "features": [{"name": "age", "kind": "age", "unit": "a", "center": 60, "scale": 10}],
        "endpoint": endpoint,
        "model": {"family": family or FAMILIES.get(kind, "logistic_regression")},
        "training": {"rounds": 2, "learning_rate": 0.5},
        "privacy": {
            "mode": "local",
            "epsilon": 10,
            "delta": 1e-5,
            "clipping_norm": 1.0,
            "noise_multiplier": 3.0,
        },
        "sites": {"quorum": 1, "smallest_cohort": 1},
    }
    for name, change in changes.items():
        part, _, key = name.partition("__")
        value[part] = {**value[part], key: change} if key else change
    return plan_from_value(value, "the plan")


def even_empty(asked: StudyPlan) -> StudyPlan:
    """The plan with cohorts of nobody, too."""
    return asked.model_copy(update={"sites": asked.sites.model_copy(update={"smallest_cohort": 0})})
