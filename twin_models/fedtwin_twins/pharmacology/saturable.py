"""Elimination that saturates, with absorption of any kind (Michaelis and Menten 1913).

With C = A/V, A in the central compartment and W what still waits at the places of absorption:

    d(A + W)/dt = inputs - (CL C + Vmax C / (Km + C)) - Q (C - A2/V2)
    dA2/dt = Q (C - A2/V2)

Absorption does not depend on what follows it: W is exact over every step (chains of stages of one
rate, filled at once or at a constant rate), and only A + W and A2 are stepped, by Runge and
Kutta's method. So steps follow the elimination, however fast the absorption is.

Elimination of this form in patients: Ludden et al., Clin Pharmacol Ther 1977;21:287 (phenytoin).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.kinetics.advancing import Advancing
from fedtwin_twins.kinetics.events import Route, at_spans, span_places
from fedtwin_twins.kinetics.fixed_step import solve
from fedtwin_twins.kinetics.systems import States, System, michaelis_menten, written_out
from fedtwin_twins.pharmacology.card_kinetics import order_of, route_of, stages_of
from fedtwin_twins.pharmacology.course import Course
from fedtwin_twins.pharmacology.saturable_rhythm import clipped, rhythm_of, steady_start
from fedtwin_twins.pharmacology.saturable_steady_state import balance, run_in, settled_share
from fedtwin_twins.twin.batch import Doses

_FINE: Final = 0.25
"""Step x fastest rate of what is stepped."""
_FINE_INPUT: Final = 1.0
"""Step x rate of absorption: exact itself, but its course within a step must be seen."""
_AT_ONCE: Final = 100.0
"""Absorption so many times faster than elimination needs no shorter steps: what a step gets wrong
of the elimination meanwhile, a sixth of it at most, is below 2 in 1,000 of a dose."""
_RISE: Final = 0.5
"""Of the half-saturating level, by which an infusion may raise the level within a step."""
_MOST_PARTS: Final = 10
"""Steps of an infusion that are asked for by that."""
_CENTRAL, _TISSUE, _OTHERS = 0, 1, 2

Values = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Chain:
    """Absorption by one route.

    Attributes:
        route: its place.
        first: the place of the state that its doses enter.
        stages: how many states, one after the other.
        rate: name of the parameter.
    """

    route: int
    first: int
    stages: int
    rate: str


def saturable_concentration(course: Course, times: Tensor) -> Tensor:
    """In the central compartment, amount/L, (patients, times).

    A steady state is that of an interval which ends as it began. Where it would be reached only
    after months, or never, it is what some months of doses lead to (see `settled_share`).

    Raises:
        Refusal: as `fixed_step.solve`.
    """
    if not bool((course.doses.interval > 0).any()):
        return _concentration(course, times, course.doses)[0]
    share = settled_share(course.card, course.doses, course.parameters)
    found = torch.zeros_like(times)
    quick = (share > 0.0).nonzero()[:, 0]
    if len(quick):
        some = course.where(quick)
        steady, settled = _concentration(some, times[quick], some.doses)
        share = share.index_put((quick,), share[quick] * settled)
        found = found.index_put((quick,), steady)
    slow = (share < 1.0).nonzero()[:, 0]
    if len(slow):
        some = course.where(slow)
        written = written_out(some.doses, run_in(course.doses))
        months = _concentration(some, times[slow], written)[0]
        part = share[slow, None]
        mixed = torch.where(part > 0.0, part * found[slow] + (1.0 - part) * months, months)
        found = found.index_put((slow,), mixed)
    return found


def _concentration(course: Course, times: Tensor, doses: Doses) -> tuple[Tensor, Tensor]:
    """The same by doses as they are, and whose steady state was found, (patients,)."""
    chains, into, routes = _ways_in(course)
    by = {name: one for name, one in course.parameters.items() if name in _read(chains)}
    fastest = _fastest(by)
    empty = torch.zeros_like(course.traits.starts[:, 0])
    system = System(
        right_side=_stepped_otherwise,
        start=(empty,) * (_OTHERS + sum(one.stages for one in chains)),
        values=by,
        into=into,
        routes=routes,
        starts=course.traits.starts if course.traits.starts.shape[1] > 1 else None,
        since=_begins(doses),
        order=order_of(course.card),
    )
    solved = partial(
        _solved,
        fastest=fastest,
        step_h=_longest(by, chains, fastest),
        by=Advancing(partial(_step, chains, into), numbers=True),
    )
    begins, settled = torch.full_like(times[:, :1], system.since), times[:, 0] == times[:, 0]
    if bool((doses.interval > 0).any()):
        rhythm = rhythm_of(doses, course.traits.starts, routes)
        guess = balance(course.card, course.doses, course.parameters)
        start, settled = steady_start(
            system, doses, rhythm, guess, solved, partial(_absorbed, chains)
        )
        begins = torch.where(rhythm.period > 0, rhythm.begin, begins)
        system = clipped(system, start, rhythm)
        doses = written_out(doses, rhythm.before)
    asked = times.maximum(begins)
    states = solved(system, doses, asked)
    volume = at_spans(by["central_volume"], span_places(course.traits.starts, times))
    return torch.where(times < begins, 0.0, states[_CENTRAL] / volume), settled


def _solved(
    system: System,
    doses: Doses,
    times: Tensor,
    *,
    fastest: float,
    step_h: float,
    by: Advancing,
) -> States:
    """As `fixed_step.solve`, with steps that also end within every infusion that saturates."""
    stops = _stops(system, doses).minimum(times.amax(dim=1, keepdim=True))
    asked = torch.cat([times, stops.expand(len(times), -1)], dim=1)
    states = solve(system, doses, asked, fastest, step_h=step_h, by=by)
    return tuple(one[:, : times.shape[1]] for one in states)


def _stops(system: System, doses: Doses) -> Tensor:
    """Hours within infusions at which a step must end, (patients, stops).

    A level that rises through the half-saturating one within a single step would be eliminated
    by a few parts in a hundred too much or too little meanwhile.
    """
    with torch.no_grad():
        first = {name: one[:, :1] for name, one in system.values.items()}
        size = first["central_volume"] * first["half_saturation_concentration"]
        found = []
        for number, route in enumerate(system.routes):
            lasting = doses.duration
            if route.duration is not None:
                lasting = route.duration[:, :1].expand_as(lasting)
            runs = (doses.route == number) & (lasting > 0) & (system.into[number] == _CENTRAL)
            rise = torch.where(runs, doses.amount / size, 0.0)
            parts = min(_MOST_PARTS, math.ceil(float(rise.amax()) / _RISE)) if rise.numel() else 0
            lag = 0.0 if route.lag is None else route.lag[:, :1]
            begin = torch.where(runs, doses.time + lag, torch.inf)
            found += [begin + lasting * part / parts for part in range(1, parts)]
        return torch.cat(found, dim=1) if found else doses.time[:, :0]


def _begins(doses: Doses) -> float:
    """h, no later than any dose."""
    given = doses.time[doses.amount > 0]
    return min(0.0, float(given.min())) if given.numel() else 0.0


def _longest(by: Values, chains: Sequence[_Chain], fastest: float) -> float:
    """h, of a step."""
    absorbing = max((float(by[one.rate].detach().max()) for one in chains), default=0.0)
    absorbing = min(absorbing, _AT_ONCE * fastest)
    return min(_FINE / fastest, _FINE_INPUT / absorbing if absorbing else math.inf)


def _absorbed(chains: Sequence[_Chain], left: Tensor, by: Values, period: Tensor) -> Tensor:
    """What waits at steady state, (patients, stages), see `steady_start`.

    A stage holds what one period leaves in it, and e^-x x^i/i! of what each stage i before it
    held (x the rate times the period).
    """
    found: list[Tensor] = []
    for chain in chains:
        x = (by[chain.rate] * period)[:, 0]
        weights = [torch.exp(-x)]
        for stage in range(1, chain.stages):
            weights.append(weights[-1] * x / stage)
        held: list[Tensor] = []
        for stage in range(chain.stages):
            amount = left[:, chain.first - _OTHERS + stage]
            for back in range(1, stage + 1):
                amount = amount + weights[back] * held[stage - back]
            held.append(amount / (1.0 - weights[0]))
        found += held
    return torch.stack(found, dim=1) if found else left


def _stepped_otherwise(hours: Tensor, states: States, values: Values) -> States:
    raise NotImplementedError("absorption is exact here: see _step")


def _ways_in(course: Course) -> tuple[list[_Chain], tuple[int, ...], tuple[Route, ...]]:
    """Chains of absorption, the state that each route's doses enter, and the routes."""
    chains: list[_Chain] = []
    into, routes = [], []
    place = _OTHERS
    for number, one in enumerate(course.card.routes):
        found, stages = route_of(one, course.parameters), stages_of(one)
        routes.append(
            Route(bioavailability=found.bioavailability, lag=found.lag, duration=found.duration)
        )
        into.append(place if stages else _CENTRAL)
        if one.rate is not None:
            chains.append(_Chain(number, place, stages, one.rate))
            place += stages
    return chains, tuple(into), tuple(routes)


