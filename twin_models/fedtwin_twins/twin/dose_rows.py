"""One patient's doses as rows for the table, each checked against what the model takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from fedtwin_twins.twin.intake import RouteIntake
from fedtwin_twins.twin.moments import Clock
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal
from fedtwin_twins.twin.schedule import GivenDose, Schedule

_OTHER_MASSES = ("g", "mg", "ug", "ng")


@dataclass(frozen=True, kw_only=True, slots=True)
class DoseRow:
    """A dose in the units of the table."""

    hour: float
    amount: float
    duration_h: float
    route: int
    interval_h: float


def dose_rows(
    schedule: Schedule, routes: Mapping[str, RouteIntake], clock: Clock, field: str
) -> tuple[list[DoseRow], list[Problem]]:
    """Ascending rows, and all problems.

    Args:
        schedule: the patient's interventions.
        routes: of the model, in its order.
        clock: of the patient.
        field: what problems call the list.
    """
    given, problems = schedule.given(clock, field)
    places = {name: place for place, name in enumerate(routes)}
    rows: list[DoseRow] = []
    for dose in given:
        where = f"{field} at {dose.hour:g} h"
        route = routes.get(dose.route)
        if route is None:
            problems.append(
                Problem(field=f"{where}.route", value=dose.route, allowed=" or ".join(routes))
            )
            continue
        if route.part_of:
            problems.append(
                Problem(
                    field=f"{where}.route",
                    value=dose.route,
                    allowed=route.part_of,
                    remedy="this is only a part of it: the whole dose is given by the other",
                )
            )
            continue
        found = list(_faults(dose, route, where))
        problems.extend(found)
        if not found:
            rows.append(
                DoseRow(
                    hour=dose.hour,
                    amount=_amount(dose, route, where),
                    duration_h=dose.duration_h,
                    route=places[dose.route],
                    interval_h=dose.interval_h,
                )
            )
    return rows, _once(problems)


def _amount(dose: GivenDose, route: RouteIntake, where: str) -> float:
    mass = None if route.molar_mass is None else Quantity(route.molar_mass, "g/mol")
    return dose.amount.to(route.unit, molar_mass=mass, field=f"{where}.amount")


def _once(problems: list[Problem]) -> list[Problem]:
    """Repeated doses repeat their problem: the first of each kind is enough."""
    seen: dict[tuple[str, str, str], Problem] = {}
    for problem in problems:
        kind = problem.field.rpartition(".")[2]
        seen.setdefault((kind, problem.value, problem.allowed), problem)
    return list(seen.values())


def _faults(dose: GivenDose, route: RouteIntake, where: str) -> Iterator[Problem]:
    try:
        amount = _amount(dose, route, where)
    except Refusal as refusal:
        counted = f"doses {dose.route} are counted in units: write 4 U; a mass is not converted"
        for one in refusal.problems:
            yield replace(one, remedy=counted) if route.unit == "[IU]" else one
        return
    if route.single_dose is not None and not _within(amount, route.single_dose):
        unit = dose.amount.unit
        low, high = (Quantity(bound, route.unit).to(unit) for bound in route.single_dose)
        yield Problem(
            field=f"{where}.amount",
            value=f"{dose.amount.value:g}",
            unit=unit,
            allowed=f"a single dose of {low:.10g} to {high:.10g}",
            remedy=_question(dose, route),
        )
    if dose.duration_h > 0 and not route.infusible:
        yield Problem(
            field=f"{where}.duration",
            value=f"{dose.duration_h:g}",
            unit="h",
            allowed="none by this route",
        )
    if dose.interval_h > 0:
        yield from _steady_faults(dose, route, where)


def _steady_faults(dose: GivenDose, route: RouteIntake, where: str) -> Iterator[Problem]:
    lasting = max(dose.duration_h, route.duration_h)
    for name, hours in (("duration", lasting), ("lag", route.lag_h)):
        if hours > dose.interval_h:
            yield Problem(
                field=f"{where}.{name}",
                value=f"{hours:g}",
                unit="h",
                allowed=f"at most the interval of {dose.interval_h:g}",
                remedy="at steady state, write the doses out one by one instead",
            )


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _question(dose: GivenDose, route: RouteIntake) -> str:
    """Which unit would make the amount believable."""
    bounds = route.single_dose or (0.0, float("inf"))
    others = (Quantity(dose.amount.value, unit) for unit in _OTHER_MASSES)
    meant = [
        other.unit
        for other in others
        if other.unit != dose.amount.unit
        and other.measures_like(route.unit)
        and _within(other.to(route.unit), bounds)
    ]
    return f"is it {' or '.join(meant)}?" if meant else "check the amount at the source"
