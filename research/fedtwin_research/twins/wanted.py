"""From the file's wishes to a search: targets, hard limits, candidates, and when.

A file can make limits stricter than the cards', never looser; with several models the strictest
card counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from fedtwin_research.twins.patient_file import CeilingLine, PatientFile, TargetLine
from fedtwin_research.twins.problems import Problems
from fedtwin_twins.advice.assessment import Horizon
from fedtwin_twins.advice.limits import Ceiling, Limits
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.search import Goal, regimens_of
from fedtwin_twins.advice.targets import Target, range_of
from fedtwin_twins.dosing import (
    USUAL_INTERVALS_H,
    limits_of,
    regimens_from,
    route_of,
    targets_of,
)
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal, refuse_if_any

LOW_GLUCOSE: Final = 3.9
"""mmol/L: level 1 of hypoglycaemia (Battelino T et al., Diabetes Care 2019;42:1593)."""
MOST_CANDIDATES: Final = 500
"""More regimens than this are not looked through."""
_ROUNDING: Final = 1.0 + 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What `Twin.advise` is asked."""

    goal: Goal
    limits: Limits
    regimens: tuple[Regimen, ...]
    horizon: Horizon
    current: Regimen | None


def wanted_of(
    content: PatientFile,
    models: Sequence[CardModel],
    horizon: Horizon,
    forbidden: Sequence[Problem],
    problems: Problems,
) -> Wanted | None:
    """The search; none where something is wrong with it, which goes to the problems."""
    current = problems.attempt(current_of, content, models)
    goal = problems.attempt(_goal, content, models)
    limits = problems.attempt(_limits, content, models, forbidden)
    regimens = problems.attempt(_regimens, content, models, current, horizon)
    if goal is None or limits is None or regimens is None:
        return None
    if content.current is not None and current is None:
        return None
    return Wanted(
        goal=goal, limits=limits, regimens=tuple(regimens), horizon=horizon, current=current
    )


def with_meals(model: CardModel) -> bool:
    """Whether its doses act together with meals and one another, hour by hour, as insulin's do."""
    return any(route.input == "meal" for route in model.card.routes)


def current_of(content: PatientFile, models: Sequence[CardModel]) -> Regimen | None:
    """What the patient has now, as a regimen; none: nothing.

    Raises:
        Refusal: a number that no dose can have, or a route that a card does not have.
    """
    now = content.current
    if now is None:
        return None
    route = route_for(models, now.route, "current.route")
    duration = now.duration.to("h", field="current.duration") if now.duration else 0.0
    interval = now.interval.to("h", field="current.interval")
    amount = now.amount
    amount.to(models[0].dose_unit(route), field="current.amount")
    return Regimen(amount=amount, interval_h=interval, route=route, duration_h=duration)


def route_for(models: Sequence[CardModel], given: str, where: str) -> str:
    """A route by name, or the only one.

    Raises:
        Refusal: a model does not have it, or there are several and none is named.
    """
    problems = []
    for model in models:
        names = list(model.routes)
        if given not in names and (given or len(names) > 1):
            allowed = " or ".join(names)
            problems.append(Problem(field=where, value=given, allowed=allowed))
    refuse_if_any(dict.fromkeys(problems))
    return given or models[0].routes[0]


def _goal(content: PatientFile, models: Sequence[CardModel]) -> Goal:
    lines = content.goal.targets if content.goal is not None else ()
    least = content.goal.least_probability if content.goal is not None else 0.5
    problems: list[Problem] = []
    targets = []
    for place, line in enumerate(lines):
        where = f"goal.targets[{place}]"
        try:
            target = _target(line, models)
            for model in models:
                range_of(model, target)
            targets.append(target)
        except Refusal as refusal:
            problems += [_below(one, where) for one in refusal.problems]
    refuse_if_any(problems)
    targets = targets or _own_targets(models)
    _check_lows(targets, content, models)
    return Goal(targets=targets, least_probability=least)


def _check_lows(
    targets: Sequence[Target], content: PatientFile, models: Sequence[CardModel]
) -> None:
    """Refuse a goal on glucose that would let it fall: a time in range says nothing of how low."""
    if not any(with_meals(model) for model in models):
        return
    low = Quantity(LOW_GLUCOSE, "mmol/L")
    bounded = [one for one in targets if one.high is not None] + list(content.limits.ceilings)
    for one in bounded:
        if one.within is not None and one.within[1].to(low.unit) <= low.value * _ROUNDING:
            return
    raise Refusal(
        Problem(
            field="goal.targets",
            value="nothing bounds low glucose",
            allowed=f"a bound on the time of glucose below {low} or less",
            remedy="add {kind: time_in_range, within: [0 mmol/L, 3.9 mmol/L], high: 4 %}",
        )
    )


