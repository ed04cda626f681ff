"""The way through a system, step by step, from one moment that matters to the next."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedtwin_twins.kinetics.advancing import Advancing, plus
from fedtwin_twins.kinetics.events import at_spans, span_places
from fedtwin_twins.kinetics.steps import Steps
from fedtwin_twins.kinetics.systems import States, System
from fedtwin_twins.kinetics.watching import Watch


def walked(
    system: System, walk: Steps, by: Advancing, answers: Sequence[int], fine: float | None
) -> States | None:
    """States at every asked time.

    Args:
        system: equations and start.
        walk: the steps.
        by: how to take one.
        answers: places of the states that are answered.
        fine: h, a longer step is watched; none: no step is.

    Returns:
        each of these states, (patients, times); none: steps that were watched are too long.
    """
    way = _Way(system, walk, by, fine)
    order = system.order
    wanted = torch.unique(walk.asked)
    asked, arrivals = set(wanted.tolist()), set(walk.arrivals)
    kept = _Kept(len(wanted), way.states, answers)
    last = walk.size.shape[0]
    stops = sorted({0, last, *arrivals, *asked, *walk.changes})
    for place, stop in zip(stops, [*stops[1:], last], strict=True):
        if way.watch is not None and way.watch.sees_wrong(place, place == last):
            return None
        before = way.states
        if place in arrivals:
            way.arrive()
        if place in asked:
            kept.keep(way.states if order.dose_first else before)
        if place < last and (place == 0 or place in walk.changes):
            way.change(place)
        way.go(place, stop)
    position = torch.bucketize(walk.asked.contiguous(), wanted)
    return tuple(_picked(one, position) for one in kept.all())


class _Way:
    """Where everybody is, and what is in force there."""

    def __init__(self, system: System, walk: Steps, by: Advancing, fine: float | None) -> None:
        kind = system.start[0].dtype
        self._system, self._by = system, by
        self._begin, self._size = walk.begin.to(kind), walk.size.to(kind)
        self._hours = walk.begin
        self._widths: Sequence[Tensor | float] = self._size.unbind(0)
        self._together = self._size.shape[1] == 1
        if by.numbers and self._together and not self._size.requires_grad:
            self._widths = self._size[:, 0].tolist()
        self._amounts = zip(*(one.to(kind) for one in walk.amounts), strict=True)
        self._starts = system.span_starts().expand(walk.patients, -1)
        self._values = _values(system, None)
        self.states = tuple(one.expand(walk.patients) for one in system.start)
        self._changes, self._running = None, None
        if walk.inflow is not None:
            self._changes = zip(*(one.to(kind) for one in walk.inflow), strict=True)
            self._running = tuple(torch.zeros_like(self.states[0]) for _ in walk.inflow)
        self.watch = None if fine is None else Watch(self.states)
        self._watched = False
        self._at_once = tuple(by.chains) if self._together else ()
        limit = float("inf") if fine is None else fine * (1 + 1e-9)
        self._long = (self._size.detach().amax(1) > limit).tolist()

    def arrive(self) -> None:
        """What comes in next, or changes its rate."""
        self.states = plus(self.states, self._system.into, next(self._amounts))
        if self._changes is not None and self._running is not None:
            changes = zip(self._running, next(self._changes), strict=True)
            self._running = tuple(one + more for one, more in changes)
        if self.watch is not None:
            self.watch.met(self.states)

    def change(self, place: int) -> None:
        """Parameters are those in force from this step on."""
        if self._starts.shape[1] > 1:
            hours = self._hours[place].expand(self._starts.shape[0])[:, None]
            self._values = _values(self._system, span_places(self._starts, hours))

    def go(self, place: int, stop: int) -> None:
        """All steps from a place to the next stop."""
        while place < stop:
            there = place + next((one for one in self._at_once if place + one <= stop), 1)
            self._advance(place, there, any(self._long[place:there]))
            place = there

    def _advance(self, place: int, there: int, long: bool) -> None:
        """From one place to another, by one piece of code."""
        together = there - place in self._at_once
        # What does not fade shows in every second step as well.
        watch = self.watch if long and (together or not self._watched) else None
        hours: Tensor = self._begin[place]
        width: Tensor | float = self._widths[place]
        advance = self._by.step if watch is None else self._by.watched
        if together:
            chains = self._by.chains if watch is None else self._by.watched_chains
            advance = chains[there - place]
            hours, width = self._begin[place:there], self._size[place:there]
        assert advance is not None
        given = self.states
        if watch is None:
            self.states = advance(hours, width, given, self._values, self._running)
        else:
            if not self._long[place - 1]:  # near the height of what came in last
                watch.met(given)
            whole = (*given, *watch.sums)
            found = advance(hours, width, whole, self._values, self._running)
            self.states, watch.sums = found[: len(given)], found[len(given) :]
        self._watched = watch is not None


class _Kept:
    """Answers, each (times, patients), in one piece of memory unless somebody derives by them."""

    def __init__(self, times: int, states: States, answers: Sequence[int]) -> None:
        self._answers = answers
        self._lists: list[list[Tensor]] = [[] for _ in answers]
        self._rows: list[Tensor] = []
        self._count = 0
        if not torch.is_grad_enabled():
            shape = (times, len(states[0]))
            self._rows = [states[number].new_empty(shape) for number in answers]

    def keep(self, states: States) -> None:
        """The next time's."""
        for place, number in enumerate(self._answers):
            if self._rows:
                self._rows[place][self._count] = states[number]
            else:
                self._lists[place].append(states[number])
        self._count += 1

    def all(self) -> list[Tensor]:
        """Of each answer."""
        return self._rows or [torch.stack(one) for one in self._lists]


def _picked(kept: Tensor, position: Tensor) -> Tensor:
    """(patients, times) of what was kept, (times, patients), by place, (patients or 1, times)."""
    if position.shape[0] > 1:
        return kept.t().gather(1, position)
    places = position[0]
    if torch.equal(places, torch.arange(len(kept), device=places.device)):
        return kept.t()
    return kept[places].t()


def _values(system: System, spans: Tensor | None) -> Mapping[str, Tensor]:
    """In force, each (patients,)."""
    if spans is None:
        return {name: one[:, 0].contiguous() for name, one in system.values.items()}
    return {name: at_spans(one, spans)[:, 0].contiguous() for name, one in system.values.items()}
