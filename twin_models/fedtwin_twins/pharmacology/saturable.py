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
from fedtwin_twins.pharmacology.saturable_steady_state import run_in

_FINE: Final = 0.25
"""Step x fastest rate of what is stepped."""
_FINE_INPUT: Final = 1.0
"""Step x rate of absorption: exact itself, but its course within a step must be seen."""
_AT_ONCE: Final = 100.0
"""Absorption so many times faster than elimination needs no shorter steps: what a step gets wrong
of the elimination meanwhile, a sixth of it at most, is below 2 in 1,000 of a dose."""
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

    Raises:
        Refusal: as `fixed_step.solve`.
    """
    chains, into, routes = _ways_in(course)
    by = {name: one for name, one in course.parameters.items() if name in _read(chains)}
    doses = written_out(course.doses, run_in(course.doses))
    given = doses.time[doses.amount > 0]
    begins = min(0.0, float(given.min())) if given.numel() else 0.0
    fastest = _fastest(by)
    absorbing = max((float(by[one.rate].detach().max()) for one in chains), default=0.0)
    absorbing = min(absorbing, _AT_ONCE * fastest)
    longest = min(_FINE / fastest, _FINE_INPUT / absorbing if absorbing else math.inf)
    empty = torch.zeros_like(course.traits.starts[:, 0])
    system = System(
        right_side=_stepped_otherwise,
        start=(empty,) * (_OTHERS + sum(one.stages for one in chains)),
        values=by,
        into=into,
        routes=routes,
        starts=course.traits.starts if course.traits.starts.shape[1] > 1 else None,
        since=begins,
        order=order_of(course.card),
    )
    advancing = Advancing(partial(_step, chains, into), numbers=True)
    asked = times.clamp(min=begins)
    states = solve(system, doses, asked, fastest, step_h=longest, by=advancing)
    volume = at_spans(by["central_volume"], span_places(course.traits.starts, times))
    return torch.where(times < begins, 0.0, states[_CENTRAL] / volume)


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
