"""A made hospital whose records have every defect, and the same records as plain rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin_client.records.events import BIRTH, DEATH, SEX, Event
from fedtwin_client.records.source import Desk, Version
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.study import StudyPlan, plan_from_value

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
GLUCOSE = "LOINC//2339-0"
TROPONIN = "LOINC//6598-7"
VISIT = "LOCAL//visit"
EVENT = "ICD10//I21"


def plan(**changes: Any) -> StudyPlan:
    """A plan with a feature of every kind; `part__field` changes a field."""
    value: dict[str, Any] = {
        "study": "readiness-tests",
        "consortium": "tests",
        "title": "A plan",
        "purpose": "To be asked of made records",
        "cohort": {"index": {"codes": [VISIT]}, "minimum_age_years": 0},
        "features": [
            {
                **{"name": "glucose", "kind": "number", "codes": [GLUCOSE], "unit": "mmol/L"},
                **{"plausible": [1, 40], "center": 6, "scale": 2, "missing": "center"},
                "window_days": 365,
            },
            {
                **{"name": "troponin", "kind": "number", "codes": [TROPONIN], "unit": "ng/mL"},
                **{"plausible": [0, 100], "missing": "flag"},
            },
            {
                **{"name": "smoker", "kind": "flag", "codes": ["SNOMED//77176002"]},
                "missing": "center",
            },
            {"name": "diabetes", "kind": "presence", "codes": ["SNOMED//44054006"]},
            {
                **{"name": "pain", "kind": "category", "codes": ["LOCAL//pain"]},
                **{"categories": ["none", "typical"], "missing": "center"},
            },
            {"name": "age", "kind": "age", "unit": "a", "center": 60, "scale": 10},
            {"name": "sex", "kind": "sex", "missing": "center"},
        ],
        "endpoint": {"name": "infarct", "kind": "event", "codes": [EVENT], "horizon_days": 30,
                     "require_follow_up": False},
        "model": {"family": "logistic_regression"},
        "training": {"rounds": 2, "learning_rate": 0.5},
        "privacy": {
            **{"mode": "local", "epsilon": 10, "delta": 1e-5, "clipping_norm": 1.0},
            "noise_multiplier": 3.0,
        },
        "sites": {"quorum": 1, "smallest_cohort": 1},
    }  # fmt: skip
    for name, change in changes.items():
        part, _, key = name.partition("__")
        value[part] = {**value[part], key: change} if key else change
    return plan_from_value(value, "the plan")


class _Made:
    """A source of events that are there already."""

    title = "made records"
    learned: dict[str, Any] = {}  # noqa: RUF012 - as the interface has it
    consents: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = events

    def versions(self) -> Iterable[Version]:
        yield Version(origin="made", updated=None, events=list(self._events))


def store(folder: Path, events: Sequence[Event]) -> Timeline:
    """A store with these events, pseudonyms and all."""

    def opening(desk: Desk) -> Any:
        from fedtwin_client.records.pseudonyms import Identity

        named: dict[int, int] = {}
        for event in events:
            if event.subject_id not in named:
                identity = Identity("made", str(event.subject_id))
                named[event.subject_id] = desk.pseudonyms.of(identity)
        return _Made(
            dataclasses.replace(event, subject_id=named[event.subject_id]) for event in events
        )

    import_source(opening, folder, secret=SECRET, now=NOW, source="made", zone="UTC")
    return Timeline.open(folder)


def made_events(seed: int = 1, patients: int = 150) -> list[Event]:  # noqa: C901 - a list
    """Patients with visits, values and every defect there is."""
    draw = np.random.default_rng(seed)
    events: list[Event] = []

    def add(subject: int, time: datetime | None, code: str, **more: Any) -> None:
        delay = timedelta(days=float(draw.integers(0, 4)))
        known = None if time is None else time + delay
        known = more.pop("available_time", known)
        number = len(events)
        events.append(
            Event(
                subject_id=subject, time=time, code=code, source=f"made:{number}#0",
                available_time=known, **more,
            )
        )  # fmt: skip

    for subject in range(1, patients + 1):
        born = datetime(1930, 1, 1, tzinfo=UTC) + timedelta(days=int(draw.integers(0, 20000)))
        visit = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(days=int(draw.integers(0, 1000)))
        add(subject, born, BIRTH, available_time=born)
        if draw.random() < 0.9:
            add(subject, None, SEX, text_value=str(draw.choice(["male", "female"])))
        dead = draw.random() < 0.2
        if dead:
            add(subject, visit + timedelta(days=60), DEATH)
        add(subject, visit, VISIT, available_time=visit)
        if draw.random() < 0.25:
            add(subject, visit + timedelta(days=int(draw.integers(1, 40))), EVENT)
        for _ in range(int(draw.integers(0, 6))):
            time = visit - timedelta(days=float(draw.integers(-90, 600)))
            _glucose(add, subject, time, draw)
        if draw.random() < 0.5:
            unit = str(draw.choice(["ng/mL", "ug/L", "furlong"], p=[0.6, 0.3, 0.1]))
            time = visit - timedelta(days=float(draw.integers(0, 50)))
            value = float(draw.exponential(3))
            add(subject, time, TROPONIN, numeric_value=value, unit=unit, src_unit=unit,
                comparator="<" if draw.random() < 0.3 else None)  # fmt: skip
        if draw.random() < 0.6:
            answer = float(draw.choice([0.0, 1.0, 2.0], p=[0.5, 0.4, 0.1]))
            add(subject, visit - timedelta(days=3), "SNOMED//77176002", numeric_value=answer)
        if draw.random() < 0.2:
            add(subject, visit - timedelta(days=100), "SNOMED//44054006")
        if draw.random() < 0.7:
            text = str(draw.choice(["none", "typical", "other"], p=[0.5, 0.4, 0.1]))
            add(subject, visit - timedelta(days=1), "LOCAL//pain", text_value=text)
        for code in draw.choice(["LOCAL//odd", "LOCAL//rare-one", "RXNORM//1"], size=2):
            if code != "LOCAL//rare-one" or subject < 6:
                add(subject, visit - timedelta(days=9), str(code))
        if subject % 25 == 0:
            add(subject, born - timedelta(days=9), GLUCOSE, numeric_value=5.0, unit="mmol/L")
            add(subject, NOW + timedelta(days=9), GLUCOSE, numeric_value=5.0, unit="mmol/L")
    return events


def _glucose(add: Any, subject: int, time: datetime, draw: np.random.Generator) -> None:
    if draw.random() < 0.08:
        add(subject, time, GLUCOSE, text_value="haemolytic")
        return
    value = float(np.round(draw.normal(6.5, 2.0), 1))
    value = value if draw.random() > 0.05 else 400.0
    written = str(draw.choice(["mg/dL", "mmol/L"]))
    copies = 1 + int(draw.random() < 0.1)
    for _ in range(copies):
        add(subject, time, GLUCOSE, numeric_value=value, unit="mmol/L", src_unit=written)


@pytest.fixture(scope="package")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> tuple[Timeline, list[Event]]:
    """The store, and its events with the store's pseudonyms."""
    made = store(tmp_path_factory.mktemp("hospital") / "records", made_events())
    rows = made.events().to_pylist()
    for row in rows:
        row |= {name: _aware(row[name]) for name in ("time", "available_time")}
    return made, [Event(**row) for row in rows]


def _aware(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
