"""What is done to a patient over time: doses, meals and whatever a model's routes understand.

Every intervention becomes doses: an amount by a route at an hour. A dose with `additional` ones
stands for them all; one at steady state stands for all earlier ones too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedtwin_twins.twin.moments import Clock, Moment
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal

MOST_ADDITIONAL = 10_000
"""More repeated doses than this are a mistake (27 years of daily ones)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dose:
    """An amount of a drug, perhaps repeated.

    Attributes:
        time: when the (first) dose begins.
        amount: of the drug as given.
        route: one of the model's, such as `oral`.
        duration: of an infusion; none: all at once.
        rate: of an infusion, in place of the duration.
        interval: between repeated doses.
        additional: how many doses follow this one, each an interval later.
        steady_state: the patient has had this dose at this interval for long.
    """

    time: Moment
    amount: Quantity
    route: str
    duration: Quantity | None = None
    rate: Quantity | None = None
    interval: Quantity | None = None
    additional: int = 0
    steady_state: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Meal:
    """What was eaten.

    Attributes:
        time: when the meal began.
        carbohydrate: mass of digestible carbohydrate.
        route: of the model, by which meals go in.
    """

    time: Moment
    carbohydrate: Quantity
    route: str = "meal"


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenDose:
    """One dose as the equations see it, its amount still with a unit.

    Attributes:
        hour: from the origin.
        amount: as given.
        route: by name.
        duration_h: 0: all at once.
        interval_h: above 0: stands for a steady state at this interval.
    """

    hour: float
    amount: Quantity
    route: str
    duration_h: float = 0.0
    interval_h: float = 0.0


class Intervention(Protocol):
    """Something that is done to a patient."""

    @property
    def time(self) -> Moment:
        """When it begins."""

    @property
    def route(self) -> str:
        """By which of the model's routes."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A patient's interventions, in any order."""

    interventions: Sequence[Dose | Meal] = ()

    def given(self, clock: Clock, field: str = "doses") -> tuple[list[GivenDose], list[Problem]]:
        """Every single dose, ascending in time, and what is wrong with any of them.

        Args:
            clock: turns moments to hours.
            field: what problems call the list.

        Returns:
            The doses that could be read, and all problems.
        """
        doses: list[GivenDose] = []
        problems: list[Problem] = []
        for place, item in enumerate(self.interventions):
            where = f"{field}[{place}]"
            dose = _as_dose(item)
            found = list(_faults(dose, where))
            try:
                first = _first(dose, clock, where)
            except Refusal as refusal:
                found.extend(refusal.problems)
            problems.extend(found)
            if not found:
                doses.extend(_repeated(first, dose))
        return sorted(doses, key=lambda one: one.hour), problems


def _as_dose(item: Dose | Meal) -> Dose:
    if isinstance(item, Meal):
        return Dose(time=item.time, amount=item.carbohydrate, route=item.route)
    return item


def _faults(dose: Dose, where: str) -> Iterator[Problem]:
    if dose.amount.value <= 0:
        yield Problem(
            field=f"{where}.amount",
            value=f"{dose.amount.value:g}",
            unit=dose.amount.unit,
            allowed="above 0",
            remedy="leave out a dose that was not given",
        )
    if dose.duration is not None and dose.rate is not None:
        yield Problem(
            field=f"{where}.rate",
            value=str(dose.rate),
            allowed="a duration or a rate",
            remedy="give only one of them: the other follows from the amount",
        )
    for name, value, zero in (
        ("duration", dose.duration, True),
        ("rate", dose.rate, False),
        ("interval", dose.interval, False),
    ):
        if value is not None and (value.value < 0 or (value.value == 0 and not zero)):
            yield Problem(
                field=f"{where}.{name}",
                value=f"{value.value:g}",
                unit=value.unit,
                allowed="0 or more" if zero else "above 0",
            )
    yield from _repeat_faults(dose, where)


def _repeat_faults(dose: Dose, where: str) -> Iterator[Problem]:
    if not 0 <= dose.additional <= MOST_ADDITIONAL:
        yield Problem(
            field=f"{where}.additional",
            value=str(dose.additional),
            allowed=f"0 to {MOST_ADDITIONAL}",
        )
    needs = "additional" if dose.additional > 0 else "steady_state" if dose.steady_state else ""
    if needs and dose.interval is None:
        yield Problem(
            field=f"{where}.interval",
            allowed="a time above 0",
            remedy=f"a dose with {needs} needs the interval between doses",
        )


def _first(dose: Dose, clock: Clock, where: str) -> GivenDose:
    hour = clock.hours(dose.time, f"{where}.time")
    duration = 0.0
    if dose.duration is not None:
        duration = dose.duration.to("h", field=f"{where}.duration")
    elif dose.rate is not None and dose.rate.value > 0:
        duration = _lasting(dose.amount, dose.rate, f"{where}.rate")
    interval = 0.0
    if dose.interval is not None:
        interval = dose.interval.to("h", field=f"{where}.interval")
    steady = interval if dose.steady_state else 0.0
    return GivenDose(
        hour=hour, amount=dose.amount, route=dose.route, duration_h=duration, interval_h=steady
    )


def _lasting(amount: Quantity, rate: Quantity, where: str) -> float:
    """How long an amount lasts at a rate, in hours."""
    return amount.value / rate.to(f"{amount.unit}/h", field=where)


def _repeated(first: GivenDose, dose: Dose) -> Iterator[GivenDose]:
    """The first dose, and the additional ones, which no longer stand for a steady state."""
    yield first
    if dose.interval is None:
        return
    step = dose.interval.to("h")
    for number in range(1, dose.additional + 1):
        yield GivenDose(
            hour=first.hour + number * step,
            amount=first.amount,
            route=first.route,
            duration_h=first.duration_h,
        )
