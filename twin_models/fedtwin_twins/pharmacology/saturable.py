"""Elimination that saturates (Michaelis and Menten 1913, Biochem Z 49:333).

With C = A/V the concentration in the central compartment:

    dA/dt = input - Vmax C/(Km + C) - CL C - Q C + Q B/V2,    dB/dt = Q C - Q B/V2

Q, V2 and CL only where the card's disposition has them. First-order and transit absorption are
stages of their own before A. There is no closed form: `fixed_step` walks through it.

A steady state exists only while the dose rate stays below Vmax (without CL). From an empty body it
may take months, so it is sought from the level at which elimination equals the mean rate. A draw of
parameters without a steady state has what `RUN_IN` doses would have piled up; a patient of whom
none exists is refused (`without_steady_state`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.kinetics.events import Order, Route
from fedtwin_twins.kinetics.fixed_step import solve
from fedtwin_twins.kinetics.systems import (
    RUN_IN,
    RightSide,
    States,
    System,
    michaelis_menten,
    written_out,
)
from fedtwin_twins.pharmacology.course import Course
from fedtwin_twins.pharmacology.structures import SATURABLE
from fedtwin_twins.twin.batch import Doses
from fedtwin_twins.twin.refusals import Problem

SETTLING: Final = 5
"""Intervals that are stepped through at a time."""
ROUNDS: Final = 2
"""So often a steady state is sought from where the last round led."""
FARTHEST: Final = 1e3
"""So many of the last interval's changes, at most, a steady state is taken to lie ahead."""
ARRIVED: Final = 1e-9
"""A change by such a part in an interval is none."""
Values = Mapping[str, Tensor]


def saturates(course: Course) -> bool:
    """Whether the card's elimination does."""
    return course.card.disposition in SATURABLE


def concentrations(course: Course, times: Tensor) -> Tensor:
    """In the central compartment, amount/L, (patients, times)."""
    found, layout, begin = _solved(course, times)
    level = found[layout.central] / _volume(course, times)
    return torch.where(times < begin, 0.0, level)


def areas(course: Course, times: Tensor) -> Tensor:
    """Under the concentration from hour 0, h x amount/L, (patients, times)."""
    asked = torch.cat([torch.zeros_like(times[:, :1]), times], 1)
    found, layout, begin = _solved(course, asked)
    area = torch.where(asked < begin, 0.0, found[layout.area])
    return area[:, 1:] - area[:, :1]


def without_steady_state(course: Course) -> dict[int, Problem]:
    """By place, every patient whose steady state cannot exist at these parameters."""
    if not saturates(course) or _has_clearance(course):
        return {}
    rate, largest = _rate(course), course.parameters["maximal_elimination_rate"][:, 0]
    unit = course.card.amount_unit
    return {
        place: Problem(
            field="doses at steady state",
            value=f"{float(rate[place]):.4g}",
            unit=f"{unit}/h",
            allowed=f"below the largest elimination of {float(largest[place]):.4g}",
            remedy="no steady state exists: give less, or write the doses out one by one",
        )
        for place in (rate >= largest).nonzero()[:, 0].tolist()
    }


@dataclass(frozen=True, slots=True)
class _Layout:
    """Places of the states: stages of each route, then the compartments, then the area."""

    routes: tuple[tuple[int, int, str], ...]
    central: int
    peripheral: int | None
    area: int
    linear: bool

    @property
    def into(self) -> tuple[int, ...]:
        """Where each route's doses go in."""
        return tuple(first if count else self.central for first, count, _ in self.routes)


def _layout(course: Course) -> _Layout:
    routes, place = [], 0
    for route in course.card.routes:
        count = {"first_order": 1, "transit": route.compartments or 1}.get(route.input, 0)
        routes.append((place, count, route.rate or ""))
        place += count
    two = "peripheral_volume" in SATURABLE[course.card.disposition]
    return _Layout(
        routes=tuple(routes),
        central=place,
        peripheral=place + 1 if two else None,
        area=place + 1 + int(two),
        linear=_has_clearance(course),
    )


def _has_clearance(course: Course) -> bool:
    return "clearance" in SATURABLE[course.card.disposition]


