"""The steady state of doses that saturate the elimination: an interval that ends as it began.

With P the states after one period of the doses as a function of those before it, the steady state
is where y = P(y). What waits at the places of absorption is linear, and known at once; amounts in
the body are found by Broyden's method (Math Comput 1965;19:577) from the level at which doses and
elimination are in balance on average.

Derivatives are those of the fixed point, not of the way to it: with A = (1 - dP/dy)^-1 held
constant, one pass y + A (P(y) - y) carries first derivatives by parameters exactly, and a second
one the second derivatives, too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, cast

import torch
from torch import Tensor

from fedtwin_twins.kinetics.events import (
    OBSERVATION_FIRST,
    Entered,
    Route,
    at_spans,
    entered,
    of_rows,
    span_places,
)
from fedtwin_twins.kinetics.systems import States, System, written_out
from fedtwin_twins.twin.batch import Doses

_ITERATIONS: Final = 40
_ARRIVED: Final = 1e-10
"""Parts of the amount in the body that an interval may end apart from where it began."""
_NUDGE: Final = 1e-6
"""Parts of the amount in the body by which states are moved for differences."""
_IDLE: Final = 1e-12
"""A state whose changes are smaller for every nudge is not changed by them."""
_DIVIDES: Final = 1e-6
"""h that an interval may be off a part of the period."""

Solve = Callable[[System, Doses, Tensor], States]
"""States of a system with its doses at times, each (patients, times)."""
Absorbed = Callable[[Tensor, Mapping[str, Tensor], Tensor], Tensor]
"""What waits at steady state, (patients, stages), from what is left of one period's doses after
it, likewise, the values in force, and the period, h, (patients, 1)."""


@dataclass(frozen=True, kw_only=True)
class Clipped(System):
    """A system whose doses before some hour have been: what they still run in, runs on.

    Attributes:
        clip: h, (patients, 1); -infinity where nothing is clipped.
    """

    clip: Tensor

    def some(self, rows: slice) -> "Clipped":
        """Of some of the patients."""
        cut = cast(Clipped, System.some(self, rows))
        return replace(cut, clip=of_rows(self.clip, rows))

    def events(self, doses: Doses) -> list[Entered]:
        """What comes in from that hour on.

        Raises:
            Refusal: as `entered`.
        """
        return [self._later(one) for one in entered(doses, self.routes, self.span_starts())[0]]

    def _later(self, one: Entered) -> Entered:
        if one.amount is None:
            return Entered(one.time.maximum(self.clip), one.route, inflow=one.inflow)
        amount = torch.where(one.time < self.clip, 0.0, one.amount)
        return Entered(one.time.maximum(self.clip), one.route, amount=amount, inflow=one.inflow)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rhythm:
    """The period of each patient's steady state.

    Attributes:
        begin: h, (patients, 1), of a period after which nothing but its doses happens for one
            period; -infinity without a steady state.
        period: h, (patients, 1); 0 without.
        even: whose doses all return with the period, (patients,); true without a steady state.
        before: doses to write out before each, so that all that still matters is there.
    """

    begin: Tensor
    period: Tensor
    even: Tensor
    before: int


def rhythm_of(doses: Doses, starts: Tensor, routes: tuple[Route, ...]) -> Rhythm:
    """When the doses of each patient return.

    Args:
        doses: (patients, doses).
        starts: of spans of parameters, h, (patients, spans).
        routes: with their lags and durations.
    """
    repeated = doses.interval > 0
    some = repeated.any(dim=1, keepdim=True)
    period = doses.interval.amax(dim=1, keepdim=True)
    interval = torch.where(repeated, doses.interval, torch.inf)
    parts = torch.where(repeated, period / interval, 1.0)
    even = ((parts - parts.round()).abs() * interval.nan_to_num(posinf=0.0) <= _DIVIDES).all(dim=1)
    last = torch.where(repeated, doses.time, torch.inf).amin(dim=1, keepdim=True)
    single = torch.where(~repeated & (doses.amount > 0), doses.time, torch.inf)
    changes = torch.where(starts[:, 1:] > -torch.inf, starts[:, 1:], torch.inf)
    other = torch.cat([single, changes.expand(len(single), -1), last], 1).amin(1, keepdim=True)
    safe = torch.where(some, period, 1.0)
    periods = 1.0 + torch.where(some, ((last - other) / safe).ceil(), 0.0)
    begin = torch.where(some, last - periods * safe, -torch.inf)
    slow = torch.zeros((), dtype=doses.time.dtype)
    if doses.duration.numel():
        slow = doses.duration.max()
    for route in routes:
        for one in (route.lag, route.duration):
            if one is not None:
                slow = slow + one.detach().max()
    # Counted from the latest of them, which may be given some time after the first.
    late = torch.where(repeated, doses.time - begin, 0.0) + slow
    count = torch.where(repeated, late / interval, 0.0).ceil()
    return Rhythm(begin=begin, period=period, even=even, before=int(count.max()) + 1)


def clipped(system: System, start: States, rhythm: Rhythm) -> Clipped:
    """The system from each patient's period of a steady state on, with the states then."""
    parts = {one.name: getattr(system, one.name) for one in fields(System)}
    begin = rhythm.begin
    # Who has a steady state must not begin before it; who has none begins with the first dose.
    since = max(system.since, float(torch.where(begin > -torch.inf, begin, system.since).max()))
    return Clipped(**{**parts, "start": start, "since": since}, clip=begin)