def _read(chains: Sequence[_Chain]) -> set[str]:
    names = {"largest_elimination", "half_saturation_concentration", "central_volume"}
    names |= {"clearance", "intercompartmental_clearance", "peripheral_volume"}
    return names | {one.rate for one in chains}


def _fastest(by: Values) -> float:
    """A bound of the rates at which amounts in the body change by themselves, 1/h."""
    out = by["largest_elimination"] / by["half_saturation_concentration"]
    if "clearance" in by:
        out = out + by["clearance"]
    rate = out / by["central_volume"]
    if "peripheral_volume" in by:
        flow = by["intercompartmental_clearance"]
        rate = rate + flow / by["central_volume"] + flow / by["peripheral_volume"]
    return float(rate.detach().max())


def _step(
    chains: Sequence[_Chain],
    into: Sequence[int],
    hours: Tensor,
    width: Tensor | float,
    states: States,
    by: Values,
    inflow: tuple[Tensor, ...] | None,
) -> States:
    """One step: absorption exactly, what is in the body by Runge and Kutta's method."""
    del hours
    half = width / 2
    waiting = [
        states[_OTHERS:],
        _absorption(chains, states, by, half, inflow),
        _absorption(chains, states, by, width, inflow),
    ]
    begun, mid, done = (sum(one) if one else 0.0 for one in waiting)
    entering = 0.0 if inflow is None else sum(inflow)
    central, tissue = states[_CENTRAL], states[_TISSUE]
    total = central + begun
    first = _changes(central, tissue, by, entering)
    second = _changes(total + half * first[0] - mid, tissue + half * first[1], by, entering)
    third = _changes(total + half * second[0] - mid, tissue + half * second[1], by, entering)
    last = _changes(total + width * third[0] - done, tissue + width * third[1], by, entering)
    sixth = width / 6
    after = total + sixth * (first[0] + 2 * (second[0] + third[0]) + last[0]) - done
    if "peripheral_volume" in by:
        tissue = tissue + sixth * (first[1] + 2 * (second[1] + third[1]) + last[1])
    return (after, tissue, *waiting[-1])