def _change(layout: _Layout) -> RightSide:
    def change(hours: Tensor, states: States, by: Values) -> States:
        del hours
        level = states[layout.central] / by["central_volume"]
        lost = michaelis_menten(
            level, by["maximal_elimination_rate"], by["half_saturation_concentration"]
        )
        if layout.linear:
            lost = lost + by["clearance"] * level
        found: list[Tensor] = []
        gained = -lost
        for first, count, name in layout.routes:
            before = torch.zeros_like(level)
            for stage in states[first : first + count]:
                passed = by[name] * stage
                found.append(before - passed)
                before = passed
            gained = gained + before
        if layout.peripheral is not None:
            flow = by["intercompartmental_clearance"]
            exchanged = flow * (level - states[layout.peripheral] / by["peripheral_volume"])
            return (*found, gained - exchanged, exchanged, level)
        return (*found, gained, level)

    return change


def _solved(course: Course, times: Tensor) -> tuple[States, _Layout, Tensor]:
    """The states at asked times, where each stands, and when each patient begins, (patients, 1)."""
    layout = _layout(course)
    doses, start = _with_steady_states(course, layout)
    begin = _first(doses)
    rule = course.card.covariate_rule
    order = Order(
        dose_first=course.card.record_order == "dose_before_observation",
        change_first=rule == "last_forward",
    )
    system = _system(course, layout, start, float(begin.max()), order)
    found = solve(system, doses, times.maximum(begin), _fastest(course.parameters, layout))
    return found, layout, begin


def _system(course: Course, layout: _Layout, start: States, since: float, order: Order) -> System:
    starts = course.traits.starts
    return System(
        right_side=_change(layout),
        start=start,
        values=course.parameters,
        into=layout.into,
        routes=_routes(course),
        starts=starts if starts.shape[1] > 1 else None,
        since=since,
        order=order,
    )


def _first(doses: Doses) -> Tensor:
    """When the first dose is given, h, (patients, 1); 0 if there is none."""
    given = torch.where(doses.amount > 0, doses.time, torch.inf)
    begin = torch.cat([given, torch.full_like(given[:, :1], torch.inf)], 1)
    if not given.shape[1]:
        begin = given.new_full((given.shape[0], 1), torch.inf)
    begin = begin.amin(1, keepdim=True)
    return torch.where(begin == torch.inf, 0.0, begin)


def _routes(course: Course) -> tuple[Route, ...]:
    by = course.parameters
    return tuple(
        Route(
            bioavailability=_fraction(course, place),
            lag=None if route.lag is None else by[route.lag],
            duration=None if route.duration is None else by[route.duration],
        )
        for place, route in enumerate(course.card.routes)
    )


def _fraction(course: Course, place: int) -> Tensor:
    route = course.card.routes[place]
    scale = torch.full_like(course.parameters["central_volume"], route.dose_scale)
    if route.bioavailability is None:
        return scale
    return scale * course.parameters[route.bioavailability]


def _volume(course: Course, times: Tensor) -> Tensor:
    """In force at each time, (patients, times)."""
    volume, starts = course.parameters["central_volume"], course.traits.starts
    if volume.shape[1] == 1:
        return volume
    places = torch.searchsorted(
        starts.contiguous(),
        times.detach().contiguous(),
        right=course.card.covariate_rule == "last_forward",
    )
    return volume.gather(1, places.sub(1).clamp(min=0))


def _fastest(by: Values, layout: _Layout) -> Tensor:
    """1/h, a bound of every rate."""
    out = by["maximal_elimination_rate"] / by["half_saturation_concentration"]
    if layout.linear:
        out = out + by["clearance"]
    rates = [by[name].max() for _, count, name in layout.routes if count]
    if layout.peripheral is not None:
        flow = by["intercompartmental_clearance"]
        out = out + flow
        rates.append((flow / by["peripheral_volume"]).max())
    return torch.stack([(out / by["central_volume"]).max(), *rates]).max().detach()


def _rates(course: Course) -> list[Tensor]:
    """What each route brings on average at steady state, amount/h, each (patients,)."""
    doses = course.doses
    repeated = doses.interval > 0
    rate = torch.where(repeated, doses.amount / torch.where(repeated, doses.interval, 1.0), 0.0)
    return [
        (rate * (doses.route == place)).sum(1) * _fraction(course, place)[:, 0]
        for place in range(len(course.card.routes))
    ]


def _rate(course: Course) -> Tensor:
    """All that comes in on average at steady state, amount/h, (patients,)."""
    return torch.stack(_rates(course)).sum(0)


def _with_steady_states(course: Course, layout: _Layout) -> tuple[Doses, States]:
    """Doses with steady states written out, and what is in the body when the first is given."""
    empty = torch.zeros_like(course.parameters["central_volume"][:, 0])
    nothing = (empty,) * (layout.area + 1)
    doses = course.doses
    if not bool((doses.interval > 0).any()):
        return doses, nothing
    if not _steady_comes_first(doses):
        return course.written_doses, nothing
    return written_out(doses, SETTLING), _steady(course, layout)