def steady_start(
    system: System, doses: Doses, rhythm: Rhythm, guess: States, solve: Solve, absorbed: Absorbed
) -> tuple[States, Tensor]:
    """The states with which each patient's steady state begins a period.

    Args:
        system: equations and start (at rest), each (patients,).
        doses: as recorded.
        rhythm: of these.
        guess: amounts in the body, each (patients,): the first of the states.
        solve: the equations.
        absorbed: the states after the amounts in the body, at steady state.

    Returns:
        each state, (patients,), at rest where there is no steady state; and whose was found.
    """
    found = torch.ones_like(rhythm.even)
    rows = (rhythm.period[:, 0] > 0).nonzero()[:, 0]
    if not len(rows):
        return system.start, found
    period = _period(system, doses, rhythm, rows, solve)
    with torch.no_grad():
        empty = torch.zeros((len(rows), len(system.start)), dtype=rhythm.period.dtype)
        left = period.states(empty)[:, len(guess) :]
        waiting = absorbed(left, period.system.values, period.length)
        body = torch.stack([one[rows] for one in guess], dim=1)
        states, found[rows] = _settled(period, body, waiting)
    if torch.is_grad_enabled():
        # Differences of all states at once: they are few, and so are the patients.
        steep = _slopes(period, states, states.shape[1])
        bent = _bent(steep)
        for _ in range(2):
            states = states + (bent @ (period.states(states) - states)[:, :, None])[:, :, 0]
    start = []
    for number, rest in enumerate(system.start):
        whole = rest.expand(len(found)).clone()
        whole[rows] = states[:, number]
        start.append(whole)
    return tuple(start), found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Period:
    """One period of some patients.

    Attributes:
        system: with the values in force then.
        doses: those of the steady state alone, written out.
        length: h, (patients, 1).
        until: h, (patients, 1), its end.
        solve: the equations.
    """

    system: Clipped
    doses: Doses
    length: Tensor
    until: Tensor
    solve: Solve

    def states(self, before: Tensor) -> Tensor:
        """After the period, from before it, both (patients, states)."""
        start = tuple(before.unbind(dim=1))
        after = self.solve(replace(self.system, start=start), self.doses, self.until)
        return torch.cat(after, dim=1)

    def repeated(self, times: int) -> "_Period":
        """Every patient `times` times in a row."""
        if times == 1:
            return self

        def many(values: Tensor) -> Tensor:
            return values.repeat_interleave(times, dim=0)

        system = replace(
            self.system,
            values={name: many(one) for name, one in self.system.values.items()},
            routes=tuple(_route(one, many) for one in self.system.routes),
            clip=many(self.system.clip),
        )
        doses = Doses(**{one.name: many(getattr(self.doses, one.name)) for one in fields(Doses)})
        return replace(
            self, system=system, doses=doses, length=many(self.length), until=many(self.until)
        )