def _below(problem: Problem, where: str) -> Problem:
    return replace(problem, field=where + problem.field.removeprefix("target"))


def _target(line: TargetLine, models: Sequence[CardModel]) -> Target:
    name = line.observable or models[0].observables[0].name
    return Target(
        kind=line.kind,
        observable=name,
        low=line.low,
        high=line.high,
        inhibitory_concentration=line.inhibitory_concentration,
        unbound_fraction=line.unbound_fraction,
        within=_within(line.within, name, models),
        source=line.source,
    )


def _within(
    given: tuple[Quantity, Quantity] | None, observable: str, models: Sequence[CardModel]
) -> tuple[Quantity, Quantity] | None:
    """Two limits of an observable in its own unit; mg/dL of glucose is mmol/L, too.

    Raises:
        Refusal: they measure something else.
    """
    known = [one for one in models[0].intake.observables if one.observable.name == observable]
    if given is None or not known:
        return given
    unit, mass = known[0].observable.unit, known[0].molar_mass
    molar = None if mass is None else Quantity(mass, "g/mol")
    low, high = (
        Quantity(float(f"{one.to(unit, molar_mass=molar, field='target.within'):.6g}"), unit)
        for one in given
    )
    return low, high


def _own_targets(models: Sequence[CardModel]) -> list[Target]:
    """The cards' own; what holds at different times cannot hold at once and must be chosen."""
    by_range: dict[tuple[object, ...], Target] = {}
    for model in models:
        for one in targets_of(model.card):
            by_range.setdefault((one.words, str(one.low), str(one.high)), one)
    found = list(by_range.values())
    if not found:
        remedy = "the card states no range: name one, such as {kind: trough, low: 10 mg/L}"
        raise Refusal(Problem(field="goal.targets", allowed="at least one", remedy=remedy))
    if len({one.words for one in found}) < len(found):
        shown = "; ".join(
            f"{{kind: {one.kind}, observable: {one.observable}, low: {one.low}, high: {one.high}}}"
            f" ({one.source.split(';')[0]})"
            for one in found
        )
        remedy = f"the card states several, for different times: copy one of {shown}"
        raise Refusal(Problem(field="goal.targets", allowed="one of the ranges", remedy=remedy))
    return found


def _limits(
    content: PatientFile, models: Sequence[CardModel], forbidden: Sequence[Problem]
) -> Limits:
    route = route_for(models, content.candidates.route, "candidates.route")
    known = [limits_of(model.card, route, forbidden=forbidden) for model in models]
    unit = known[0].largest_dose.unit
    card = replace(
        known[0],
        largest_dose=min((one.largest_dose for one in known), key=lambda one: one.to(unit)),
        largest_daily=min((one.largest_daily for one in known), key=lambda one: one.to(unit)),
    )
    own = content.limits
    problems = Problems()
    dose = problems.attempt(
        _stricter, own.largest_dose, card.largest_dose, "limits.largest_dose", True
    )
    daily = problems.attempt(
        _stricter, own.largest_daily_dose, card.largest_daily, "limits.largest_daily_dose", True
    )
    interval = problems.attempt(
        _stricter,
        own.smallest_interval,
        Quantity(card.smallest_interval_h, "h"),
        "limits.smallest_interval",
        False,
    )
    change = problems.attempt(_change, own.largest_change, card.largest_change)
    if own.largest_rate is not None:
        rate = own.largest_rate
        problems.under("limits.largest_rate", rate.to, f"{unit}/h")
    ceilings = [
        problems.under(f"limits.ceilings[{place}]", _ceiling, line, models)
        for place, line in enumerate(own.ceilings)
    ]
    refuse_if_any(problems.found)
    assert dose is not None
    assert daily is not None
    assert interval is not None
    return replace(
        card,
        largest_dose=dose,
        largest_daily=daily,
        smallest_interval_h=interval.to("h"),
        largest_change=change,
        largest_rate=own.largest_rate,
        ceilings=tuple(one for one in ceilings if one is not None),
    )


def _stricter(given: Quantity | None, card: Quantity, where: str, most: bool) -> Quantity:
    """The file's limit where it is stricter than the card's."""
    if given is None:
        return card
    value, bound = given.to(card.unit, field=where), card.value
    looser = value > bound * _ROUNDING if most else value < bound / _ROUNDING
    if looser or value <= 0:
        allowed = f"above 0 and at most {card}" if most else f"at least {card}"
        remedy = "a file can make limits stricter than the card's, not looser"
        raise Refusal(Problem(field=where, value=str(given), allowed=allowed, remedy=remedy))
    return Quantity(value, card.unit)