def _changes(
    central: Tensor, tissue: Tensor, by: Values, entering: Tensor | float
) -> tuple[Tensor, Tensor | float]:
    """By how much A + W and A2 change, amount/h."""
    level = central / by["central_volume"]
    out = michaelis_menten(level, by["largest_elimination"], by["half_saturation_concentration"])
    if "clearance" in by:
        out = out + by["clearance"] * level
    if "peripheral_volume" not in by:
        return entering - out, 0.0
    moved = by["intercompartmental_clearance"] * (level - tissue / by["peripheral_volume"])
    return entering - out - moved, moved


def _absorption(
    chains: Sequence[_Chain],
    states: States,
    by: Values,
    size: Tensor | float,
    inflow: tuple[Tensor, ...] | None,
) -> States:
    """What waits in every stage after so many hours.

    With x = k t, stage j of a chain of rate k holds e^-x times the sum over i of what was i stages
    before it times x^i/i!, and of a constant inflow r the part r/k (1 - e^-x sum of x^i/i!).
    """
    found: list[Tensor] = []
    for chain in chains:
        rate = by[chain.rate]
        x = rate * size
        left = torch.exp(-x)
        weights = [left]
        for stage in range(1, chain.stages):
            weights.append(weights[-1] * x / stage)
        held = states[chain.first : chain.first + chain.stages]
        for stage in range(chain.stages):
            amount = held[stage] * weights[0]
            for back in range(1, stage + 1):
                amount = amount + held[stage - back] * weights[back]
            if inflow is not None:
                gone = sum(weights[: stage + 1])
                amount = amount + inflow[chain.route] / rate * (1.0 - gone)
            found.append(amount)
    return tuple(found)
