"""When: the hours of a forecast, the start of a regimen, and when it is judged."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fedtwin_research.twins.patient_file import PatientFile
from fedtwin_research.twins.problems import Problems
from fedtwin_twins.advice.assessment import Horizon
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.twin.moments import Clock, Moment
from fedtwin_twins.twin.refusals import Problem, Refusal, refuse_if_any
from fedtwin_twins.twin.schedule import Schedule
from fedtwin_twins.twin.tabulate import Patient

POINTS: Final = 145
"""Hours at which curves are computed."""
BEYOND_H: Final = 48.0
"""A forecast goes so far beyond the start of a regimen, unless the file says otherwise."""
LONGEST_H: Final = 24.0 * 366.0
_STEPS_H: Final = (0.0, 2.0, 4.0, 8.0, 12.0, 24.0, 36.0, 48.0, 72.0, 96.0, 168.0)
"""Hours after the start that are shown in a table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hours:
    """Hours from the origin.

    Attributes:
        grid: of curves, from the first event to the end.
        shown: of tables, from the start on.
        horizon: when a regimen starts, and when it is judged.
    """

    grid: tuple[float, ...]
    shown: tuple[float, ...]
    horizon: Horizon

    @property
    def end(self) -> float:
        """The last hour of the forecast."""
        return self.grid[-1]


def hours_of(
    content: PatientFile, patient: Patient, current: Regimen | None, *, with_meals: bool = False
) -> Hours:
    """The hours of a file.

    Args:
        content: of the file.
        patient: of the file.
        current: regimen.
        with_meals: doses act together with meals hour by hour: those that are planned after the
            start stand, beside what is proposed, and there is no steady state to judge at.

    Raises:
        Refusal: a time that cannot be read, or that lies before what it must follow.
    """
    clock = Clock(patient.origin)
    problems = Problems()
    given, _ = patient.schedule.given(clock)
    levels = [
        problems.attempt(clock.hours, one.time, "levels.time") for one in patient.observations
    ]
    problems.found.clear()  # the record's own check names each of them
    events = [*(one.hour for one in given), *(hour for hour in levels if hour is not None)]
    first = min(events, default=0.0)
    due = max((one.hour for one in given), default=first)
    start = _hour(content.start, "start", clock, problems)
    if with_meals and content.goal is not None:
        _check_named(content, problems)
    if with_meals:
        last = max((hour for hour in levels if hour is not None), default=first)
        start = last if start is None else start
    elif start is None:
        start = max([_next_due(content, clock, due, current), *events])
        if given and start <= due and content.goal is not None:
            remedy = "the file does not tell when the next dose is due"
            problems.add([Problem(field="start", allowed="a time", remedy=remedy)])
    elif given and start <= due and content.goal is not None:
        allowed = f"after the last dose at {due:g}"
        remedy = "doses that are not yet given belong into current or what_if"
        problems.add(
            [Problem(field="start", value=f"{start:g}", unit="h", allowed=allowed, remedy=remedy)]
        )
    judged = _hour(content.judged_at, "judged_at", clock, problems)
    until = _hour(content.forecast_until, "forecast_until", clock, problems)
    end = max(start + BEYOND_H, judged or start) if until is None else until
    for name, hour in (("judged_at", judged), ("forecast_until", until)):
        # Without a goal nothing starts, and a forecast may look at what is past.
        after = max(start, first) if name == "judged_at" or content.goal is not None else first
        if hour is not None and not after < hour <= first + LONGEST_H:
            allowed = f"after {after:g}, at most {first + LONGEST_H:g}"
            problems.add([Problem(field=name, value=f"{hour:g}", unit="h", allowed=allowed)])
    refuse_if_any(problems.found)
    shown = tuple(start + step for step in _STEPS_H if start + step <= end) or (end,)
    return Hours(
        grid=_grid(first, end, [*events, *shown]),
        shown=shown,
        horizon=Horizon(start_h=start, judged_h=judged),
    )


def too_early(
    schedule: Schedule, patient: Patient, begins: float | None, where: str
) -> Iterator[Problem]:
    """Of a schedule that comes after what was done: its doses that would come before that.

    Args:
        schedule: to look at.
        patient: with what was done and what is planned.
        begins: h, when what is planned begins; none: all that is in the record was done.
        where: the schedule stands in the file.
    """
    clock = Clock(patient.origin)
    given = [one.hour for one in patient.schedule.given(clock)[0]]
    last = max((hour for hour in given if begins is None or hour < begins), default=None)
    first = min((one.hour for one in schedule.given(clock)[0]), default=None)
    if last is not None and first is not None and first < last:
        yield Problem(
            field=f"{where}.doses",
            value=f"{first:g} h",
            allowed=f"from the last dose that was given, {last:g} h, on",
            remedy="a what-if comes after what was done, and is added to it",
        )


def _check_named(content: PatientFile, problems: Problems) -> None:
    """Refuse a goal whose hours do not follow from the record."""
    for name, given, allowed in (
        ("start", content.start, "the time of the dose that is sought"),
        ("judged_at", content.judged_at, "the time until which glucose is judged"),
    ):
        if given is None:
            remedy = "with meals and insulin every hour differs: name it, such as 12 h"
            problems.add([Problem(field=name, allowed=allowed, remedy=remedy)])


def _hour(given: Moment | None, name: str, clock: Clock, problems: Problems) -> float | None:
    if given is None:
        return None
    hour = problems.attempt(clock.hours, given, name)
    return hour if hour is None or math.isfinite(hour) else None


def _next_due(content: PatientFile, clock: Clock, last: float, current: Regimen | None) -> float:
    """When the next dose would be given, as far as the file tells."""
    if current is not None:
        return last + current.interval_h
    intervals = []
    for line in content.doses:
        try:
            if line.interval is not None and clock.hours(line.time, "") <= last:
                intervals.append(line.interval.to("h"))
        except Refusal:
            continue
    return last + (intervals[-1] if intervals else 0.0)


def _grid(first: float, end: float, events: list[float]) -> tuple[float, ...]:
    """Even steps, and every dose and level, so that no peak or point is missed."""
    step = (end - first) / (POINTS - 1)
    even = [first + place * step for place in range(POINTS)]
    return tuple(sorted({*even, *(hour for hour in events if hour <= end)}))