def _change(given: float | None, card: float | None) -> float | None:
    if given is None:
        return card
    if given < 0 or (card is not None and given > card):
        most = "0 or more" if card is None else f"0 to {card:g}"
        remedy = "a file can make limits stricter than the card's, not looser"
        where = "limits.largest_change"
        raise Refusal(Problem(field=where, value=f"{given:g}", allowed=most, remedy=remedy))
    return given


def _ceiling(line: CeilingLine, models: Sequence[CardModel]) -> Ceiling:
    name = line.observable or models[0].observables[0].name
    within = _within(line.within, name, models)
    exposure = Target(kind=line.kind, observable=name, high=line.above, within=within)
    for model in models:
        range_of(model, exposure)
    return Ceiling(exposure=exposure, most=line.most)


def _regimens(
    content: PatientFile,
    models: Sequence[CardModel],
    current: Regimen | None,
    horizon: Horizon,
) -> list[Regimen]:
    own = content.candidates
    route = route_for(models, own.route, "candidates.route")
    _check_dosed_alike(models, route)
    problems = Problems()
    unit = models[0].dose_unit(route)
    for name, amounts in (("doses", own.doses), ("loading", own.loading)):
        for place, amount in enumerate(amounts):
            problems.under(f"candidates.{name}[{place}]", _positive, amount, unit)
    intervals = _hours(own.intervals, "intervals", problems)
    once = not intervals and horizon.judged_h is not None and any(map(with_meals, models))
    if once and horizon.judged_h is not None:
        intervals = [horizon.judged_h - horizon.start_h]
    intervals = intervals or list(USUAL_INTERVALS_H)
    durations = _hours(own.durations, "durations", problems, least=0.0)
    durations = durations or [_last_duration(content, models, current)]
    refuse_if_any(problems.found)
    if own.doses:
        loading = (None, *own.loading)
        found = regimens_of(own.doses, intervals, route, durations, loading)
    else:
        if not route_of(models[0].card, route).available_doses:
            allowed = f"at least one amount in {unit}"
            remedy = "the card lists none: name those that could be given"
            raise Refusal(Problem(field="candidates.doses", allowed=allowed, remedy=remedy))
        found = regimens_from(models[0].card, route, intervals_h=intervals, durations_h=durations)
        found = [replace(one, loading=first) for one in found for first in (None, *own.loading)]
    found = [replace(one, once=True) for one in found] if once else found
    if not 0 < len(found) <= MOST_CANDIDATES:
        raise Refusal(
            Problem(
                field="candidates",
                value=f"{len(found)} regimens",
                allowed=f"1 to {MOST_CANDIDATES}",
                remedy="name other doses, intervals or durations (at most an interval)",
            )
        )
    return found


def _check_dosed_alike(models: Sequence[CardModel], route: str) -> None:
    """Refuse a route whose doses models measure in units that do not mix."""
    first = models[0].dose_unit(route)
    for model in models:
        unit = model.dose_unit(route)
        if not Quantity(1.0, unit).measures_like(first):
            raise Refusal(
                Problem(
                    field="models",
                    value=f"{route} of {model.name} in {unit}",
                    allowed=f"doses that measure the same as {first} of {models[0].name}",
                    remedy="name models that take the same doses",
                )
            )


def _positive(amount: Quantity, unit: str) -> float:
    value = amount.to(unit)
    if value <= 0:
        raise Refusal(Problem(field="", value=str(amount), allowed="above 0"))
    return value


def _hours(
    given: Sequence[Quantity], name: str, problems: Problems, least: float = math.ulp(0.0)
) -> list[float]:
    found = []
    for place, one in enumerate(given):
        where = f"candidates.{name}[{place}]"
        hours = problems.under(where, one.to, "h")
        if hours is not None and hours < least:
            allowed = "0 h or more" if least == 0.0 else "above 0 h"
            problems.add([Problem(field=where, value=str(one), allowed=allowed)])
        elif hours is not None:
            found.append(hours)
    return found


def _last_duration(
    content: PatientFile, models: Sequence[CardModel], current: Regimen | None
) -> float:
    """As the patient has been infused so far; 0: all at once."""
    if current is not None:
        return current.duration_h
    if any(with_meals(model) for model in models):
        return 0.0  # what runs is the basal rate, what is sought is for a meal
    for line in reversed(content.doses):
        if line.duration is not None:
            return line.duration.to("h", field="doses.duration")
        if line.rate is not None and line.rate.value > 0:
            return line.amount.value / line.rate.to(f"{line.amount.unit}/h", field="doses.rate")
    return 0.0