def _route(route: Route, change: Callable[[Tensor], Tensor]) -> Route:
    parts = {
        name: None if one is None else change(one)
        for name in ("rate", "bioavailability", "lag", "duration")
        for one in (getattr(route, name),)
    }
    return Route(stages=route.stages, **parts)


def _period(system: System, doses: Doses, rhythm: Rhythm, rows: Tensor, solve: Solve) -> _Period:
    """Of those who have one, with the values in force when it begins."""
    begin = rhythm.begin[rows]
    starts = system.span_starts().expand(len(rhythm.even), -1)[rows]
    places = span_places(starts, begin)

    def then(values: Tensor) -> Tensor:
        return at_spans(values.expand(len(rhythm.even), -1)[rows], places)

    own = Doses(**{one.name: getattr(doses, one.name)[rows] for one in fields(Doses)})
    only = replace(own, amount=torch.where(own.interval > 0, own.amount, 0.0))
    return _Period(
        system=Clipped(
            right_side=system.right_side,
            start=system.start,
            values={name: then(one) for name, one in system.values.items()},
            into=system.into,
            routes=tuple(_route(one, then) for one in system.routes),
            since=float(begin.max()),
            order=OBSERVATION_FIRST,
            clip=begin,
        ),
        doses=written_out(only, rhythm.before),
        length=rhythm.period[rows],
        until=begin + rhythm.period[rows],
        solve=solve,
    )


def _slopes(period: _Period, states: Tensor, count: int) -> Tensor:
    """dP/dy by differences of the first states, (patients, count, count)."""
    with torch.no_grad():
        many = period.repeated(count + 1)
        nudge = _NUDGE * states[:, :count].sum(dim=1).clamp(min=1e-9)
        moved = states[:, None].repeat(1, count + 1, 1)
        for place in range(count):
            moved[:, place, place] += nudge
        after = many.states(moved.flatten(0, 1)).view(moved.shape)[:, :, :count]
        return ((after[:, :count] - after[:, count:]) / nudge[:, None, None]).mT


def _bent(steep: Tensor) -> Tensor:
    """(1 - dP/dy)^-1; a state that nothing moves (of a compartment that is not there) stays."""
    apart = torch.eye(steep.shape[1], dtype=steep.dtype) - steep
    idle = (apart.abs() < _IDLE).all(dim=2)
    found: Tensor = torch.linalg.inv(apart + torch.diag_embed(idle.to(apart.dtype)))
    return found


def _settled(period: _Period, body: Tensor, waiting: Tensor) -> tuple[Tensor, Tensor]:
    """The states that come back, (patients, states), and whose were found."""
    count = body.shape[1]

    def apart(amounts: Tensor) -> Tensor:
        return period.states(torch.cat([amounts, waiting], dim=1))[:, :count] - amounts

    steep = _slopes(period, torch.cat([body, waiting], dim=1), count)
    inverse = _bent(steep)
    off = apart(body)
    done = torch.zeros(len(body), dtype=torch.bool)
    for _ in range(_ITERATIONS):
        done = off.abs().amax(dim=1) <= _ARRIVED * body.sum(dim=1)
        if bool(done.all()):
            break
        # No amount is below 0, nor does one step empty the body.
        after = (body + (inverse @ off[:, :, None])[:, :, 0]).maximum(0.1 * body)
        moved = after - body
        new = apart(after)
        turned = (inverse @ (off - new)[:, :, None])[:, :, 0]
        along = (moved[:, None] @ inverse)[:, 0]
        weight = (along * (off - new)).sum(dim=1)
        weight = torch.where(weight.abs() > 0, 1.0 / weight, 0.0)[:, None, None]
        inverse = inverse + weight * (moved - turned)[:, :, None] * along[:, None]
        body, off = after, new
    return torch.cat([body, waiting], dim=1), done & body.isfinite().all(dim=1)
