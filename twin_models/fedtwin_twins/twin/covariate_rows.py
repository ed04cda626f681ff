"""One patient's covariates as steps for the table, each value checked where it was recorded."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fedtwin_twins.twin.covariates import CovariateRecord, Steps, steps_of
from fedtwin_twins.twin.intake import CovariateIntake, DerivedIntake, Intake
from fedtwin_twins.twin.model import CovariateRange
from fedtwin_twins.twin.moments import Clock
from fedtwin_twins.twin.plausible import implausible, molar_mass_of
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal

Recorded = Quantity | str | Sequence[CovariateRecord]
"""A value that never changes, or records over time."""

NOT_NEEDED: Steps = [(-math.inf, math.nan)]
"""What stands in the table for a covariate that no equation of this patient reads."""
UNUSABLE: Final = "this model must not be used for this patient"
"""What is to be done where a patient lies outside a model's hard bounds: another model may fit."""


@dataclass(slots=True)
class Known:
    """What was read of one patient."""

    steps: dict[str, Steps] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    cautions: list[Problem] = field(default_factory=list)


def covariate_steps(
    given: Mapping[str, Recorded], intake: Intake, clock: Clock, prefix: str
) -> Known:
    """Steps of every recorded covariate, and of every derived one that was given.

    Args:
        given: by name; what the model does not know is left aside.
        intake: of the model.
        clock: of the patient.
        prefix: before the names of fields in problems.
    """
    known = Known()
    wanted = needed(intake, given)
    for name, one in intake.covariates.items():
        if name in given:
            _read(name, given[name], one, intake, clock, prefix, known)
        elif name not in wanted:
            known.steps[name] = NOT_NEEDED
        elif one.range.default is None:
            known.problems.append(_missing(one.range, given, intake, prefix))
            known.steps[name] = NOT_NEEDED
        else:
            known.cautions.append(_assumed(one, one.range.default, prefix))
            known.steps[name] = [(-math.inf, one.range.default)]
    for derived in intake.derived:
        name = derived.range.name
        if name in given:
            own = CovariateIntake(range=derived.range)
            _read(name, given[name], own, intake, clock, prefix, known)
    return known


def needed(intake: Intake, given: Mapping[str, Recorded]) -> set[str]:
    """What some equation of this patient reads: used ones, and inputs of what was not given."""
    wanted = set(intake.used)
    for derived in reversed(intake.derived):
        if derived.range.name in wanted and derived.range.name not in given:
            wanted.update(derived.inputs)
    return wanted


def _missing(
    known: CovariateRange, given: Mapping[str, Recorded], intake: Intake, prefix: str
) -> Problem:
    low, high = known.hard
    near = difflib.get_close_matches(known.name, list(given), n=1)
    instead = [
        derived.range.name
        for derived in intake.derived
        if known.name in derived.inputs and known.name not in intake.used
    ]
    remedy = f"did you mean {near[0]!r} by it?" if near else "this model needs it"
    if instead and not near:
        remedy = f"this model needs it, or {' or '.join(instead)}"
    return Problem(
        field=f"{prefix}{known.name}",
        unit=known.unit,
        allowed=f"{low:g} to {high:g}",
        remedy=remedy,
    )


def _assumed(one: CovariateIntake, default: float, prefix: str) -> Problem:
    names = [name for name, value in one.levels.items() if value == default]
    taken = f"{names[0]!r}" if names else f"{default:g} {one.range.unit}"
    remedy = f"{taken} was assumed: record it for a better answer"
    return Problem(field=f"{prefix}{one.range.name}", remedy=remedy)


def _read(
    name: str,
    given: Recorded,
    one: CovariateIntake,
    intake: Intake,
    clock: Clock,
    prefix: str,
    known: Known,
) -> None:
    where = f"{prefix}{name}"
    constant = isinstance(given, Quantity | str)
    records = _records(given)
    if not records:
        known.problems.append(Problem(field=where, allowed="at least one record"))
        known.steps[name] = NOT_NEEDED
        return
    found: dict[float, float] = {}
    faulty = len(known.problems)
    for place, record in enumerate(records):
        field_name = where if constant else f"{where}[{place}]"
        try:
            hour = clock.hours(record.time, f"{field_name}.time")
            value = _number(name, record.value, one, field_name)
        except Refusal as refusal:
            known.problems.extend(refusal.problems)
            continue
        known.problems.extend(_outside(value, one.range, field_name, hard=True))
        known.cautions.extend(_outside(value, one.range, field_name, hard=False))
        if found.setdefault(hour, value) != value:
            known.problems.append(_two_values(field_name, hour, found[hour], value, one.range))
    sound = len(known.problems) == faulty
    known.steps[name] = steps_of(sorted(found.items()), intake.carry_rule) if sound else NOT_NEEDED


def _records(given: Recorded) -> list[CovariateRecord]:
    if isinstance(given, Quantity | str):
        return [CovariateRecord(time=Quantity(0.0, "h"), value=given)]
    return list(given)


def _number(name: str, value: Quantity | str, one: CovariateIntake, where: str) -> float:
    if isinstance(value, str):
        if value not in one.levels:
            allowed = " or ".join(one.levels) or f"a number in {one.range.unit}"
            raise Refusal(Problem(field=where, value=value, allowed=allowed))
        return one.levels[value]
    problem = implausible(name, value, where)
    if problem is not None:
        raise Refusal(problem)
    number = value.to(one.range.unit, molar_mass=molar_mass_of(name), field=where)
    if one.levels and number not in one.levels.values():
        allowed = " or ".join(f"{text} ({level:g})" for text, level in one.levels.items())
        raise Refusal(Problem(field=where, value=f"{number:g}", allowed=allowed))
    return number


def _outside(value: float, known: CovariateRange, where: str, *, hard: bool) -> Iterator[Problem]:
    within = known.hard[0] <= value <= known.hard[1]
    if hard and not within:
        low, high = known.hard
        remedy = UNUSABLE
    elif not hard and within and not known.soft[0] <= value <= known.soft[1]:
        low, high = known.soft
        remedy = "outside the patients from whom the model was learned: trust it less"
    else:
        return
    yield Problem(
        field=where,
        value=f"{value:g}",
        unit=known.unit,
        allowed=f"{low:g} to {high:g}",
        remedy=remedy,
    )


def _two_values(
    where: str, hour: float, first: float, second: float, known: CovariateRange
) -> Problem:
    return Problem(
        field=where,
        value=f"{second:g}",
        unit=known.unit,
        allowed=f"one value at {hour:g} h",
        remedy=f"another record says {first:g} {known.unit}: keep the right one",
    )


def outside_of_derived(
    values: Sequence[float], derived: DerivedIntake, prefix: str
) -> tuple[list[Problem], list[Problem]]:
    """Problems and cautions of a derived covariate's values over a patient's spans."""
    problems: dict[str, Problem] = {}
    cautions: dict[str, Problem] = {}
    where = f"{prefix}{derived.range.name} (from {', '.join(derived.inputs)})"
    for value in values:
        for problem in _outside(value, derived.range, where, hard=True):
            problems.setdefault(problem.value, problem)
        for problem in _outside(value, derived.range, where, hard=False):
            cautions.setdefault(problem.value, problem)
    return list(problems.values()), list(cautions.values())
