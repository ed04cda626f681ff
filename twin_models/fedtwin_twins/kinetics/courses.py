"""A patient's history as states, one after each event, by recursion: each follows from the last.

What a dose does is never summed over all doses anew: a state holds all that its past matters.
Amounts are what is kept where parameters change; concentrations jump with the volume.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtwin_twins.kinetics.additions import Added, additions, each
from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import (
    Order,
    Route,
    alike,
    at_spans,
    doses_of_rows,
    entered,
    of_rows,
    span_places,
)
from fedtwin_twins.kinetics.medium import Medium, Rows
from fedtwin_twins.kinetics.passages import Chain, Passage, State, delivered, moved
from fedtwin_twins.kinetics.stepping import steps
from fedtwin_twins.twin.batch import Doses

FEW = 256
"""Up to so many patients, a step is a matrix: one call costs more than its numbers."""


@dataclass(frozen=True, slots=True)
class Course:
    """States after each event.

    Attributes:
        time: h, (patients, events), ascending; the first is no event, but where the course begins;
            (1, events) if it is the same for all.
        state: each tensor (patients, events).
        medium: in force after each event.
        areas: h x reading, (patients, events), by reading: what has been gathered until then.
        changes: h, (patients, changes), when parameters change.
        amounts: whether amounts are read, instead of the concentration.
    """

    time: Tensor
    state: State
    medium: Medium
    areas: tuple[Tensor, ...]
    changes: Tensor
    amounts: bool

    def places(self, times: Tensor, order: Order) -> Tensor:
        """The last event that counts at each asked time, (patients, times); (1, times) for all."""
        known = self.time.detach()
        asked = times.detach().contiguous()
        if known.shape[0] == 1:
            known = known[0]
        elif asked.shape[0] == 1:
            asked = asked.expand(known.shape[0], -1).contiguous()
        count = torch.searchsorted(known, asked, right=order.dose_first)
        if order.change_first and not order.dose_first and self.changes.shape[1]:
            changes = self.changes.expand(asked.shape[0], -1).contiguous()
            count += torch.searchsorted(changes, asked, right=True)
            count -= torch.searchsorted(changes, asked)
        return count.sub_(1).clamp_(min=0)

    def some(self, rows: slice) -> "Course":
        """Of some of the patients."""

        def cut(values: Tensor) -> Tensor:
            return of_rows(values, rows)

        return Course(
            cut(self.time),
            self.state.at(cut),
            self.medium.at(cut),
            tuple(map(cut, self.areas)),
            cut(self.changes),
            self.amounts,
        )

    def before(self, times: Tensor, order: Order) -> tuple[State, Medium, Tensor, Tensor]:
        """State and medium after the last event before each asked time, hours since, its place."""
        places = self.places(times, order)

        def pick(values: Tensor) -> Tensor:
            return at_spans(values, places)

        elapsed = (times - pick(self.time)).clamp(min=0.0)
        return self.state.at(pick), self.medium.at(pick), elapsed, places


@dataclass(frozen=True, kw_only=True, slots=True)
class CourseInput:
    """What a course follows from.

    Attributes:
        disposition: see there.
        routes: see there; a dose's `route` is a place in them.
        starts: h, (patients, spans), when the parameters' spans begin.
        doses: see there.
    """

    disposition: Disposition
    routes: tuple[Route, ...]
    starts: Tensor
    doses: Doses

    def some(self, rows: slice) -> "CourseInput":
        """Of some of the patients; what is the same for all stays so."""
        disposition = Disposition(
            clearance=of_rows(self.disposition.clearance, rows),
            volume=of_rows(self.disposition.volume, rows),
            exchanges=tuple(
                (of_rows(flow, rows), of_rows(volume, rows))
                for flow, volume in self.disposition.exchanges
            ),
        )
        return CourseInput(
            disposition=disposition,
            routes=tuple(route.some(rows) for route in self.routes),
            starts=of_rows(self.starts, rows),
            doses=doses_of_rows(self.doses, rows),
        )


def course(given: CourseInput, times: Tensor, *, amounts: bool, areas: bool) -> Course:
    """States after each event up to the last asked time.

    Args:
        given: disposition, routes and doses.
        times: h, (patients, times), all that will be asked; (1, times) if it is the same for all.
        amounts: read amounts, instead of the concentration.
        areas: gather areas, too.

    Raises:
        Refusal: as `entered`.
    """
    events, runs = entered(given.doses, given.routes, given.starts)
    spans = given.starts.shape[1] > 1
    modes = given.disposition.modes()
    whole = Medium(modes, tuple(Chain(route.stages, route.rate) for route in given.routes))
    changes = given.starts[:, 1:]
    clocks = [one.time for one in events]
    horizon, first = times.amax(1, keepdim=True), times.amin(1, keepdim=True)
    shared = [] if spans else [alike(one) for one in clocks]
    if shared and all(one.shape[0] == 1 for one in shared):
        clocks, horizon, first = shared, horizon.amax(0, keepdim=True), first.amin(0, keepdim=True)
    lines = max(one.shape[0] for one in (first, *clocks))
    first = torch.cat([one.expand(lines, -1) for one in (first, *clocks)], 1).amin(1, keepdim=True)
    time = torch.cat([first, changes[:lines].expand(lines, -1), *clocks], 1)
    late = time > horizon
    time = torch.where(late, horizon, time)
    lead = 1 + changes.shape[1]
    brought = additions(events, whole, given.starts, runs=runs, lead=lead)
    sort: Callable[[Tensor], Tensor] = _same
    if spans or len(events) > 1 or bool((time.diff(dim=1) < 0).any()):
        time, places = time.sort(dim=1, stable=True)
        late = late.gather(1, places)
        sort = lambda values: at_spans(values, places)  # noqa: E731
    brought = each(brought, lambda values: torch.where(late, 0.0, sort(values)))
    medium = whole
    if spans:
        inside = span_places(given.starts.expand(time.shape[0], -1), time)
        medium = whole.at(lambda values: at_spans(values, inside))
    rows = medium.rows(amounts=amounts) if areas else ()
    patients = given.doses.amount.shape[0]
    state, gathered = _recursion(time, patients, medium, brought, rows, changing=spans)
    return Course(time, state, medium, gathered, changes, amounts)


def _same(values: Tensor) -> Tensor:
    return values


def _recursion(
    time: Tensor, patients: int, medium: Medium, brought: Added, rows: Rows, *, changing: bool
) -> tuple[State, tuple[Tensor, ...]]:
    """States after each event, and the areas gathered until then."""
    events = time.shape[1]
    turned = _turned(time)
    elapsed = turned[1:] - turned[:-1]
    after = medium.at(lambda values: _turned(values)[: events - 1] if changing else _turned(values))
    runs = brought.inflow is not None
    columns = each(brought, _turned)
    turns = _turns(medium) if changing else ()
    if patients <= FEW and events > 1:
        known = after.over(elapsed, inflow=runs)
        stepped = steps(columns, known, turns)
        return stepped.at(_turned), _areas_of(stepped, known, after, elapsed, rows)
    factors = _factors(after, elapsed, inflow=runs) if events > 1 else []
    zero = torch.zeros(patients, dtype=time.dtype, device=time.device)
    state = State(
        tuple(zero for _ in medium.modes.rates),
        tuple(tuple(zero for _ in range(chain.stages)) for chain in medium.chains),
        tuple(zero for _ in medium.chains) if runs else None,
    )
    gathered = tuple(zero for _ in rows)
    states, areas = [], []
    for place in range(events):
        if changing and place > 0:
            state = State(_turn(state.modes, turns, place - 1), state.chains, state.inflow)
        state = _plus(state, columns, place)
        states.append(state)
        areas.append(gathered)
        if place == events - 1:
            break
        later = moved(state, factors[place])
        if rows:
            here = place if changing else 0
            pick = after.at(lambda values, here=here: values[here])  # type: ignore[misc]
            weights = [[_turned(one)[here] for one in row] for row in rows]
            gained = area(state, later, pick, elapsed[place], weights)
            gathered = tuple(one + more for one, more in zip(gathered, gained, strict=True))
        state = later
    back = _side_by_side if time.shape[0] == 1 else _back
    return _stacked(states, back), tuple(back(parts) for parts in zip(*areas, strict=True))


def _areas_of(
    states: State, factors: Passage, after: Medium, elapsed: Tensor, rows: Rows
) -> tuple[Tensor, ...]:
    """The areas gathered until each event, (patients, events), from all states at once.

    Args:
        states: after each event, each tensor (events, patients).
        factors: of each stretch.
        after: what is in force in each stretch, each tensor (events - 1, patients) or (1, …).
        elapsed: hours of each stretch, (events - 1, patients or 1).
        rows: what is read, each tensor (patients, events) or (patients, 1).
    """
    if not rows:
        return ()
    before = states.at(lambda values: values[:-1])
    stretches = elapsed.shape[0]
    weights = [[_turned(one)[:stretches] for one in row] for row in rows]
    gained = area(before, moved(before, factors), after, elapsed, weights)
    return tuple(
        torch.cat([torch.zeros_like(one[:1]), one.cumsum(dim=0)]).t().contiguous() for one in gained
    )


def _factors(after: Medium, elapsed: Tensor, *, inflow: bool) -> Sequence[Passage]:
    """Of each stretch, (stretches, patients or 1); equal ones of all patients only once."""
    if elapsed.shape[1] > 1 or elapsed.requires_grad or after.modes.rates[0].shape[0] > 1:
        return after.over(elapsed, inflow=inflow).split()
    unlike, places = torch.unique(elapsed[:, 0], return_inverse=True)
    known = after.over(unlike[:, None], inflow=inflow).split()
    return [known[place] for place in places.tolist()]


def area(
    before: State, after: State, medium: Medium, elapsed: Tensor, rows: Rows
) -> tuple[Tensor, ...]:
    """Integral of each reading over a stretch, by balance: l int y = what came - what is left."""
    came = delivered(before, after, elapsed)
    integrals = [
        (one + part * came - other) / rate
        for one, other, part, rate in zip(
            before.modes, after.modes, medium.modes.entry, medium.modes.rates, strict=True
        )
    ]
    return tuple(
        sum((weight * one for weight, one in zip(row, integrals, strict=True)), 0.0 * came)
        for row in rows
    )


def _turned(values: Tensor) -> Tensor:
    """(patients, events) as (events, patients), laid out anew."""
    return values.t().contiguous()


def _back(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts), dim=1)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """(patients, events) of which the patients lie side by side in memory."""
    return torch.stack(list(parts)).t()


def _plus(state: State, added: Added, place: int) -> State:
    modes, chains, inflow = state.modes, state.chains, state.inflow
    if added.modes is not None:
        modes = tuple(one + more[place] for one, more in zip(modes, added.modes, strict=True))
    chains = tuple(
        tuple(
            one if more is None else one + more[place]
            for one, more in zip(stages, extra, strict=True)
        )
        for stages, extra in zip(chains, added.chains, strict=True)
    )
    if inflow is not None and added.inflow is not None:
        inflow = tuple(one + more[place] for one, more in zip(inflow, added.inflow, strict=True))
    return State(modes, chains, inflow)


def _turns(medium: Medium) -> tuple[tuple[Tensor, ...], ...]:
    """How each new mode follows from the old ones, amounts kept, each (events - 1, patients)."""
    roots, shapes = medium.modes.roots, medium.modes.shapes
    size = range(len(roots))
    old = [[_turned(roots[j] * shapes[j][m])[:-1] for m in size] for j in size]
    new = [[_turned(shapes[j][m] / roots[j])[1:] for m in size] for j in size]
    return tuple(
        tuple(sum((new[j][n] * old[j][m] for j in size[1:]), new[0][n] * old[0][m]) for m in size)
        for n in size
    )


def _turn(
    modes: tuple[Tensor, ...], turns: tuple[tuple[Tensor, ...], ...], place: int
) -> tuple[Tensor, ...]:
    found = []
    for row in turns:
        value = row[0][place] * modes[0]
        for weight, mode in zip(row[1:], modes[1:], strict=True):
            value = value + weight[place] * mode
        found.append(value)
    return tuple(found)


def _stacked(states: Sequence[State], back: Callable[[Sequence[Tensor]], Tensor]) -> State:
    modes = tuple(back(parts) for parts in zip(*(one.modes for one in states), strict=True))
    chains = tuple(
        tuple(
            back([one.chains[route][stage] for one in states])
            for stage in range(len(states[0].chains[route]))
        )
        for route in range(len(states[0].chains))
    )
    inflow = None
    if states[0].inflow is not None:
        inflow = tuple(
            back([one.inflow[route] for one in states if one.inflow is not None])
            for route in range(len(states[0].chains))
        )
    return State(modes, chains, inflow)
