"""One patient's measurements as rows for the table, each checked against what the model knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fedtwin_twins.twin.intake import ObservableIntake
from fedtwin_twins.twin.moments import Clock
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal

_OTHER_UNITS: Final = ("mmol/L", "mg/dL", "umol/L")
BEFORE_FIRST_DOSE: Final = "a level before the first dose belongs to a dose that is missing here"


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservationRow:
    """A measurement in the units of the table."""

    hour: float
    value: float
    kind: int
    below: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """What was read, what stops it, and what a reader must know."""

    rows: list[ObservationRow]
    problems: list[Problem]
    cautions: list[Problem]


def observation_rows(
    observations: Sequence[Observation],
    observables: Sequence[ObservableIntake],
    clock: Clock,
    first_dose: float | None,
    field: str,
) -> Rows:
    """Rows in order of time.

    Args:
        observations: in any order.
        observables: of the model.
        clock: of the patient.
        first_dose: h, of a steady state's an interval earlier; none if there is no dose.
        field: what problems call the list.
    """
    names = {one.observable.name: place for place, one in enumerate(observables)}
    codes = {one.observable.code: place for place, one in enumerate(observables)}
    codes.pop("", None)
    read: dict[tuple[float, int], ObservationRow] = {}
    problems: list[Problem] = []
    cautions: list[Problem] = []
    for place, one in enumerate(observations):
        where = f"{field}[{place}]"
        kind = names.get(one.observable, codes.get(one.observable))
        if kind is None:
            problems.append(_unknown(one.observable, observables, where))
            continue
        try:
            row = _row(one, kind, observables[kind], clock, where)
        except Refusal as refusal:
            problems.extend(refusal.problems)
            continue
        problems.extend(_too_early(row, observables[kind], first_dose, where))
        earlier = read.setdefault((row.hour, kind), row)
        if earlier is not row:
            _twice(earlier, row, observables[kind], where, problems, cautions)
    rows = sorted(read.values(), key=lambda row: (row.hour, row.kind))
    return Rows(rows=rows, problems=problems, cautions=cautions)


def _unknown(name: str, observables: Sequence[ObservableIntake], where: str) -> Problem:
    known = [
        f"{one.observable.name} ({one.observable.code})"
        if one.observable.code
        else one.observable.name
        for one in observables
    ]
    return Problem(field=f"{where}.observable", value=name, allowed=" or ".join(known))


def _row(
    one: Observation, kind: int, known: ObservableIntake, clock: Clock, where: str
) -> ObservationRow:
    unit = known.observable.unit
    mass = None if known.molar_mass is None else Quantity(known.molar_mass, "g/mol")
    hour = clock.hours(one.time, f"{where}.time")
    limit = known.observable.quantification_limit
    if one.quantification_limit is not None:
        limit = one.quantification_limit.to(
            unit, molar_mass=mass, field=f"{where}.quantification_limit"
        )
    value = None
    if one.value is not None:
        value = one.value.to(unit, molar_mass=mass, field=f"{where}.value")
    if one.below:
        return ObservationRow(
            hour=hour, value=_limit(one, value, limit, unit, where), kind=kind, below=True
        )
    return ObservationRow(
        hour=hour, value=_above(one, value, limit, known, where), kind=kind, below=False
    )


def _limit(
    one: Observation, value: float | None, limit: float | None, unit: str, where: str
) -> float:
    if limit is None or limit <= 0:
        raise Refusal(
            Problem(
                field=f"{where}.quantification_limit",
                value="" if limit is None else f"{limit:g}",
                unit=unit,
                allowed="above 0",
                remedy="a value below the limit needs the limit of the assay",
            )
        )
    if value is not None and value > limit:
        raise Refusal(
            Problem(
                field=f"{where}.value",
                value=f"{value:g}",
                unit=unit,
                allowed=f"at most the limit of quantification, {limit:g}",
                remedy="take away the mark `below`, or leave out the value",
            )
        )
    return limit


def _above(
    one: Observation, value: float | None, limit: float | None, known: ObservableIntake, where: str
) -> float:
    unit = known.observable.unit
    if value is None:
        raise Refusal(
            Problem(
                field=f"{where}.value",
                allowed=f"a value in {unit}",
                remedy="leave out what was not measured, or mark it `below`",
            )
        )
    if limit is not None and value < limit:
        raise Refusal(
            Problem(
                field=f"{where}.value",
                value=f"{value:g}",
                unit=unit,
                allowed=f"at least the limit of quantification, {limit:g}",
                remedy="mark it `below`: what lies below the limit is known only as such",
            )
        )
    bounds = known.believable
    if bounds is not None and not bounds[0] <= value <= bounds[1]:
        raise Refusal(
            Problem(
                field=f"{where}.value",
                value=str(one.value),
                allowed=f"{bounds[0]:g} to {bounds[1]:g} {unit}",
                remedy=_meant(one.value, known, bounds),
            )
        )
    must_be_positive = known.observable.error.convention == "on_logarithm"
    if (value < 0 and not known.signed) or (value <= 0 and must_be_positive):
        raise Refusal(
            Problem(
                field=f"{where}.value",
                value=f"{value:g}",
                unit=unit,
                allowed="above 0" if must_be_positive else "0 or more",
            )
        )
    return value


def _meant(given: Quantity | None, known: ObservableIntake, bounds: tuple[float, float]) -> str:
    """Which unit would make the value believable."""
    if given is None:
        return ""
    unit = known.observable.unit
    mass = None if known.molar_mass is None else Quantity(known.molar_mass, "g/mol")
    others = (Quantity(given.value, other) for other in _OTHER_UNITS if other != given.unit)
    meant = []
    for other in others:
        try:
            value = other.to(unit, molar_mass=mass)
        except Refusal:
            continue
        if bounds[0] <= value <= bounds[1]:
            meant.append(other.unit)
    return f"is it {' or '.join(meant)}?" if meant else "check the value at the source"


def _too_early(
    row: ObservationRow, known: ObservableIntake, first_dose: float | None, where: str
) -> Iterator[Problem]:
    if known.endogenous:
        return
    if first_dose is None or row.hour < first_dose:
        known_first = first_dose is not None
        yield Problem(
            field=f"{where}.time",
            value=f"{row.hour:g}" if known_first else f"{row.hour:g} h",
            unit="h" if known_first else "",
            allowed=f"at least {first_dose:g}" if known_first else "a dose before it",
            remedy=BEFORE_FIRST_DOSE,
        )


def _twice(
    earlier: ObservationRow,
    later: ObservationRow,
    known: ObservableIntake,
    where: str,
    problems: list[Problem],
    cautions: list[Problem],
) -> None:
    unit = known.observable.unit
    if earlier.value == later.value and earlier.below == later.below:
        cautions.append(
            Problem(
                field=where,
                value=f"{later.value:g} at {later.hour:g} h, a second time",
                remedy="counted once",
            )
        )
        return
    problems.append(
        Problem(
            field=f"{where}.value",
            value=f"{later.value:g} {unit}",
            allowed=f"one value of {known.observable.name} at {later.hour:g} h",
            remedy=f"another record says {earlier.value:g} {unit}: keep the right one",
        )
    )
