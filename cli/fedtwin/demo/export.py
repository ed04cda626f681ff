"""One synthetic hospital's export, resource by resource, with the dirt that exports have.

The dirt never changes what a careful reader finds: impossible values stand for missing ones,
withdrawn and future entries are to be left out, a repeated line adds nothing, and the half-written
line is one that was never needed.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fedtwin.demo import resources
from fedtwin.demo.resources import Habits, Resource

Mask = NDArray[np.bool_]
_FIRST_CHECK: Final = date(2015, 1, 1)
_CHECK_DAYS: Final = 1000
_HORIZON_DAYS: Final = 1826
_FUTURE: Final = date(2190, 6, 1)
_IMPOSSIBLE: Final = {"cholesterol": 0.0, "heart_rate": 999.0, "creatinine": 0.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fates:
    """What becomes of each patient, (patients,) each.

    Attributes:
        happens: the endpoint, within the horizon.
        earlier: had coronary disease before the health check.
        lost: the record ends before the horizon.
        late: the endpoint comes after the horizon.
    """

    happens: Mask
    earlier: Mask
    lost: Mask
    late: Mask


class Place(Protocol):
    """What the export needs to know of a hospital."""

    @property
    def name(self) -> str:
        """The site's name."""

    @property
    def missing(self) -> float:
        """Share of measurements never made."""

    @property
    def habits(self) -> Habits:
        """Units and vocabularies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chart:
    """One patient's record while it is written."""

    who: str
    check: date
    habits: Habits
    random: np.random.Generator
    entries: list[Resource]

    def number(self) -> str:
        """The next resource's id."""
        return f"{self.who}-{len(self.entries)}"

    def add(self, resource: Resource) -> None:
        """Write a resource into the record."""
        self.entries.append(resource)

    def before(self, most_days: int) -> date:
        """A day up to so many days before the health check."""
        return self.check - timedelta(days=int(self.random.integers(1, most_days)))

    def after(self, least_days: int, most_days: int) -> date:
        """A day between so many and so many days after the health check."""
        return self.check + timedelta(days=int(self.random.integers(least_days, most_days)))


def export_lines(
    hospital: Place, values: dict[str, Any], fates: Fates, random: np.random.Generator
) -> dict[str, Sequence[str]]:
    """Write a hospital's patients.

    Args:
        hospital: its name and habits.
        values: true values by the contract's names, (patients,) each, in conventional units.
        fates: what becomes of the patients.
        random: the hospital's own stream.

    Returns:
        NDJSON lines by resource type.
    """
    lines: dict[str, list[str]] = defaultdict(list)
    for row in range(len(fates.happens)):
        one = {name: column[row] for name, column in values.items()}
        chart = _Chart(
            who=f"{hospital.name}-{row:06d}",
            check=_FIRST_CHECK + timedelta(days=int(random.integers(_CHECK_DAYS))),
            habits=hospital.habits,
            random=random,
            entries=[],
        )
        _write_person(chart, one)
        _write_measurements(chart, one, hospital.missing)
        _write_problems(chart, one)
        _write_future(chart, fates, row)
        _write_dirt(chart)
        for entry in chart.entries:
            lines[entry["resourceType"]].append(json.dumps(entry, separators=(",", ":")))
    _spoil(lines)
    return dict(lines)


def _write_person(chart: _Chart, one: dict[str, Any]) -> None:
    born = chart.check - timedelta(days=round(float(one["age"]) * 365.25))
    chart.add(resources.patient(chart.who, male=bool(one["sex"]), born=born))
    chart.add(resources.health_check(chart.number(), chart.who, day=chart.check))


def _write_measurements(chart: _Chart, one: dict[str, Any], missing: float) -> None:
    """Each value once within half a year before the check, some also earlier with another value."""
    made = chart.random.random(len(resources.MEASUREMENTS) + 2) >= missing
    for name, present in zip(resources.MEASUREMENTS, made, strict=False):
        value = float(one[name])
        if chart.random.random() < 0.2:
            _measure(chart, name, value * 1.1, chart.check - timedelta(days=400))
        if present:
            wrong = chart.random.random() < 0.004 and name in _IMPOSSIBLE
            _measure(chart, name, _IMPOSSIBLE[name] if wrong else value, chart.before(180))
    if made[-1]:
        _press(chart, float(one["systolic"]), chart.before(180))
    if made[-2]:
        status = resources.smoking_status(
            chart.number(), chart.who, one["smoking"], day=chart.before(700)
        )
        chart.add(status)


def _measure(chart: _Chart, name: str, value: float, day: date) -> None:
    number = chart.number()
    chart.add(resources.measurement(number, chart.who, name, value, day=day, habits=chart.habits))


def _press(chart: _Chart, systolic: float, day: date) -> None:
    chart.add(
        resources.blood_pressure(
            chart.number(), chart.who, systolic, systolic * 0.62, day=day, habits=chart.habits
        )
    )


def _write_problems(chart: _Chart, one: dict[str, Any]) -> None:
    for name in ("diabetes", "hypertension"):
        if one[name]:
            _diagnose(chart, name, chart.before(2000) - timedelta(days=5))
    for kind, drugs in (
        ("antihypertensive", ("lisinopril", "amlodipine")),
        ("statin", ("simvastatin", "atorvastatin")),
    ):
        if one[kind]:
            name = drugs[int(chart.random.integers(2))]
            day = chart.before(300)
            chart.add(resources.prescription(chart.number(), chart.who, name, day=day))


def _diagnose(chart: _Chart, name: str, day: date) -> None:
    chart.add(resources.condition(chart.number(), chart.who, name, day=day, habits=chart.habits))


def _write_future(chart: _Chart, fates: Fates, row: int) -> None:
    """What happens after the check, and the last visit, by which a patient was still followed."""
    if fates.earlier[row]:
        _diagnose(chart, "coronary disease", chart.before(2000) - timedelta(days=5))
    if fates.happens[row]:
        name = "myocardial infarction" if chart.random.random() < 0.3 else "coronary disease"
        _diagnose(chart, name, chart.after(1, _HORIZON_DAYS - 5))
    if fates.late[row]:
        _diagnose(chart, "coronary disease", chart.after(_HORIZON_DAYS + 10, _HORIZON_DAYS + 200))
    if fates.lost[row]:
        _press(chart, float(chart.random.integers(100, 180)), chart.after(100, 1500))
    else:
        day = chart.after(_HORIZON_DAYS + 10, _HORIZON_DAYS + 400)
        _press(chart, float(chart.random.integers(100, 180)), day)


def _write_dirt(chart: _Chart) -> None:
    """Withdrawn entries, planned ones far ahead, a finding that was refuted."""
    dice = chart.random.random(3)
    if dice[0] < 0.02:
        _measure(chart, "cholesterol", 390.0, chart.before(20))
        chart.entries[-1]["status"] = "entered-in-error"
    if dice[1] < 0.01:
        _measure(chart, "heart_rate", 60.0, _FUTURE)
    if dice[2] < 0.02:
        _diagnose(chart, "coronary disease", chart.before(400) - timedelta(days=5))
        status = chart.entries[-1]["verificationStatus"]["coding"][0]
        status.update(code="refuted", display="Refuted")


def _spoil(lines: dict[str, list[str]]) -> None:
    """Repeat a line, and end with half of one, as an export that was cut off does."""
    observations = lines["Observation"]
    observations.append(observations[0])
    cut = observations[-2].replace('"id":"', '"id":"cut-', 1)
    observations.append(cut[: len(cut) // 2])