def _steady_comes_first(doses: Doses) -> bool:
    """Whether everybody's steady state has one interval, and nothing is given before it."""
    repeated = doses.interval > 0
    longest = doses.interval.amax(1, keepdim=True)
    one = ~repeated | (doses.interval == longest)
    trains = torch.where(repeated, doses.time - RUN_IN * doses.interval, torch.inf)
    others = torch.where(repeated | (doses.amount == 0), torch.inf, doses.time)
    first = trains.amin(1) <= others.amin(1)
    return bool(one.all()) and bool((first | ~repeated.any(1)).all())


def _steady(course: Course, layout: _Layout) -> States:
    """What is in the body before a dose of the steady state, each (patients,); 0 without one.

    Some intervals are stepped through, from the mean level at first. What is then left of the way
    is that of a sequence which comes nearer by the same part each time (Aitken 1926, Proc R Soc
    Edinb 46:289), and from there the same again.
    """
    doses = course.doses
    repeated = doses.interval > 0
    period = doses.interval.amax(1, keepdim=True)
    alone = replace(
        doses,
        time=torch.where(repeated, doses.time, torch.inf),
        amount=torch.where(repeated, doses.amount, 0.0),
    )
    written = written_out(alone, SETTLING)
    begin = _first(written)
    asked = begin + period * torch.arange(SETTLING + 1, dtype=begin.dtype, device=begin.device)
    fastest = _fastest(course.parameters, layout)
    most, start = alone.amount.sum(1) * RUN_IN, _near(course, layout)
    for _ in range(ROUNDS):
        system = _system(course, layout, start, float(begin.max()), Order())
        states = solve(system, written, asked, fastest)
        ahead = _intervals_ahead(states[layout.central])
        start = tuple(_limited(state, ahead, most) for state in states)
        start = (*start[: layout.area], torch.zeros_like(most))
    known = repeated.any(1)
    return tuple(torch.where(known, one, 0.0) for one in start)


def _intervals_ahead(central: Tensor) -> Tensor:
    """How many of the last interval's changes are still to come, (patients,)."""
    two, one, last = (central[:, place] for place in (-3, -2, -1))
    before, now = one - two, last - one
    still = (now.abs() <= ARRIVED * last.abs()) | (before == 0)
    slower = torch.where(still, 0.0, now / torch.where(still, 1.0, before))
    nearer = slower < FARTHEST / (1.0 + FARTHEST)
    found = torch.where(nearer, slower / torch.where(nearer, 1.0 - slower, 1.0), FARTHEST)
    return found.clamp(min=0.0)


def _limited(state: Tensor, ahead: Tensor, most: Tensor) -> Tensor:
    """The state in the long run, (patients,): not below 0, nor above what was given in all."""
    last = state[:, -1]
    return torch.minimum((last + ahead * (last - state[:, -2])).clamp(min=0.0), most)


def _near(course: Course, layout: _Layout) -> States:
    """Mean amounts at steady state, each (patients,)."""
    by = {name: one[:, 0] for name, one in course.parameters.items()}
    level = _steady_level(course, by)
    found: list[Tensor] = []
    for rate, (_, count, name) in zip(_rates(course), layout.routes, strict=True):
        found += [rate / by[name]] * count if count else []
    found.append(level * by["central_volume"])
    if layout.peripheral is not None:
        found.append(level * by["peripheral_volume"])
    return (*found, torch.zeros_like(level))


def _steady_level(course: Course, by: Values) -> Tensor:
    """At which elimination equals the mean input, or what was given in all if that is less."""
    rate, doses = _rate(course), course.doses
    largest, half = by["maximal_elimination_rate"], by["half_saturation_concentration"]
    given = torch.where(doses.interval > 0, doses.amount, 0.0).sum(1) * RUN_IN
    most = given / by["central_volume"]
    if _has_clearance(course):
        # CL C^2 + (Vmax + CL Km - R) C - R Km = 0, without cancellation
        linear = largest + by["clearance"] * half - rate
        root = (linear**2 + 4.0 * by["clearance"] * rate * half).sqrt()
        ahead = 2.0 * rate * half / (linear + root)
        behind = (root - linear) / (2.0 * by["clearance"])
        return torch.minimum(torch.where(linear > 0, ahead, behind), most)
    left = largest - rate
    exists = left * most > half * rate
    return torch.where(exists, half * rate / torch.where(exists, left, 1.0), most)
